"""Estimates n-gram models from texts, and writes them as ARPA files."""

from __future__ import annotations

import gzip
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from fastctc.files import write_atomically
from fastctc.scoring.ngram import SPECIAL, UNKNOWN

__all__ = ["write_ngrams"]

MAX_ORDER = 6  # of the models that read_arpa reads
SPACE = "<space>"  # stands for the space, which separates the tokens of an ARPA file
_BEGIN, _END = 0, 1  # numbers of <s> and </s>
_ALWAYS_KEPT = 2  # tokens of the n-grams that min_count leaves in


class _Level(NamedTuple):
    """The n-grams of one length.

    Attributes:
        prefix: of each the number that the n-gram without its last token has in the level before.
        last: of each its last token.
        probability: of each P(last token | the tokens before it); 0 for ``<s>``.
        rest: of each *context* of this level, its share of ``P(w | h')``; 1 if nothing follows the context.
    """

    prefix: Tensor
    last: Tensor
    probability: Tensor
    rest: Tensor


def write_ngrams(
    path: str | os.PathLike[str], texts: Iterable[Sequence[str]], *, order: int = 5, min_count: int = 1
) -> None:
    """Write an n-gram model of texts, which :func:`read_arpa` and other programs read.

    With c(h w) occurrences of the token w after the context h, T(h) different tokens there, N(h) in all and h' as h
    without its first token::

        P(w | h) = (c(h w) + T(h) P(w | h')) / (N(h) + T(h))

    This is the interpolated form of Witten and Bell's method C (1991), which suits tokens that are few, such as
    characters. The unigrams are interpolated with equal probabilities of all tokens and of ``<unk>``.

    Args:
        path: the file, compressed by gzip if its name ends with ``.gz``. Equal texts give equal bytes.
        texts: each a str, whose tokens are its characters, or a sequence of tokens, such as words. A space is
            written as ``<space>``.
        order: tokens of the longest n-grams, 1 to 6.
        min_count: n-grams of 3 and more tokens that occur less often are left out, and their probability goes to
            the shorter ones. This makes a smaller file.

    Raises:
        ValueError: ``order`` or ``min_count`` out of range. Or there is no text, or a token is empty, has other
            white space than one space, or is ``<s>``, ``</s>`` or ``<unk>``.

    Example:
        >>> import tempfile
        >>> from fastctc.scoring import read_arpa
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_ngrams(f"{folder}/letters.arpa", ["banana", "bandana"], order=3)
        ...     letters = read_arpa(f"{folder}/letters.arpa", ["a", "b", "n"])
        >>> letters.score([1, 0, 2]) > letters.score([2, 0, 1])  # ban, nab
        True
    """
    if not 1 <= order <= MAX_ORDER:
        raise ValueError(f"order is {order}, expected 1 to {MAX_ORDER}")
    if min_count < 1:
        raise ValueError(f"min_count is {min_count}, expected at least 1")
    tokens, names = _numbered(texts)
    lines = _lines(list(_levels(tokens, len(names), order, min_count)), names)
    content = "".join(f"{line}\n" for line in lines).encode()
    path = Path(path)
    write_atomically(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def _numbered(texts: Iterable[Sequence[str]]) -> tuple[Tensor, list[str]]:
    """Return the tokens of all texts as numbers, each text between ``<s>`` and ``</s>``, and their names."""
    numbers: dict[str, int] = {}
    flat: list[int] = []
    for text in texts:
        flat.append(_BEGIN)
        flat.extend(numbers.setdefault(token, len(numbers) + len(SPECIAL)) for token in text)
        flat.append(_END)
    for name in numbers:
        reserved = name in SPECIAL or name in UNKNOWN or name == SPACE
        if reserved or (name != " " and name.split() != [name]):
            raise ValueError(
                f"texts has the token {name!r}, expected tokens without white space, and none of"
                f" {', '.join((*SPECIAL, UNKNOWN[0], SPACE))}"
            )
    if not flat:
        raise ValueError("texts is empty, expected at least one text")
    names = [*SPECIAL, *(SPACE if name == " " else name for name in numbers)]
    return torch.tensor(flat), names


def _levels(tokens: Tensor, types: int, order: int, min_count: int) -> Iterator[_Level]:
    """Yield the n-grams of 1, 2, ... up to ``order`` tokens."""
    numbers = torch.zeros_like(tokens)  # of the context that begins at each place; -1: left out
    shorter = torch.tensor(
        [1 / types], dtype=torch.float64
    )  # of each n-gram a token shorter; at first of any token
    for length in range(1, order + 1):
        places = torch.nonzero(numbers[: len(tokens) - length + 1] >= 0)[:, 0]
        if length > 1:
            places = places[tokens[places + length - 2] != _END]
        keys, gram, counts = torch.unique(
            numbers[places] * types + tokens[places + length - 1], return_inverse=True, return_counts=True
        )
        prefix, last = keys // types, keys % types
        suffix = torch.zeros_like(prefix)
        if length > 1:
            suffix[gram] = numbers[places + 1]  # equal at all places of an n-gram
        kept = (counts >= min_count) | (length <= _ALWAYS_KEPT)
        counts = counts.masked_fill(last == _BEGIN, 0).double()  # nothing predicts <s>
        kinds, occurrences, dropped = (
            torch.bincount(prefix, each, len(shorter))
            for each in ((counts > 0).double(), counts, counts * ~kept)
        )
        total = occurrences + kinds
        rest = torch.where(total > 0, (kinds + dropped) / total, 1.0)
        probability = (counts / total[prefix] + rest[prefix] * shorter[suffix])[kept]
        yield _Level(prefix[kept], last[kept], probability, rest)
        numbers = torch.full_like(tokens, -1)
        numbers[places] = torch.where(kept, kept.cumsum(0) - 1, -1)[gram]
        shorter = probability


def _lines(levels: list[_Level], names: list[str]) -> Iterator[str]:
    """Yield the lines of an ARPA file."""
    unknown = float(levels[0].rest[0]) / len(names)
    yield "\\data\\"
    for length, level in enumerate(levels, start=1):
        yield f"ngram {length}={len(level.last) + (length == 1)}"
    texts = [""]
    for length, level in enumerate(levels, start=1):
        yield f"\n\\{length}-grams:"
        if length == 1:
            yield f"{math.log10(unknown):.4f}\t{UNKNOWN[0]}"
        texts = [
            f"{texts[prefix]} {names[last]}".lstrip()
            for prefix, last in zip(level.prefix.tolist(), level.last.tolist(), strict=True)
        ]
        after = levels[length].rest if length < len(levels) else torch.ones(len(texts))
        scores = level.probability.log10()
        if length == 1:
            scores = scores.masked_fill(level.last == _BEGIN, -99.0)
        for text, score, rest in zip(texts, scores.tolist(), after.log10().tolist(), strict=True):
            yield f"{score:.4f}\t{text}" + (f"\t{rest:.4f}" if rest else "")
    yield "\n\\end\\"
