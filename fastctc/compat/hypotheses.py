"""Hypotheses that differ in tokens, but not in their words, as one."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

__all__ = ["Merged", "log_add", "merge"]


class Merged(NamedTuple):
    """Hypotheses with the same words."""

    row: int  #: the place of the best one
    score: float  #: of the best one, or ln of the sum of their exponentiated scores
    acoustic: float  #: of the best one, or ln of the sum of their probabilities


def merge(
    rows: Sequence[int],
    keys: Sequence[Hashable],
    scores: Sequence[float],
    acoustics: Sequence[float],
    add: bool = True,
) -> list[Merged]:
    """Return one item for each different key, the largest score first.

    Args:
        rows: the hypotheses to merge, by their places, best first.
        keys: the words of each hypothesis.
        scores: natural logarithms.
        acoustics: ln P(tokens | x) of each hypothesis.
        add: whether equal keys add up. Otherwise the best one counts.
    """
    found: dict[Hashable, Merged] = {}
    for row in rows:
        new = Merged(row, scores[row], acoustics[row])
        old = found.setdefault(keys[row], new)
        if add and old is not new:
            score, acoustic = log_add(old.score, new.score), log_add(old.acoustic, new.acoustic)
            found[keys[row]] = Merged(old.row, score, acoustic)
    return sorted(found.values(), key=lambda each: -each.score)


def log_add(a: float, b: float) -> float:
    """Return ln(exp(a) + exp(b))."""
    larger = max(a, b)
    return larger if larger == -math.inf else larger + math.log1p(math.exp(min(a, b) - larger))
