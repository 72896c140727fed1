"""``fastctc evaluate``."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastctc.cli.options import (
    add_command,
    add_decoding,
    add_formula_options,
    add_workers,
    constraint_of,
    count_from_zero,
    positive_int,
)

if TYPE_CHECKING:
    from fastctc.crnn.read.evaluate import Evaluation, Share


def add_evaluate(commands: Any) -> None:
    """Declares the command."""
    parser = add_command(
        commands, "evaluate", "measure how well a checkpoint reads: labelled images, or drawings",
        [
            "evaluate shipped --look contest --count 2000",
            "evaluate runs/demo/model.safetensors data/mine --mistakes 10",
            "evaluate shipped data/mine --json",
            "evaluate shipped data/mine --report reports/mine",
            "evaluate shipped --value right --constraint formula",
        ],
        _evaluate,
    )  # fmt: skip
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a checkpoint file, or 'shipped' or 'wide'")
    parser.add_argument(
        "folder", metavar="DIR", nargs="?",
        help="images with labels.tsv, labels.txt or labels.json, or a scene-text LMDB (data.mdb); without it,"
        " drawn formulas",
    )  # fmt: skip
    parser.add_argument(
        "--count", type=positive_int, default=1000, help="images to draw (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=count_from_zero, default=1, help="which are drawn (default: %(default)s)"
    )
    parser.add_argument("--mistakes", type=count_from_zero, default=0, help="show so many of the mistakes")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument(
        "--report", metavar="DIR", type=Path,
        help="write report.html there, and its pictures: confused characters, accuracy by length and contrast,"
        " the worst samples",
    )  # fmt: skip
    add_decoding(parser)
    add_formula_options(parser, look="contest", renderer="captcha", value="mixed")
    add_workers(parser)


def _evaluate(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from fastctc.crnn.data.collect import collect, default_workers
    from fastctc.crnn.data.readers import open_source
    from fastctc.crnn.formulas.drawing import FormulaSource
    from fastctc.crnn.model.checkpoint import load_checkpoint
    from fastctc.crnn.read.evaluate import evaluate
    from fastctc.crnn.read.recognize import checkpoint_path
    from fastctc.crnn.report.evaluation_report import write_report
    from fastctc.crnn.train.data import FIRST_UNSEEN
    from fastctc.plot import load_matplotlib

    if arguments.report:
        load_matplotlib()  # or says that it cannot, before the reading, as the next line does
        arguments.report.mkdir(parents=True, exist_ok=True)
    checkpoint = load_checkpoint(checkpoint_path(arguments.checkpoint))
    workers = default_workers() if arguments.workers is None else arguments.workers
    if arguments.folder is not None:
        data = open_source(arguments.folder)
        workers = workers if len(data) > 2_000 else 0
        samples, problems = collect(
            data, range(len(data)), checkpoint.preprocess, workers=workers, name=data.name
        )
    else:
        source = FormulaSource(
            look=arguments.look, renderer=arguments.renderer, seed=arguments.seed, value=arguments.value
        )
        indices = range(FIRST_UNSEEN, FIRST_UNSEEN + arguments.count)
        workers = workers if arguments.count > 500 else 0
        samples, problems = collect(source, indices, checkpoint.preprocess, workers=workers)
    for problem in problems:
        print(problem, file=sys.stderr)
    with tqdm(total=len(samples), desc="reading", unit="img", disable=None) as bar:
        result = evaluate(
            checkpoint.model, samples, checkpoint.alphabet, checkpoint.preprocess,
            beam_size=arguments.beam_size, constraint=constraint_of(arguments), on_progress=bar.update,
        )  # fmt: skip
    _print_evaluation(result, len(problems), arguments)
    if arguments.report:
        what = arguments.folder or f"{arguments.count} drawn formulas"
        page = write_report(result, samples, arguments.report, f"{arguments.checkpoint} on {what}")
        if not arguments.json:
            print(f"report {page}")
    if problems:
        print(f"{len(problems)} of {len(problems) + result.count} images could not be read", file=sys.stderr)
    return 1 if problems else 0


def _print_evaluation(result: Evaluation, unreadable: int, arguments: argparse.Namespace) -> None:
    mistakes = result.mistakes[: arguments.mistakes]
    if arguments.json:
        listed = [
            {
                "name": one.name, "text": one.right, "read": one.read,
                "score": one.score if math.isfinite(one.score) else None,
            }
            for one in mistakes
        ]  # fmt: skip
        print(json.dumps(result.figures() | {"unreadable": unreadable, "mistakes": listed}))
        return
    print(result.summary())
    groups: dict[str, dict[Any, Share]] = {
        "kind": result.by_kind(),
        "length": {f"{length}:": share for length, share in result.by_length().items()},
        "contrast": {f"from {low:.2f}": share for low, share in result.by_contrast().items()},
    }
    for name, shares in groups.items():
        if shares:
            parts = [
                f"{key} {100 * share.exact_match:.2f}% of {share.count}" for key, share in shares.items()
            ]
            print(f"by {name}: {', '.join(parts)}")
    for one in mistakes:
        print(f"{one.name}\t{one.right}\tread as\t{one.read}")
