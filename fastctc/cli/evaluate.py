"""``fastctc evaluate``."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from fastctc.cli.options import (
    add_command,
    add_formula_options,
    add_workers,
    count_from_zero,
    positive_int,
)

if TYPE_CHECKING:
    from fastctc.crnn.evaluate import Evaluation


def add_evaluate(commands: Any) -> None:
    """Declares the command."""
    parser = add_command(
        commands, "evaluate", "measure how well a checkpoint reads: labelled images, or drawings",
        [
            "evaluate shipped --look contest --count 2000",
            "evaluate runs/demo/model.safetensors data/mine --mistakes 10",
            "evaluate shipped data/mine --json",
        ],
        _evaluate,
    )  # fmt: skip
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a checkpoint file, or 'shipped'")
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
    add_formula_options(parser, look="contest", renderer="captcha", value="mixed")
    add_workers(parser)


def _evaluate(arguments: argparse.Namespace) -> int:
    from fastctc.crnn.checkpoint import load_checkpoint
    from fastctc.crnn.collect import collect, default_workers
    from fastctc.crnn.drawing import FormulaSource
    from fastctc.crnn.evaluate import evaluate
    from fastctc.crnn.readers import open_source
    from fastctc.crnn.recognize import SHIPPED_CHECKPOINT
    from fastctc.crnn.train import FIRST_UNSEEN

    name = SHIPPED_CHECKPOINT if arguments.checkpoint == "shipped" else arguments.checkpoint
    checkpoint = load_checkpoint(name)
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
    result = evaluate(checkpoint.model, samples, checkpoint.alphabet, checkpoint.preprocess)
    _print_evaluation(result, len(problems), arguments)
    if problems:
        print(f"{len(problems)} of {len(problems) + result.count} images could not be read", file=sys.stderr)
    return 1 if problems else 0


def _print_evaluation(result: Evaluation, unreadable: int, arguments: argparse.Namespace) -> None:
    if arguments.json:
        figures = {
            "count": result.count, "correct": result.correct, "exact_match": result.exact_match,
            "character_error_rate": result.character_error_rate, "edits": result.edits,
            "characters": result.characters, "unreadable": unreadable,
        }  # fmt: skip
        mistakes = [
            {"name": name, "text": right, "read": read}
            for name, right, read in result.mistakes[: arguments.mistakes]
        ]
        print(json.dumps(figures | {"mistakes": mistakes}))
        return
    print(result.summary())
    for name, right, read in result.mistakes[: arguments.mistakes]:
        print(f"{name}\t{right}\tread as\t{read}")
