"""``fastctc generate``."""

from __future__ import annotations

import argparse
from pathlib import Path

from fastctc.cli.options import add_drawing, add_workers, count_from_zero, drawing_of, positive_int
from fastctc.crnn import write_folder
from fastctc.crnn.data import progress

EXAMPLES = [
    "generate data/formulas --count 1000",
    "generate data/words --domain words --count 1000",
    "generate data/names --words names.txt --fonts fonts/ --grounds photos/",
    "generate data/other --look default --value right --seed 7",
]


def configure(parser: argparse.ArgumentParser, argv: list[str]) -> None:
    """Declare the options."""
    parser.add_argument("folder", metavar="DIR", type=Path, help="where to write; must not have a labels.tsv")
    parser.add_argument(
        "--count", type=positive_int, default=1000, metavar="N", help="how many images (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=count_from_zero, default=0, metavar="N", help="which images (default: %(default)s)"
    )
    add_workers(parser)
    add_drawing(parser, argv)


def run(arguments: argparse.Namespace) -> int:
    """Draw the images."""
    source = drawing_of(arguments).source(arguments.seed, color=True)
    with progress("drawing", "img", arguments.count) as bar:
        write_folder(
            source, arguments.folder, arguments.count, workers=arguments.workers, on_progress=bar.update
        )
    print(f"{arguments.count} images and labels.tsv in {arguments.folder}")
    return 0
