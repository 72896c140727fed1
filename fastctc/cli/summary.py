"""``fastctc summary``."""

from __future__ import annotations

import argparse
import json
from typing import Any

from fastctc.cli.options import add_command, positive_int


def add_summary(commands: Any) -> None:
    """Declares the command."""
    parser = add_command(
        commands, "summary", "show a checkpoint's layers and sizes, and how it was trained",
        ["summary shipped", "summary runs/demo/model.safetensors --width 400"],
        _summary,
    )  # fmt: skip
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a checkpoint file, or 'shipped' or 'wide'")
    parser.add_argument(
        "--width", type=positive_int, help="columns of the image that shapes are for (default: 3 x its rows)"
    )


def _summary(arguments: argparse.Namespace) -> int:
    from fastctc.crnn.model.checkpoint import load_checkpoint
    from fastctc.crnn.model.summary import summarize
    from fastctc.crnn.read.recognize import checkpoint_path

    checkpoint = load_checkpoint(checkpoint_path(arguments.checkpoint))
    print(summarize(checkpoint.model, arguments.width))
    print(f"\nalphabet {checkpoint.alphabet.characters!r}, blank is class {checkpoint.alphabet.blank}")
    for title, record in (("preprocess", vars(checkpoint.preprocess)), ("training", checkpoint.training)):
        print(f"\n{title}")
        for key, value in record.items():
            print(f"  {key:24} {value if isinstance(value, str) else json.dumps(value)}")
    return 0
