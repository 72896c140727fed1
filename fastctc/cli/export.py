"""``fastctc export``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fastctc.cli.options import add_command


def add_export(commands: Any) -> None:
    """Declares the command."""
    parser = add_command(
        commands, "export", "write a checkpoint as ONNX or as a torch.export program, checked against it",
        ["export shipped formula.onnx", "export runs/demo/model.safetensors formula.pt2"],
        _export,
    )  # fmt: skip
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a checkpoint file, or 'shipped' or 'wide'")
    parser.add_argument("out", metavar="OUT", type=Path, help="the file to write: .onnx or .pt2")


def _export(arguments: argparse.Namespace) -> int:
    kind = arguments.out.suffix.lower()
    if kind not in (".onnx", ".pt2"):
        raise ValueError(f"OUT is {arguments.out}, expected a name that ends in .onnx or .pt2")
    from fastctc.crnn.model.checkpoint import load_checkpoint
    from fastctc.crnn.model.export import export_onnx, export_program
    from fastctc.crnn.read.recognize import checkpoint_path

    write = export_onnx if kind == ".onnx" else export_program
    print(write(load_checkpoint(checkpoint_path(arguments.checkpoint)), arguments.out))
    return 0
