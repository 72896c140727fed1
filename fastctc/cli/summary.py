"""``fastctc summary``."""

from __future__ import annotations

import argparse
import sys

from fastctc.cli.options import add_checkpoint, one_line, positive_int
from fastctc.crnn import load_checkpoint, summarize
from fastctc.crnn.data import finite, to_json
from fastctc.crnn.model import DAMAGED

EXAMPLES = ["summary shipped", "summary runs/demo/model.safetensors --width 400"]


def configure(parser: argparse.ArgumentParser, argv: list[str]) -> None:
    """Declare the options."""
    add_checkpoint(parser)
    parser.add_argument(
        "--width", type=positive_int, metavar="N",
        help="columns of the image that shapes are for (default: 3 x its rows)",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Print the summary."""
    checkpoint = load_checkpoint(arguments.checkpoint)
    print(summarize(checkpoint.model, arguments.width))
    print(f"\nalphabet {checkpoint.alphabet.characters!r}, blank is class {checkpoint.alphabet.blank}")
    problems: list[str] = []
    for title, record in (("preprocess", vars(checkpoint.preprocess)), ("training", checkpoint.training)):
        print(f"\n{title}")
        for key, value in record.items():
            print(f"  {one_line(key):24} {one_line(value) if isinstance(value, str) else to_json(value)}")
            if finite(value) != value:
                problems.append(f"{title} has {key}, in which a number is not finite")
    if DAMAGED in checkpoint.training:
        problems.append(f"the training record is damaged: {checkpoint.training[DAMAGED]}")
    for problem in problems:
        print(f"{arguments.checkpoint}: {problem}", file=sys.stderr)
    return 1 if problems else 0
