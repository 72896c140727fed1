"""``fastctc explore``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, TypeVar

from fastctc.cli.options import (
    add_augment_options,
    add_command,
    add_formula_options,
    add_preprocess_options,
    count_from_zero,
    positive_int,
)

_Config = TypeVar("_Config")


def add_explore(commands: Any) -> None:
    """Declares the command."""
    parser = add_command(
        commands, "explore", "draw what to see before training: samples, labels, sizes, contrast, filters",
        [
            "explore data/mine",
            "explore data/mine --median 3 --rotate 4 --noise 10 --out look/",
            "explore --look contest --limit 500",
        ],
        _explore,
    )  # fmt: skip
    parser.add_argument(
        "folder", metavar="DIR", nargs="?", type=Path,
        help="images with labels.tsv, labels.txt or labels.json, or a scene-text LMDB (data.mdb); without it,"
        " drawn formulas",
    )  # fmt: skip
    parser.add_argument(
        "--out", metavar="FOLDER", type=Path,
        help="where report.html and its pictures go (default: DIR-explore, or formulas-explore)",
    )  # fmt: skip
    parser.add_argument(
        "--limit", type=positive_int, default=2000,
        help="images to look at; labels are counted all (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=count_from_zero, default=0,
        help="which images are looked at, shown or drawn (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--height", type=positive_int, default=64,
        help="rows the model's images have (default: %(default)s)",
    )  # fmt: skip
    add_formula_options(parser, look="contest", renderer="captcha", value="mixed")
    add_preprocess_options(parser)
    add_augment_options(parser)


def _explore(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from fastctc.crnn.data.augment import AugmentConfig
    from fastctc.crnn.data.preprocess import PreprocessConfig
    from fastctc.crnn.data.readers import open_source
    from fastctc.crnn.formulas.drawing import FormulaSource
    from fastctc.crnn.report.exploration import DataSet, Drawn, explore
    from fastctc.crnn.report.exploration_report import PICTURES, write_report
    from fastctc.crnn.train.config import TrainConfig, model_config, settled
    from fastctc.plot import load_matplotlib
    from fastctc.text import Alphabet

    load_matplotlib()
    preprocess, augment = _given(PreprocessConfig, arguments), _given(AugmentConfig, arguments)
    model = model_config(settled(TrainConfig(height=arguments.height)), Alphabet("a"))
    data: DataSet
    if arguments.folder is not None:
        data, title = open_source(arguments.folder), str(arguments.folder)
        place = arguments.folder.resolve()
        out = arguments.out or place.with_name(f"{place.name}-explore")
    else:
        source = FormulaSource(
            look=arguments.look, renderer=arguments.renderer, seed=arguments.seed, value=arguments.value,
            grey=False,
        )  # fmt: skip
        data, title = Drawn(source, arguments.limit), f"Drawn formulas, look {arguments.look}"
        out = arguments.out or Path("formulas-explore")
    out.mkdir(parents=True, exist_ok=True)
    with tqdm(total=len(data), desc="looking", unit="img", disable=None) as bar:
        found = explore(
            data, preprocess, model.frames, limit=arguments.limit, seed=arguments.seed,
            on_progress=bar.update,
        )  # fmt: skip
    with tqdm(total=PICTURES, desc="pictures", unit="picture", disable=None) as bar:
        report = write_report(
            found, data, out, title, preprocess, augment, seed=arguments.seed, on_picture=bar.update
        )
    for problem in [*found.unreadable, *found.too_long]:
        print(problem, file=sys.stderr)
    for name, words in found.summary().items():
        print(f"{name:9} {words}")
    print(f"{'report':9} {report}")
    return 1 if found.unreadable else 0


def _given(kind: type[_Config], arguments: argparse.Namespace) -> _Config:
    """A configuration with the options that were given."""
    names: dict[str, Any] = kind.__dataclass_fields__  # type: ignore[attr-defined]
    return kind(**{name: value for name, value in vars(arguments).items() if name in names})
