"""Files of decoders, and their scores by enumeration of all paths."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from torch import Tensor

Bigrams = Mapping[tuple[str, ...], tuple[float, float]]
"""log10 P of the last word after the others, and log10 of the backoff weight."""

WORDS: Bigrams = {
    ("<unk>",): (-1.3, 0.0),
    ("<s>",): (-99.0, -0.4),
    ("</s>",): (-0.9, 0.0),
    ("ab",): (-0.7, -0.2),
    ("ba",): (-0.8, -0.3),
    ("b",): (-1.1, 0.0),
    ("<s>", "ab"): (-0.5, 0.0),
    ("ab", "ba"): (-0.25, 0.0),
    ("ba", "</s>"): (-0.35, 0.0),
}
BUGS: Bigrams = {
    ("<unk>",): (-10.0, 0.0),
    ("<s>",): (0.0, 0.0),
    ("</s>",): (0.0, 0.0),
    ("bugs",): (0.0, 0.0),
    ("bunny",): (0.0, 0.0),
    ("bunny", "</s>"): (0.0, 0.0),
    ("bugs", "</s>"): (-10.0, 0.0),
    ("<s>", "bugs"): (0.0, 0.0),
    ("<s>", "bunny"): (-10.0, 0.0),
    ("bugs", "bunny"): (0.0, 0.0),
}


def write_arpa(path: Path, ngrams: Bigrams) -> str:
    """Write a model of 1-grams and 2-grams."""
    lines = ["\\data\\"]
    for order in (1, 2):
        lines.append(f"ngram {order}={sum(len(ngram) == order for ngram in ngrams)}")
    for order in (1, 2):
        lines += ["", f"\\{order}-grams:"]
        for ngram, (probability, backoff) in ngrams.items():
            if len(ngram) == order:
                lines.append(f"{probability}\t{' '.join(ngram)}" + f"\t{backoff}" * (order == 1))
    path.write_text("\n".join([*lines, "", "\\end\\", ""]), encoding="utf-8")
    return str(path)


def log10_of(words: Sequence[str], ngrams: Bigrams) -> float:
    """Return log10 P(words </s>) after <s>."""
    total, before = 0.0, "<s>"
    for word in [*words, "</s>"]:
        word = word if (word,) in ngrams else "<unk>"
        if (before, word) in ngrams:
            total += ngrams[before, word][0]
        else:
            total += ngrams[(before,)][1] + ngrams[(word,)][0]
        before = word
    return total


def write_lines(path: Path, lines: Iterable[str]) -> str:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


Reading = tuple[tuple[str, ...], float]
"""Words and the weight of all but the path."""


def sums_of_paths(
    emissions: Tensor, blank: int, readings: Callable[[tuple[int, ...]], Iterator[Reading]]
) -> dict[tuple[str, ...], float]:
    """Return ln of the sum over paths and readings for each sequence of words.

    Args:
        emissions: (T, C) scores.
        blank: the class of the blank.
        readings: what yields the words that tokens can mean.
    """
    rows = emissions.double().tolist()
    sums: dict[tuple[int, ...], list[float]] = defaultdict(list)
    for path in itertools.product(range(len(rows[0])), repeat=len(rows)):
        tokens = tuple(token for token, _ in itertools.groupby(path) if token != blank)
        sums[tokens].append(sum(row[token] for row, token in zip(rows, path)))
    found: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for tokens, paths in sums.items():
        for words, weight in readings(tokens):
            found[words] += [path + weight for path in paths]
    return {words: log_sum(values) for words, values in found.items()}


def log_sum(values: Sequence[float]) -> float:
    largest = max(values)
    return largest + math.log(sum(math.exp(value - largest) for value in values))
