"""``fastctc explore``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fastctc.cli.options import (
    add_drawing,
    add_folder,
    add_settings,
    count_from_zero,
    drawing_of,
    given,
    one_line,
    positive_int,
    refuse_drawing,
)
from fastctc.crnn import (
    AugmentConfig,
    PreprocessConfig,
    Recognizer,
    TrainConfig,
    explore,
    model_config,
    open_source,
    settled,
    write_exploration_report,
)
from fastctc.crnn.data import Drawn, LabelConfig, NamedSource, Problem, claimed, progress
from fastctc.crnn.report import PICTURES, Exploration, leaks, suspects
from fastctc.figures import load_matplotlib
from fastctc.text import Alphabet

EXAMPLES = [
    "explore data/mine",
    "explore data/mine --median 3 --rotate 4 --noise 10 --out look/",
    "explore data/train --against data/test",
    "explore data/mine --checkpoint runs/mine",
    "explore --look contest --limit 500",
]


def configure(parser: argparse.ArgumentParser, argv: list[str]) -> None:
    """Declare the options."""
    add_folder(parser)
    add_settings(parser, "labels", LabelConfig(), "labels", only=("label_pattern", "unicode_form"))
    parser.add_argument(
        "--out", metavar="FOLDER", type=Path,
        help="where report.html and its pictures go (default: DIR-explore, or formulas-explore)",
    )  # fmt: skip
    parser.add_argument(
        "--limit", type=positive_int, default=2000, metavar="N",
        help="images to look at; labels are counted all (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--against", metavar="DIR", type=Path,
        help="list the images that are in this other set, too, of those that are looked at",
    )  # fmt: skip
    parser.add_argument(
        "--checkpoint", metavar="CHECKPOINT",
        help="list the labels that this trained model does not believe, the least credible first",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=count_from_zero, default=0, metavar="N",
        help="which images are looked at, shown or drawn (default: %(default)s)",
    )  # fmt: skip
    add_drawing(parser, argv)
    add_settings(parser, "preprocess", PreprocessConfig(), "preprocessing: of every image, in this order")
    add_settings(parser, "augment", AugmentConfig(), "augmentation: of training images, at random, at most")


def run(arguments: argparse.Namespace) -> int:
    """Look at the data set and write the report."""
    load_matplotlib()
    config = settled(
        TrainConfig(data="explored", preprocess=PreprocessConfig(**given(arguments, "preprocess")))
    )
    data: NamedSource
    if arguments.folder is not None:
        refuse_drawing(arguments, f"{arguments.folder} names images to read")
        labels = LabelConfig(**given(arguments, "labels"))
        data, title = open_source(arguments.folder, labels), str(arguments.folder)
        place = arguments.folder.resolve()
        out = arguments.out or place.with_name(f"{place.name}-explore")
    else:
        data = Drawn(drawing_of(arguments).source(arguments.seed, color=True), arguments.limit)
        domain = arguments.drawn_domain
        title, out = f"Drawn {domain}", arguments.out or Path(f"{domain}-explore")
    with claimed(out):
        return _look(arguments, config, data, out, title)


def _look(
    arguments: argparse.Namespace, config: TrainConfig, data: NamedSource, out: Path, title: str
) -> int:
    """Measure the samples, write the report and print the figures."""
    found = _measured(arguments, config, data, "looking")
    if arguments.against is not None:
        other = open_source(arguments.against, LabelConfig(**given(arguments, "labels")))
        found.leaks = leaks(found, _measured(arguments, config, other, "looking at the other data"))
    if arguments.checkpoint is not None:
        found.suspects = _suspects(arguments, data, found)
    with progress("pictures", "picture", PICTURES) as bar:
        report = write_exploration_report(
            found, data, out, title, config.preprocess, AugmentConfig(**given(arguments, "augment")),
            seed=arguments.seed, on_picture=bar.update,
        )  # fmt: skip
    for problem in [
        *found.unreadable, *found.too_long, *found.duplicates, *found.leaks, *found.suspects,
    ]:  # fmt: skip
        print(one_line(problem), file=sys.stderr)
    for name, words in found.summary().items():
        print(f"{name:9} {one_line(words)}")
    print(f"{'report':9} {report}")
    return 1 if found.unreadable else 0


def _measured(
    arguments: argparse.Namespace, config: TrainConfig, data: NamedSource, what: str
) -> Exploration:
    with progress(what, "img", len(data)) as bar:
        return explore(
            data, config.preprocess, model_config(config, Alphabet("a")).frames, limit=arguments.limit,
            seed=arguments.seed, on_progress=bar.update,
        )  # fmt: skip


def _suspects(arguments: argparse.Namespace, data: NamedSource, found: Exploration) -> list[Problem]:
    recognizer = Recognizer.load(arguments.checkpoint)
    with progress("reading", "img", len(found.measured)) as bar:
        doubted = suspects(recognizer, data, [m.index for m in found.measured], on_progress=bar.update)
    return [
        Problem(
            one.name, f"its label is {one.label!r}, the model reads {one.read!r}; log ratio {one.doubt:.1f}"
        )
        for one in doubted
    ]
