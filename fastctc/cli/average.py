"""``fastctc average``."""

from __future__ import annotations

import argparse
from pathlib import Path

from fastctc.cli.options import add_workers, count_from_zero, positive_int
from fastctc.crnn import Checkpoint, load_checkpoint, open_source, save_checkpoint
from fastctc.crnn.data import Source, collect, draw_from_dict, progress
from fastctc.crnn.training import average, check_alike, digest_of

EXAMPLES = [
    "average mean.safetensors runs/first runs/second runs/third",
    "average mean.safetensors runs/a runs/b --data data/mine",
]


def configure(parser: argparse.ArgumentParser, argv: list[str]) -> None:
    """Declare the options."""
    parser.add_argument("out", metavar="FILE", type=Path, help="the checkpoint to write")
    parser.add_argument(
        "checkpoints", metavar="CHECKPOINT", nargs="+",
        help="two or more checkpoints, each trained from the one before with train --from",
    )  # fmt: skip
    parser.add_argument(
        "--data", metavar="DIR",
        help="labeled images on which the statistics of normalization are measured (default: images are drawn as"
        " for the training of the last checkpoint)",
    )  # fmt: skip
    parser.add_argument(
        "--count", type=positive_int, default=4000, metavar="N", help="how many images (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=count_from_zero, default=0, metavar="N", help="which are drawn (default: %(default)s)"
    )
    add_workers(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the average of the checkpoints."""
    checkpoints = [load_checkpoint(each) for each in arguments.checkpoints]
    check_alike(checkpoints)
    source, count = _images(arguments, checkpoints[-1])
    preprocess = checkpoints[-1].preprocess
    with progress("drawing" if arguments.data is None else "reading", "img", count) as bar:
        samples, problems = collect(
            source, range(count), preprocess, workers=arguments.workers, on_progress=bar.update
        )
    if problems and not samples:
        raise ValueError(f"none of {len(problems)} images can be read; the first: {problems[0]}")
    with progress("measuring", "img", len(samples)) as bar:
        mean = average(checkpoints, samples.images, on_progress=bar.update)
    mean.training["averaged"] = [digest_of(each) for each in arguments.checkpoints]
    save_checkpoint(mean, arguments.out)
    print(
        f"{arguments.out}: the average of {len(checkpoints)} checkpoints, measured on {len(samples)} images"
    )
    return 0


def _images(arguments: argparse.Namespace, checkpoint: Checkpoint) -> tuple[Source, int]:
    """Return the images to measure statistics on, and their number."""
    if arguments.data is not None:
        labeled = open_source(arguments.data)
        return labeled, min(arguments.count, len(labeled))
    drawn = (checkpoint.training.get("recipe") or {}).get("draw")
    if drawn is None:
        raise ValueError(
            f"{arguments.checkpoints[-1]} was not trained on drawn images, expected --data with images of its kind"
        )
    return draw_from_dict(drawn).source(arguments.seed), arguments.count
