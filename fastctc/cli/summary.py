"""``fastctc summary``."""

from __future__ import annotations

import argparse
import sys

import torch

from fastctc.cli.options import add_checkpoint, one_line, picture_file, positive_int
from fastctc.crnn import load_checkpoint, summarize
from fastctc.crnn.data import finite, to_json
from fastctc.crnn.model import DAMAGED
from fastctc.crnn.report import plot_network
from fastctc.figures import load_matplotlib, write_picture

EXAMPLES = [
    "summary formula",
    "summary runs/demo/model.safetensors --width 400",
    "summary formula --picture net.svg",
]


def configure(parser: argparse.ArgumentParser, argv: list[str]) -> None:
    """Declare the options."""
    add_checkpoint(parser)
    parser.add_argument(
        "--width", type=positive_int, metavar="N",
        help="columns of the image that shapes are for (default: 3 x its rows)",
    )  # fmt: skip
    parser.add_argument(
        "--picture", metavar="FILE", type=picture_file,
        help="draw the network as a graph with the shape of each output: a .png, .pdf or .svg file",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Print the summary."""
    if arguments.picture:  # what stops the picture stops it first
        load_matplotlib()
    checkpoint = load_checkpoint(arguments.checkpoint)
    summary = summarize(checkpoint.model, arguments.width)
    print(summary)
    print(f"\nalphabet {checkpoint.alphabet.characters!r}, blank is class {checkpoint.alphabet.blank}")
    if arguments.picture:
        image = torch.zeros(1, 1, summary.height, summary.width)
        write_picture(
            plot_network(checkpoint.model, image, title=str(arguments.checkpoint)), arguments.picture
        )
        print(f"picture {arguments.picture}")
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
