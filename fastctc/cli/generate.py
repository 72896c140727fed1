"""``fastctc generate``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from fastctc.cli.options import (
    add_command,
    add_formula_options,
    add_workers,
    count_from_zero,
    positive_int,
)


def add_generate(commands: Any) -> None:
    """Declares the command."""
    parser = add_command(
        commands, "generate", "draw formula images: a folder of PNG files and labels.tsv",
        ["generate data/formulas --count 1000", "generate data/other --look default --value right --seed 7"],
        _generate,
    )  # fmt: skip
    parser.add_argument("folder", metavar="DIR", type=Path, help="where to write; must not have a labels.tsv")
    parser.add_argument(
        "--count", type=positive_int, default=1000, help="how many images (default: %(default)s)"
    )
    parser.add_argument("--seed", type=count_from_zero, default=0, help="which images (default: %(default)s)")
    add_formula_options(parser, look="contest", renderer="captcha", value="mixed")
    add_workers(parser)


def _generate(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from fastctc.crnn.data.collect import default_workers, write_folder
    from fastctc.crnn.formulas.drawing import FormulaSource

    source = FormulaSource(
        look=arguments.look, renderer=arguments.renderer, seed=arguments.seed, value=arguments.value
    )
    workers = default_workers() if arguments.workers is None else arguments.workers
    workers = workers if arguments.count > 500 else 0
    with tqdm(total=arguments.count, desc="drawing", unit="img", disable=None) as bar:
        write_folder(source, arguments.folder, arguments.count, workers=workers, on_progress=bar.update)
    print(f"{arguments.count} images and labels.tsv in {arguments.folder}")
    return 0
