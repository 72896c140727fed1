"""``fastctc lm``."""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

from fastctc.cli.options import count_from_zero, positive_int
from fastctc.crnn import WordDraw, open_source
from fastctc.crnn.data import progress
from fastctc.crnn.read import lines_of
from fastctc.scoring import write_ngrams

EXAMPLES = [
    "lm names.arpa.gz names.txt",
    "lm lines.arpa.gz data/lines --order 6",
    "lm words.arpa.gz --count 1000000 --min-count 30",
]


def configure(parser: argparse.ArgumentParser, argv: list[str]) -> None:
    """Declare the options."""
    parser.add_argument(
        "out", metavar="FILE", type=Path, help="where to write: an ARPA file, compressed if it ends with .gz"
    )
    parser.add_argument(
        "texts", metavar="TEXTS", nargs="*",
        help="text files in UTF-8 with one text a line, or labeled images, whose labels are read; without any,"
        " texts are made as the domain words draws them",
    )  # fmt: skip
    parser.add_argument(
        "--order", type=positive_int, default=5, metavar="N",
        help="characters of the longest n-grams, at most 6 (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--min-count", type=positive_int, default=1, metavar="N",
        help="leave out n-grams of 3 and more characters that occur less often (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--count", type=positive_int, default=200_000, metavar="N",
        help="how many texts to make if none are given (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=count_from_zero, default=0, metavar="N", help="which are made (default: %(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Estimate the model, and write it."""
    if arguments.texts:
        texts = [text for each in arguments.texts for text in _read(each)]
    else:
        draw, rng = WordDraw().text_draw(), random.Random(arguments.seed)
        texts = list(_shown((draw(rng) for _ in range(arguments.count)), arguments.count))
    write_ngrams(arguments.out, texts, order=arguments.order, min_count=arguments.min_count)
    print(f"{len(texts)} texts, {arguments.out} has {arguments.out.stat().st_size} bytes")
    return 0


def _shown(texts: Iterable[str], count: int) -> Iterator[str]:
    with progress("making texts", "text", count) as bar:
        for text in texts:
            bar.update()
            yield text


def _read(name: str) -> list[str]:
    """Return the texts of a file with one a line, or the labels of images."""
    if Path(name).suffix == ".txt":
        return [line for _, line in lines_of(name)]
    source = open_source(name)
    return [source(i)[1] for i in range(len(source))]
