"""``fastctc read``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from fastctc.cli.options import (
    add_decoding,
    add_running,
    add_workers,
    has_model,
    knowledge_of,
    one_line,
    picture_file,
    positive_int,
    recognizer_of,
    share,
)
from fastctc.crnn import Reading, Recognizer, explain
from fastctc.crnn.data import Inputs, progress, shipped_checkpoints, stamp, to_json
from fastctc.crnn.read import read_entries, row_of, why_unread, workers_for, write_readings
from fastctc.figures import write_picture

EXAMPLES = [
    "read formula.png",
    "read --json scans/ *.png",
    "read --device cuda scans/ > texts.tsv",
    "read formula.png --explain why.png",
    "read formula.png --beam-size 20 --nbest 5",
    "read --constraint formula equations/",
    "read --constraint '\\d{3}-\\d{4}' --nbest 3 numbers/",
    "read --lexicon words.txt --lm words.arpa.gz --lm-weight 0.8 --word-bonus 0.5 lines/",
    "read --hotwords names.txt lines/",
    "read --output texts.parquet 'shards/{000..099}.tar'",
    "read --checkpoint words --second-look 0.5 --min-confidence 0.9 photos/",
    "read --checkpoint runs/a/model.safetensors a.png",
]


def configure(parser: argparse.ArgumentParser, argv: list[str]) -> None:
    """Declare the options."""
    parser.add_argument(
        "images", metavar="IMAGE", nargs="+",
        help="an image file; a folder: all images in it and below it; a tar file, a Parquet file or an LMDB of"
        " images; or a pattern of their names, such as 'shards-{000..099}.tar'",
    )  # fmt: skip
    names = " or ".join(repr(name) for name in shipped_checkpoints())
    parser.add_argument(
        "--checkpoint", default="formula",
        help=f"model to read with: a file, or {names}, which come with the package (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--json", action="store_true",
        help="one JSON object a line, with score and n-best; for an image that cannot be read, null and an error",
    )  # fmt: skip
    add_decoding(parser)
    parser.add_argument(
        "--nbest", type=positive_int, default=1, metavar="N",
        help="hypotheses for each image, the best first; more than one needs --beam-size or an option of knowledge",
    )  # fmt: skip
    parser.add_argument(
        "--min-confidence", type=share, default=0.0, metavar="P",
        help="count a text as not read if its probability is below P, from 0 to 1 (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--output", metavar="FILE", type=Path,
        help="write a .tsv, .jsonl or .parquet file; the same command goes on if it was killed. Several processes"
        " of torchrun share the work",
    )  # fmt: skip
    parser.add_argument(
        "--explain", metavar="PICTURE", type=picture_file,
        help="draw where the image shows each character and how sure that is: a .png, .pdf or .svg file",
    )  # fmt: skip
    parser.add_argument(
        "--batch-size", type=positive_int, default=64, metavar="N",
        help="images at once (default: %(default)s)",
    )  # fmt: skip
    add_workers(parser)
    add_running(parser)


def run(arguments: argparse.Namespace) -> int:
    """Read the images, and print their texts or write them into a file."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several and arguments.output is None:
        raise ValueError("several processes read, which needs --output: a file that they write together")
    if several and arguments.device == "cuda":
        arguments.device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    recognizer = recognizer_of(arguments)
    return _write(recognizer, arguments) if arguments.output else _print(recognizer, arguments)


def _write(recognizer: Recognizer, arguments: argparse.Namespace) -> int:
    """Write the texts into a file."""
    for option in ("json", "explain"):
        if getattr(arguments, option):
            raise ValueError(
                f"--{option} is given with --output, whose format follows from the name of its file"
            )
    names = ("lexicon", "lm", "hotwords")
    files = {
        name: [str(file), stamp(file) if file.exists() else None]
        for name in names
        if (file := getattr(arguments, name))
    }
    values = {name: getattr(arguments, name) for name in ("constraint", "lm_weight", "word_bonus")}
    with progress("reading", "img", Inputs(arguments.images).count()) as bar:
        written = write_readings(
            recognizer, arguments.images, arguments.output, batch_size=arguments.batch_size,
            beam_size=arguments.beam_size, nbest=arguments.nbest, min_confidence=arguments.min_confidence,
            workers=arguments.workers, model_scores=has_model(arguments, recognizer), settings=files | values,
            on_progress=bar.update, **knowledge_of(arguments, recognizer.alphabet),
        )  # fmt: skip
    if written is None:
        return 0
    if written.failed:
        print(f"{written.failed} of {written.count} could not be read", file=sys.stderr)
    print(f"{written.count} images in {arguments.output}", file=sys.stderr)
    return 1 if written.failed else 0


def _print(recognizer: Recognizer, arguments: argparse.Namespace) -> int:
    """Print the texts."""
    inputs = Inputs(arguments.images)
    if arguments.explain and (count := sum(1 for _ in inputs.entries(lambda number: False))) != 1:
        raise ValueError(f"--explain draws one image, but {count} are to be read")
    decoder = recognizer.decoder(
        beam_size=arguments.beam_size, nbest=arguments.nbest, **knowledge_of(arguments, recognizer.alphabet)
    )
    workers = workers_for(inputs) if arguments.workers is None else arguments.workers
    model_scores = has_model(arguments, recognizer)
    failed = total = 0
    for name, reading in read_entries(
        recognizer, inputs.entries(), decoder, batch_size=arguments.batch_size, workers=workers
    ):
        total += 1
        error = why_unread(reading, arguments.min_confidence)
        if error is not None:
            print(f"{one_line(name)}: {error}", file=sys.stderr)
            failed += 1
        _print_reading(name, reading, error, arguments, model_scores)
        if error is None and arguments.explain:
            (entry,) = inputs.entries()
            assert isinstance(entry.image, Path | bytes)
            write_picture(explain(recognizer, entry.image, reading).plot(), arguments.explain)
    if failed:
        print(f"{failed} of {total} could not be read", file=sys.stderr)
    return 1 if failed else 0


def _print_reading(
    name: str, reading: Reading, error: str | None, arguments: argparse.Namespace, model_scores: bool
) -> None:
    """Print a reading; in JSON an error too, so that there is a line for each image."""
    if arguments.json:
        least = arguments.min_confidence
        print(to_json(row_of(name, reading, min_confidence=least, model_scores=model_scores)))
    elif error is None and arguments.nbest > 1:
        for hypothesis in reading.nbest:
            print(f"{one_line(name)}\t{one_line(hypothesis.text)}\t{hypothesis.score:.6g}")
    elif error is None:
        print(f"{one_line(name)}\t{one_line(reading.text)}")
    if reading.warning and error is None and not arguments.json:
        print(f"{one_line(name)}: warning: {reading.warning}", file=sys.stderr)
