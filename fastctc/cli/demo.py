"""``fastctc demo``."""

from __future__ import annotations

import argparse
from typing import Any

from fastctc.cli.options import add_command, add_run_options, images_in
from fastctc.cli.train import run_training


def add_demo(commands: Any) -> None:
    """Declares the command."""
    parser = add_command(
        commands, "demo", "train a model within 9 minutes on 2 CPU cores, and read five new images with it",
        ["demo runs/demo", "demo runs/demo --resume", "demo runs/short --minutes 2"],
        _demo,
    )  # fmt: skip
    add_run_options(parser)


def _demo(arguments: argparse.Namespace) -> int:
    from fastctc.crnn.data.collect import write_folder
    from fastctc.crnn.read.recognize import Recognizer
    from fastctc.crnn.train.data import FIRST_UNSEEN, formula_source

    result = run_training(arguments, "quick")
    folder = arguments.out / "examples"
    (folder / "labels.tsv").unlink(missing_ok=True)
    source = formula_source(result.config, renderer="captcha", grey=False)
    first = FIRST_UNSEEN + result.config.eval_images
    write_folder(source, folder, 5, first=first)
    print(f"checkpoint {result.checkpoint}")
    print(f"unseen images: {result.evaluation.summary()}")
    paths = images_in(folder)
    for path, reading in zip(paths, Recognizer.from_checkpoint(result.checkpoint).read(paths), strict=True):
        print(f"{path}\t{reading.text}")
    return 0
