"""``fastctc read``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastctc.cli.options import add_command, add_decoding, constraint_of, images_in, positive_int

if TYPE_CHECKING:
    from fastctc.crnn.read.recognize import Reading, Recognizer


def add_read(commands: Any) -> None:
    """Declares the command."""
    parser = add_command(
        commands, "read", "read images: one line each, the path, a tab, the text;"
        " with --nbest, a line each hypothesis, and its natural-log probability behind another tab",
        [
            "read formula.png",
            "read --json scans/ *.png",
            "read formula.png --explain why.png",
            "read formula.png --beam-size 20 --nbest 5",
            "read --constraint formula equations/",
            "read --checkpoint wide photos/",
            "read --checkpoint runs/a/model.safetensors a.png",
        ],
        _read,
    )  # fmt: skip
    parser.add_argument(
        "images", metavar="IMAGE", nargs="+", type=Path, help="an image file, or a folder of them"
    )
    parser.add_argument(
        "--checkpoint",
        default="shipped",
        help="model to read with: a file, or 'shipped' or 'wide', those in the package; wide reads fonts better"
        " that neither has seen (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line, with score and n-best")
    add_decoding(parser)
    parser.add_argument(
        "--nbest", type=positive_int, default=1, metavar="N",
        help="hypotheses an image, the best first; more than one needs --beam-size or --constraint",
    )  # fmt: skip
    parser.add_argument(
        "--explain", metavar="PICTURE", type=Path,
        help="draw where the image shows each character and how sure that is: a .png, .pdf or .svg file",
    )  # fmt: skip
    parser.add_argument(
        "--batch-size", type=positive_int, default=64, help="images at once (default: %(default)s)"
    )


def _read(arguments: argparse.Namespace) -> int:
    from fastctc.crnn.read.recognize import Recognizer

    recognizer = Recognizer.from_checkpoint(arguments.checkpoint)
    failed = 0
    paths: list[Path] = []
    for path in arguments.images:
        found = images_in(path) if path.is_dir() else [path]
        if not found:
            print(f"{path}: no image in this folder", file=sys.stderr)
            failed += 1
        paths += found
    total = len(paths) + failed
    if arguments.explain and total != 1:
        raise ValueError(f"--explain draws one image, but {total} are to be read")
    readings = recognizer.read_stream(
        paths, arguments.batch_size,
        beam_size=arguments.beam_size, nbest=arguments.nbest, constraint=constraint_of(arguments),
    )  # fmt: skip
    for path, reading in zip(paths, readings, strict=True):
        if reading.error is not None:
            print(f"{path}: {reading.error}", file=sys.stderr)
            failed += 1
        elif arguments.json:
            nbest = [{"text": h.text, "log_prob": h.log_prob} for h in reading.nbest]
            print(
                json.dumps({"path": str(path), "text": reading.text, "score": reading.score, "nbest": nbest})
            )
        elif arguments.nbest > 1:
            for hypothesis in reading.nbest:
                print(f"{path}\t{hypothesis.text}\t{hypothesis.log_prob:.6g}")
        else:
            print(f"{path}\t{reading.text}")
        if arguments.explain and reading.error is None:
            _explain(recognizer, path, reading, arguments.explain)
    if failed:
        print(f"{failed} of {total} could not be read", file=sys.stderr)
    return 1 if failed else 0


def _explain(recognizer: Recognizer, image: Path, reading: Reading, picture: Path) -> None:
    from fastctc.crnn.model.checkpoint import write_atomically
    from fastctc.crnn.read.explain import explain

    figure = explain(recognizer, image, reading).plot()
    kind = picture.suffix or ".png"
    write_atomically(picture.with_suffix(kind), lambda path: figure.savefig(path, dpi=200, format=kind[1:]))
