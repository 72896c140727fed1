"""``fastctc demo``."""

from __future__ import annotations

import argparse

from fastctc.cli.options import one_line
from fastctc.cli.train import add_run_options, report_unread, run_training
from fastctc.crnn import PRESETS, Recognizer, write_folder
from fastctc.crnn.data import claimed, images_in
from fastctc.crnn.training import FIRST_UNSEEN

EXAMPLES = ["demo runs/demo", "demo runs/demo --resume", "demo runs/short --minutes 2"]


def configure(parser: argparse.ArgumentParser, argv: list[str]) -> None:
    """Declare the options."""
    parser.add_argument("out", metavar="DIR", help="where model, state, log and examples go")
    add_run_options(parser, PRESETS["quick"], schedule=["minutes"], recipe=["seed", "threads"])


def run(arguments: argparse.Namespace) -> int:
    """Train, and read five images that were never trained on."""
    with claimed(arguments.out):
        return _demonstrate(arguments)


def _demonstrate(arguments: argparse.Namespace) -> int:
    result = run_training(arguments, None)
    folder = result.checkpoint.parent / "examples"
    (folder / "labels.tsv").unlink(missing_ok=True)
    config = result.config
    assert config.draw is not None, "the preset draws"
    source = config.draw.unseen().source(config.seed, color=True)
    write_folder(source, folder, 5, first=FIRST_UNSEEN + config.schedule.eval_images)
    print(f"checkpoint {result.checkpoint}")
    print(f"unseen images: {result.evaluation.summary()}")
    paths = images_in(folder)
    for path, reading in zip(paths, Recognizer.load(result.checkpoint).read(paths), strict=True):
        print(f"{path}\t{one_line(reading.text)}")
    return report_unread(result)
