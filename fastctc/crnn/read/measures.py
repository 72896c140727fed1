"""Measures of the field beside exact match and character error rate, and a paired test of two models."""

from __future__ import annotations

import math
from typing import NamedTuple

from fastctc.crnn.read.evaluation import Evaluation, Outcome, edit_distance


class Measures(NamedTuple):
    """Measures over the samples of an evaluation.

    Attributes:
        alphanumeric_match: share of the samples whose letters and digits are read exactly, upper and lower case
            being equal: the accuracy of most tables of scene text.
        word_error_rate: insertions, deletions and substitutions of words per word of the right texts.
        normalized_edit_distance: mean over the samples of the character edits divided by the characters of the
            longer text (1-NED of the ICDAR contests is one minus it).
    """

    alphanumeric_match: float
    word_error_rate: float
    normalized_edit_distance: float


def measures(evaluation: Evaluation) -> Measures:
    """Return the measures of an evaluation; all are 0 without samples."""
    outcomes = evaluation.outcomes
    count = max(1, len(outcomes))
    alike = sum(_alphanumeric(each.right) == _alphanumeric(each.read) for each in outcomes)
    words = max(1, sum(len(each.right.split()) for each in outcomes))
    distances = (each.edits / max(1, len(each.right), len(each.read)) for each in outcomes)
    return Measures(alike / count, sum(map(_word_edits, outcomes)) / words, sum(distances) / count)


def _alphanumeric(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())


def _word_edits(outcome: Outcome) -> int:
    return edit_distance(outcome.right.split(), outcome.read.split())


class Comparison(NamedTuple):
    """Two models on the same samples.

    Attributes:
        both: samples that both read exactly.
        first: samples that the first alone reads exactly.
        second: samples that the second alone reads exactly.
        neither: samples that neither reads exactly.
        p: probability of so uneven a split of ``first`` and ``second`` between equally accurate models.
    """

    both: int
    first: int
    second: int
    neither: int
    p: float

    def summary(self) -> str:
        """Return the comparison as one line of text."""
        return (
            f"first alone right: {self.first}, second alone: {self.second}, both: {self.both}, neither:"
            f" {self.neither}; McNemar's exact test: p = {self.p:.3g}"
        )


def compare(first: Evaluation, second: Evaluation) -> Comparison:
    """Compare two evaluations of the same samples by the exact test of McNemar.

    McNemar, "Note on the sampling error of the difference between correlated proportions or percentages", 1947.

    Args:
        first: evaluation of one model.
        second: evaluation of the other one. Samples that only one of them could read are left out.

    Raises:
        ValueError: the evaluations have no sample in common, by name and right text.
    """
    right = {(each.name, each.right): each.edits == 0 for each in second.outcomes}
    pairs = [
        (each.edits == 0, right[each.name, each.right])
        for each in first.outcomes
        if (each.name, each.right) in right
    ]
    if not pairs:
        raise ValueError("first and second have no sample in common")
    counts = {pair: pairs.count(pair) for pair in set(pairs)}
    both, one, two, neither = (
        counts.get(pair, 0) for pair in ((True, True), (True, False), (False, True), (False, False))
    )
    return Comparison(both, one, two, neither, _two_sided(one, one + two))


def _two_sided(successes: int, trials: int) -> float:
    """Return the two-sided p-value of a number of successes of even odds."""
    fewer = min(successes, trials - successes)
    tail = sum(
        math.exp(
            math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1) - trials * math.log(2)
        )
        for k in range(fewer + 1)
    )
    return min(1.0, 2 * tail)
