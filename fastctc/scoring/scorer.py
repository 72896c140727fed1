"""What a search asks of its knowledge: the arcs of a label from a state, and the ways to end there."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple, Protocol

from fastctc.scoring.automaton import OTHERWISE, REJECTED, Automaton

__all__ = ["Arc", "AutomatonScorer", "End", "Scorer"]


class Arc(NamedTuple):
    """One way to take a label."""

    state: Hashable
    weight: float  #: a natural logarithm, more than -inf
    words: tuple[str, ...] = ()  #: the words that the label completes


class End(NamedTuple):
    """One way to end a sequence."""

    weight: float
    words: tuple[str, ...] = ()


class Scorer(Protocol):
    """Weigh sequences of labels, one label at a time.

    A scorer may have several arcs for a label: homophones, or words that are not separated. Then each sequence of
    arcs is a hypothesis of its own.
    """

    def begin(self) -> Hashable:
        """Return the state before the first label."""

    def arcs(self, state: Any, label: int) -> Sequence[Arc]:
        """Return all arcs of a label from a state, in a fixed order; none, if the label is rejected."""

    def ends(self, state: Any) -> Sequence[End]:
        """Return all ways to end a sequence in a state; none, if the sequence is rejected."""


class AutomatonScorer:
    """An automaton as a scorer: its states, at most one arc for a label.

    Its sums equal the sums of :meth:`Automaton.step`. It is in Python, which is faster for one state at a time.
    """

    def __init__(self, automaton: Automaton) -> None:
        self.start = automaton.start
        self.first_arc: list[int] = automaton.first_arc.tolist()
        self.next_state: list[int] = automaton.next_state.tolist()
        self.weight: list[float] = automaton.weight.tolist()
        self.failure_state: list[int] = automaton.failure_state.tolist()
        self.failure_weight: list[float] = automaton.failure_weight.tolist()
        self.final_weight: list[float] = automaton.final_weight.tolist()
        self.labels: list[int] = automaton.label.tolist()
        self._arcs: dict[int, dict[int, int]] = {}

    def begin(self) -> int:
        """Return the start state."""
        return self.start

    def step(self, state: int, label: int) -> tuple[int, float]:
        """Return the next state and the weight: -1 and -inf for a rejected label."""
        total = 0.0
        while state != REJECTED:
            arcs = self._arcs_of(state)
            arc = arcs.get(label, arcs.get(OTHERWISE))
            if arc is not None:
                total += self.weight[arc]
                return (self.next_state[arc], total) if total > -math.inf else (REJECTED, total)
            total += self.failure_weight[state]
            state = self.failure_state[state]
        return REJECTED, -math.inf

    def arcs(self, state: int, label: int) -> list[Arc]:
        """Return the arc of a label, or none."""
        target, weight = self.step(state, label)
        return [] if target == REJECTED else [Arc(target, weight)]

    def ends(self, state: int) -> list[End]:
        """Return the final weight, or nothing if it is -inf."""
        weight = self.final_weight[state]
        return [End(weight)] if weight > -math.inf else []

    def _arcs_of(self, state: int) -> dict[int, int]:
        if state not in self._arcs:
            first, end = self.first_arc[state], self.first_arc[state + 1]
            self._arcs[state] = {self.labels[arc]: arc for arc in range(first, end)}
        return self._arcs[state]
