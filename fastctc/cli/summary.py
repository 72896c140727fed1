"""``fastctc summary``."""

from __future__ import annotations

import argparse
import json

from fastctc.cli.options import add_checkpoint, positive_int
from fastctc.crnn import load_checkpoint, summarize

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
    for title, record in (("preprocess", vars(checkpoint.preprocess)), ("training", checkpoint.training)):
        print(f"\n{title}")
        for key, value in record.items():
            print(f"  {key:24} {value if isinstance(value, str) else json.dumps(value)}")
    return 0
