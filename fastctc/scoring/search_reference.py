"""The executable definition of a search with scorers: slow, short, in Python's floats.

score(y) = ln P_CTC(y | x) + A(y). Because A depends on the labels alone, sums over paths stay sums over paths.
Hypotheses are pairs of labels and arcs: most scorers have one sequence of arcs for each sequence of labels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

from torch import Tensor

from fastctc.reference import brute_force
from fastctc.scoring.scorer import Arc, Scorer

__all__ = ["Hypothesis", "beam_search_with_scorers", "brute_force_search"]


class Hypothesis(NamedTuple):
    """A sequence of labels with a sequence of arcs of each scorer."""

    tokens: tuple[int, ...]
    score: float  #: acoustic + weight
    acoustic: float  #: ln P_CTC(tokens | x); in a beam the sum of the paths that the beam kept
    weight: float  #: the sum of the weights of all scorers, with the end
    words: tuple[tuple[str, ...], ...]  #: of each scorer


class _Walk(NamedTuple):
    """Where the scorers are after some labels."""

    states: tuple[Hashable, ...]
    weight: float
    words: tuple[tuple[str, ...], ...]

    def advanced(self, scorers: Sequence[Scorer], label: int) -> Iterator[_Walk]:
        """Yield each way to take a label: one arc of each scorer."""
        ways = [scorer.arcs(state, label) for scorer, state in zip(scorers, self.states)]
        for arcs in itertools.product(*ways):
            weight = self.weight
            for arc in arcs:
                weight += arc.weight
            yield _Walk(tuple(arc.state for arc in arcs), weight, self._with(arcs))

    def ended(self, scorers: Sequence[Scorer]) -> Iterator[_Walk]:
        """Yield each way to end."""
        ways = [scorer.ends(state) for scorer, state in zip(scorers, self.states)]
        for ends in itertools.product(*ways):
            weight = self.weight
            for end in ends:
                weight += end.weight
            yield _Walk((), weight, self._with([Arc(None, *end) for end in ends]))

    def _with(self, arcs: Sequence[Arc]) -> tuple[tuple[str, ...], ...]:
        return tuple((*words, *arc.words) for words, arc in zip(self.words, arcs))


def _first_walk(scorers: Sequence[Scorer]) -> _Walk:
    return _Walk(tuple(scorer.begin() for scorer in scorers), 0.0, tuple(() for _ in scorers))


def brute_force_search(log_probs: Tensor, scorers: Sequence[Scorer], blank: int = 0) -> list[Hypothesis]:
    """Return all hypotheses of a probability above 0, best first, by enumeration of all paths and arcs.

    Args:
        log_probs: (T, C) natural-log probabilities, small: there are C^T paths.
        scorers: what weighs the labels.
        blank: the class of the blank.

    Returns:
        All hypotheses. Equal scores are ordered by their tokens, then by their words.
    """
    found = []
    for tokens, (log_p, _) in brute_force(log_probs, blank).items():
        acoustic = float(log_p)
        walks = [_first_walk(scorers)]
        for label in tokens:
            walks = [longer for walk in walks for longer in walk.advanced(scorers, label)]
        for walk in [ended for each in walks for ended in each.ended(scorers)]:
            if acoustic + walk.weight > -math.inf:
                score = acoustic + walk.weight
                found.append(Hypothesis(tokens, score, acoustic, walk.weight, walk.words))
    return sorted(found, key=lambda each: (-each.score, each.tokens, each.words))


# A prefix by its labels and, for each, which of the arcs it took.
_Key = tuple[tuple[int, int], ...]


class _Sums(NamedTuple):
    """The log-probabilities of the paths that spell a prefix, weights included."""

    walk: _Walk
    blank: float  #: of the paths that end in the blank
    label: float  #: of the others

    @property
    def total(self) -> float:
        return _log_add(self.blank, self.label)


_Beam = dict[_Key, _Sums]  # best first


def beam_search_with_scorers(
    log_probs: Tensor,
    scorers: Sequence[Scorer],
    *,
    beam_size: int,
    blank: int = 0,
) -> list[Hypothesis]:
    """Return what a prefix beam search finds, best first: the hypotheses of its last beam that end.

    Each frame keeps the best ``beam_size`` of all prefixes, by acoustics and the weights so far. Equal scores are
    ordered: prefixes that stay before new ones, the former by their rank, the latter by the rank of the prefix that
    they extend, then by the probability of the label, then by the label, then by the order of arcs.

    Args:
        log_probs: (T, C) natural-log probabilities.
        scorers: what weighs the labels.
        beam_size: the number of prefixes in a beam.
        blank: the class of the blank.
    """
    beam: _Beam = {(): _Sums(_first_walk(scorers), 0.0, -math.inf)}
    for row in log_probs.double().tolist():
        found = [*_stays(beam, row, blank), *_births(beam, row, blank, scorers)]
        possible = [(key, sums) for key, sums in found if sums.total > -math.inf]
        possible.sort(key=lambda each: -each[1].total)  # stable
        beam = dict(possible[:beam_size])

    result = []
    for key, sums in beam.items():
        acoustic = sums.total - sums.walk.weight
        for walk in sums.walk.ended(scorers):
            score = sums.total + (walk.weight - sums.walk.weight)
            if score > -math.inf:
                tokens = tuple(label for label, _ in key)
                result.append(Hypothesis(tokens, score, acoustic, walk.weight, walk.words))
    return sorted(result, key=lambda each: -each.score)


def _leading_to(label: int, key: _Key, sums: _Sums) -> float:
    """Return the log-probability of the paths of a prefix that one more label makes longer."""
    return sums.blank if key and key[-1][0] == label else sums.total


def _stays(beam: _Beam, row: list[float], blank: int) -> Iterator[tuple[_Key, _Sums]]:
    """Yield the prefixes of a beam one frame later."""
    for key, sums in beam.items():
        label = -math.inf
        if key:
            last, parent = key[-1][0], beam.get(key[:-1])
            reach = -math.inf
            if parent is not None:
                reach = _leading_to(last, key[:-1], parent) + (sums.walk.weight - parent.walk.weight)
            label = _log_add(sums.label, reach) + row[last]
        yield key, _Sums(sums.walk, sums.total + row[blank], label)


def _births(
    beam: _Beam, row: list[float], blank: int, scorers: Sequence[Scorer]
) -> Iterator[tuple[_Key, _Sums]]:
    """Yield the prefixes one label longer that are not in the beam."""
    labels = sorted((c for c in range(len(row)) if c != blank), key=lambda c: (-row[c], c))
    for key, sums in beam.items():
        for label in labels:
            reach = _leading_to(label, key, sums)
            if reach + row[label] == -math.inf:
                continue
            for choice, walk in enumerate(sums.walk.advanced(scorers, label)):
                longer = (*key, (label, choice))
                if longer not in beam:
                    step = walk.weight - sums.walk.weight
                    yield longer, _Sums(walk, -math.inf, reach + step + row[label])


def _log_add(a: float, b: float) -> float:
    larger = max(a, b)
    return larger if larger == -math.inf else larger + math.log1p(math.exp(min(a, b) - larger))
