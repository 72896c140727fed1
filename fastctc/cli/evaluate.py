"""``fastctc evaluate``."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastctc.cli.options import (
    add_checkpoint,
    add_decoding,
    add_drawing,
    add_folder,
    add_running,
    add_settings,
    add_workers,
    count_from_zero,
    drawing_of,
    given,
    knowledge_of,
    one_line,
    positive_int,
    recognizer_of,
    refuse_drawing,
    trained_domain,
)
from fastctc.crnn import (
    Evaluation,
    Recognizer,
    evaluate,
    load_checkpoint,
    open_source,
    save_checkpoint,
    write_evaluation_report,
)
from fastctc.crnn.data import Drawn, LabelConfig, NamedSource, claimed, progress, to_json
from fastctc.crnn.read import Share, compare, measures
from fastctc.crnn.training import FIRST_UNSEEN
from fastctc.figures import load_matplotlib

EXAMPLES = [
    "evaluate formula --look contest --count 2000",
    "evaluate runs/demo/model.safetensors data/mine --mistakes 10",
    "evaluate formula data/mine --json",
    "evaluate words data/signs --ignore-case",
    "evaluate runs/a data/test --compare runs/b",
    "evaluate formula data/mine --report reports/mine",
    "evaluate runs/a data/val --calibrate calibrated.safetensors",
    "evaluate formula --value right --constraint formula",
    "evaluate runs/words/model.safetensors data/mine --lexicon words.txt --lm words.arpa.gz --lm-weight 0.8",
]


def configure(parser: argparse.ArgumentParser, argv: list[str]) -> None:
    """Declare the options."""
    add_checkpoint(parser)
    add_folder(parser)
    add_settings(parser, "labels", LabelConfig(), "labels", only=("label_pattern", "unicode_form"))
    parser.add_argument(
        "--count", type=positive_int, default=1000, metavar="N", help="images to draw (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=count_from_zero, default=1, metavar="N", help="which are drawn (default: %(default)s)"
    )
    parser.add_argument(
        "--mistakes", type=count_from_zero, default=0, metavar="N", help="show N of the mistakes"
    )
    parser.add_argument(
        "--compare", metavar="CHECKPOINT",
        help="a second model, read with in the same way: how many images each alone reads, and a paired test",
    )  # fmt: skip
    parser.add_argument(
        "--calibrate", metavar="FILE", type=Path,
        help="write the checkpoint with a temperature that brings its confidence near its accuracy on these images;"
        " these should be of the kind that is read later, and not of the training data",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument(
        "--report", metavar="FOLDER", type=Path,
        help="write report.html there, and its pictures: confused characters, accuracy by length and contrast,"
        " the worst samples",
    )  # fmt: skip
    add_decoding(parser)
    add_running(parser)
    add_workers(parser)
    add_drawing(parser, argv, default=trained_domain(argv))


def run(arguments: argparse.Namespace) -> int:
    """Read the images and print the accuracy."""
    with ExitStack() as claims:
        if arguments.report:  # what stops the report stops it before the reading
            load_matplotlib()
            claims.enter_context(claimed(arguments.report))
        return _evaluate(arguments)


def _evaluate(arguments: argparse.Namespace) -> int:
    recognizer = recognizer_of(arguments)
    data: NamedSource
    if arguments.folder is not None:
        refuse_drawing(arguments, f"{arguments.folder} names images to read")
        labels = LabelConfig(**given(arguments, "labels"))
        data, what = open_source(arguments.folder, labels), str(arguments.folder)
    else:
        source = drawing_of(arguments).source(arguments.seed, color=True)
        data, what = (
            Drawn(source, arguments.count, FIRST_UNSEEN),
            f"{arguments.count} drawn {arguments.drawn_domain}",
        )
    result = _read(recognizer, data, arguments)
    second = None
    if arguments.compare is not None:
        other = recognizer_of(arguments, arguments.compare)
        second = _read(other, data, arguments)
    for problem in result.problems:
        print(one_line(problem), file=sys.stderr)
    _print_evaluation(result, second, arguments)
    if arguments.report:
        page = write_evaluation_report(result, arguments.report, f"{arguments.checkpoint} on {what}")
        if not arguments.json:
            print(f"report {page}")
    if arguments.calibrate:
        _calibrate(result, arguments)
    if result.problems:
        unread = len(result.problems)
        print(f"{unread} of {unread + result.count} images could not be read", file=sys.stderr)
    return 1 if result.problems else 0


def _calibrate(result: Evaluation, arguments: argparse.Namespace) -> None:
    """Write the checkpoint with the temperature that fits an evaluation."""
    fitted = result.calibrated()
    save_checkpoint(
        replace(load_checkpoint(arguments.checkpoint), temperature=fitted.temperature), arguments.calibrate
    )
    print(
        f"{arguments.calibrate}: temperature {fitted.temperature:.3f}, calibration error"
        f" {result.calibration_error:.4f} before and {fitted.calibration_error:.4f} after",
        file=sys.stderr,
    )


def _read(recognizer: Recognizer, data: NamedSource, arguments: argparse.Namespace) -> Evaluation:
    with progress("reading", "img", len(data)) as bar:
        return evaluate(
            recognizer, data, beam_size=arguments.beam_size, **knowledge_of(arguments, recognizer.alphabet),
            workers=arguments.workers, on_progress=bar.update,
        )  # fmt: skip


def _print_evaluation(result: Evaluation, second: Evaluation | None, arguments: argparse.Namespace) -> None:
    mistakes = result.mistakes[: arguments.mistakes]
    if arguments.json:
        listed = [
            {
                "name": one.name, "text": one.right, "read": one.read,
                "score": one.score,
            }
            for one in mistakes
        ]  # fmt: skip
        figures = result.figures() | measures(result)._asdict()
        figures |= {"unreadable": len(result.problems), "mistakes": listed}
        if second is not None:
            other = second.figures() | measures(second)._asdict()
            figures["compare"] = compare(result, second)._asdict() | {"second_model": other}
        print(to_json(figures))
        return
    print(result.summary())
    others = measures(result)
    print(
        f"letters and digits exact {100 * others.alphanumeric_match:.2f}% without case, word error rate"
        f" {100 * others.word_error_rate:.3f}%, normalized edit distance {others.normalized_edit_distance:.5f},"
        f" calibration error {result.calibration_error:.4f}"
    )
    if second is not None:
        print(f"second model: {second.summary()}")
        print(compare(result, second).summary())
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
        print("\t".join(map(one_line, (one.name, one.right, "read as", one.read))))
