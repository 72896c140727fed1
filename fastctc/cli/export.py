"""``fastctc export``."""

from __future__ import annotations

import argparse
from pathlib import Path

from fastctc.cli.options import add_checkpoint
from fastctc.crnn import export_onnx, export_program, load_checkpoint

EXAMPLES = ["export formula formula.onnx", "export runs/demo/model.safetensors formula.pt2"]


def configure(parser: argparse.ArgumentParser, argv: list[str]) -> None:
    """Declare the options."""
    add_checkpoint(parser)
    parser.add_argument("out", metavar="OUT", type=Path, help="the file to write: .onnx or .pt2")


def run(arguments: argparse.Namespace) -> int:
    """Write the file."""
    writers = {".onnx": export_onnx, ".pt2": export_program}
    write = writers.get(arguments.out.suffix.lower())
    if write is None:
        raise ValueError(f"OUT is {arguments.out}, expected a name that ends in .onnx or .pt2")
    print(write(load_checkpoint(arguments.checkpoint), arguments.out))
    return 0
