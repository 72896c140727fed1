"""``fastctc read``."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

from fastctc.cli.options import (
    add_decoding,
    add_running,
    knowledge_of,
    one_line,
    picture_file,
    positive_int,
    recognizer_of,
)
from fastctc.crnn import Hypothesis, Reading, Recognizer, explain
from fastctc.crnn.data import images_in, shipped_checkpoints, to_json
from fastctc.figures import write_picture

EXAMPLES = [
    "read formula.png",
    "read --json scans/ *.png",
    "read --device cuda scans/ > texts.tsv",
    "read formula.png --explain why.png",
    "read formula.png --beam-size 20 --nbest 5",
    "read --constraint formula equations/",
    "read --constraint '\\d{3}-\\d{4}' --nbest 3 numbers/",
    "read --lexicon words.txt --lm words.arpa.gz --lm-weight 0.8 --word-bonus 0.5 lines/",
    "read --hotwords names.txt lines/",
    "read --checkpoint wide --min-confidence 0.9 photos/",
    "read --checkpoint runs/a/model.safetensors a.png",
]


def configure(parser: argparse.ArgumentParser, argv: list[str]) -> None:
    """Declare the options."""
    parser.add_argument(
        "images", metavar="IMAGE", nargs="+", type=Path,
        help="an image file, or a folder: all images in it and below it",
    )  # fmt: skip
    names = " or ".join(repr(name) for name in shipped_checkpoints())
    parser.add_argument(
        "--checkpoint", default="shipped",
        help=f"model to read with: a file, or {names}, which come with the package; wide is more accurate on"
        " unseen fonts (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--json", action="store_true",
        help="one JSON object a line, with score and n-best; for an image that cannot be read, null and an error",
    )  # fmt: skip
    add_decoding(parser)
    parser.add_argument(
        "--nbest", type=positive_int, default=1, metavar="N",
        help="hypotheses for each image, the best first; more than one needs --beam-size or an option of knowledge",
    )  # fmt: skip
    parser.add_argument(
        "--min-confidence", type=_share, default=0.0, metavar="P",
        help="count a text as not read if its probability is below P, from 0 to 1 (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--explain", metavar="PICTURE", type=picture_file,
        help="draw where the image shows each character and how sure that is: a .png, .pdf or .svg file",
    )  # fmt: skip
    parser.add_argument(
        "--batch-size", type=positive_int, default=64, metavar="N",
        help="images at once (default: %(default)s)",
    )  # fmt: skip
    add_running(parser)


def run(arguments: argparse.Namespace) -> int:
    """Read the images and print their texts."""
    recognizer = recognizer_of(arguments)
    failed = 0
    paths: list[Path] = []
    for path in arguments.images:
        found = images_in(path, recursive=True) if path.is_dir() else [path]
        if not found:
            _print_error(path, "no image in this folder", arguments)
            failed += 1
        paths += found
    total = len(paths) + failed
    if arguments.explain and total != 1:
        raise ValueError(f"--explain draws one image, but {total} are to be read")
    readings = recognizer.read_stream(
        paths, arguments.batch_size,
        beam_size=arguments.beam_size, nbest=arguments.nbest, **knowledge_of(arguments, recognizer.alphabet),
    )  # fmt: skip
    for path, reading in zip(paths, readings, strict=True):
        error = _why_unread(reading, arguments)
        if error is not None:
            _print_error(path, error, arguments)
            failed += 1
            continue
        _print_reading(path, reading, arguments)
        if arguments.explain:
            _explain(recognizer, path, reading, arguments.explain)
    if failed:
        print(f"{failed} of {total} could not be read", file=sys.stderr)
    return 1 if failed else 0


def _share(text: str) -> float:
    """Return a number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 1")
    return value


def _why_unread(reading: Reading, arguments: argparse.Namespace) -> str | None:
    """Return why a reading does not count; None if it does."""
    if reading.error is not None:
        return reading.error
    if not math.isfinite(reading.score):
        return f"its score is {reading.score}"
    least = arguments.min_confidence
    if reading.confidence < least:
        return f"confidence {reading.confidence:.3g} is below {least:g}: {one_line(reading.text)!r}"
    return None


def _print_reading(path: Path, reading: Reading, arguments: argparse.Namespace) -> None:
    warning = reading.warning
    if arguments.json:
        nbest = [_to_dict(each, arguments) for each in reading.nbest]
        line = {
            "path": str(path), "text": reading.text, "score": reading.score,
            "confidence": reading.confidence, "nbest": nbest,
        }  # fmt: skip
        print(to_json(line | ({"warning": warning} if warning else {})))
    elif arguments.nbest > 1:
        for hypothesis in reading.nbest:
            print(f"{one_line(path)}\t{one_line(hypothesis.text)}\t{hypothesis.score:.6g}")
    else:
        print(f"{one_line(path)}\t{one_line(reading.text)}")
    if warning and not arguments.json:
        print(f"{one_line(path)}: warning: {warning}", file=sys.stderr)


def _to_dict(hypothesis: Hypothesis, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return a hypothesis for JSON, with the score of models if there are any."""
    values = {"text": hypothesis.text, "log_prob": hypothesis.log_prob}
    has_model = arguments.lexicon or arguments.lm or arguments.hotwords
    return values | ({"model_score": hypothesis.model_score} if has_model else {})


def _print_error(path: Path, error: str, arguments: argparse.Namespace) -> None:
    """Print why there is no text; in JSON too, so that there is a line for each image."""
    print(f"{one_line(path)}: {error}", file=sys.stderr)
    if arguments.json:
        print(to_json({"path": str(path), "text": None, "score": None, "nbest": [], "error": error}))


def _explain(recognizer: Recognizer, image: Path, reading: Reading, picture: Path) -> None:
    write_picture(explain(recognizer, image, reading).plot(), picture)
