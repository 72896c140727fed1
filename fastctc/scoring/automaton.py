"""Deterministic weighted automata with failure arcs: one structure for all knowledge that a search can use."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fastctc.scoring.automaton_checks import check_automaton, check_range
from fastctc.scoring.automaton_file import read_tensors, write_tensors

__all__ = ["OTHERWISE", "REJECTED", "Automaton"]

OTHERWISE = -1
"""The label of an arc for all labels that have no arc of their own in its state."""

REJECTED = -1
"""The state after a token that the automaton does not accept."""


@dataclass(frozen=True, repr=False, eq=False)
class Automaton:
    """A weight for each sequence of labels: A(y) = the weights of its arcs + the final weight of its last state.

    An automaton is deterministic: from each state a label leads to at most one other state.

    - A state whose arcs lack the label follows its failure arc. That consumes no label and adds its weight.
    - An arc with the label ``OTHERWISE`` (-1) takes every label that has no arc of its own in its state.
    - A state with neither rejects the label: the weight is -inf, and so is the weight of all longer sequences.

    Weights are natural logarithms in float32. Their sums are computed in float64: failure arcs in the order in
    which they are followed, then the arc. A weight may be positive. -inf forbids.

    An automaton is a value: it can be compared, pickled, deep-copied, moved to a device, and saved. Its tensors are
    not to be changed. It is no ``torch.nn.Module``, because ``Module.half()`` must not round its weights. A module
    keeps it as an attribute and calls ``self.automaton.to(x.device)``, which costs nothing on the same device.
    ``torch.save`` and ``torch.load`` take it, alone or in a dict.

    Build one with :meth:`from_arcs`, :meth:`load` or a function of :mod:`fastctc.scoring`. S is the number of
    states, A the number of arcs.

    >>> import fastctc
    >>> ab_or_b = fastctc.Automaton.from_arcs([(0, 1, 1, -0.5), (0, 2, 2, 0.0), (1, 2, 2, 0.25)], final={2: 0.0})
    >>> ab_or_b.score([1, 2]), ab_or_b.score([2]), ab_or_b.score([2, 2])
    (-0.25, 0.0, -inf)
    """

    first_arc: (
        Tensor  #: (S + 1) int32, the arcs of state s are ``first_arc[s]`` to ``first_arc[s + 1]``, exclusive
    )
    label: Tensor  #: (A) int32, increasing within a state
    next_state: Tensor  #: (A) int32
    weight: Tensor  #: (A) float32
    failure_state: Tensor  #: (S) int32, -1 for none
    failure_weight: Tensor  #: (S) float32
    final_weight: Tensor  #: (S) float32, -inf for a state in which no sequence may end
    largest_weight: Tensor  #: (S) float32, an upper bound of the weight of any label from this state
    start: int  #: the state before the first label
    symbols: tuple[str, ...] | None = None  #: a name for each label, or None

    @classmethod
    def from_tensors(
        cls,
        *,
        first_arc: Tensor,
        label: Tensor,
        next_state: Tensor,
        weight: Tensor,
        failure_state: Tensor,
        failure_weight: Tensor,
        final_weight: Tensor,
        start: int = 0,
        symbols: Sequence[str] | None = None,
    ) -> Automaton:
        """Return the automaton of these tensors, whose fields have the same names. They are not copied.

        Raises:
            TypeError: a tensor has another dtype than int32 (arcs, states, labels) or float32 (weights).
            ValueError: the tensors are no automaton: the message names the state or the arc. Among the reasons are
                two arcs with one label in a state, a circle of failure arcs, and weights that are NaN or +inf.
        """
        tensors = {
            "first_arc": first_arc,
            "label": label,
            "next_state": next_state,
            "weight": weight,
            "failure_state": failure_state,
            "failure_weight": failure_weight,
            "final_weight": final_weight,
        }
        depths = check_automaton(tensors, start)
        largest = _largest_weights(tensors, depths)
        return cls(**tensors, largest_weight=largest, start=start, symbols=_names(symbols))

    @classmethod
    def from_arcs(
        cls,
        arcs: Iterable[tuple[int, int, int, float]],
        final: Mapping[int, float],
        *,
        start: int = 0,
        failure: Mapping[int, tuple[int, float]] | None = None,
        symbols: Sequence[str] | None = None,
    ) -> Automaton:
        """Return the automaton of a list of arcs. Its states are 0 to the largest that is named.

        Args:
            arcs: (state, label, next state, weight) of each arc, in any order.
            final: the final weight of each state in which a sequence may end.
            start: the state before the first label.
            failure: for each state that has a failure arc, the state it leads to and its weight.
            symbols: a name for each label.

        Raises:
            ValueError: as :meth:`from_tensors`.

        >>> loop = Automaton.from_arcs([(0, OTHERWISE, 0, -1.0), (0, 3, 0, 2.0)], final={0: 0.0})
        >>> loop.score([3, 5, 3])
        3.0
        """
        failure = failure or {}
        rows = sorted(((int(a[0]), int(a[1]), int(a[2]), float(a[3])) for a in arcs), key=lambda row: row[:2])
        named = {start, *final, *failure, *(f for f, _ in failure.values())}
        named.update(state for row in rows for state in (row[0], row[2]))
        if min(named) < 0:
            raise ValueError(f"there is a state {min(named)}, expected states to be 0 or more")
        states = max(named) + 1
        columns = list(zip(*rows)) if rows else [(), (), (), ()]
        counts = torch.bincount(torch.tensor(columns[0], dtype=torch.int64), minlength=states)
        first_arc = torch.zeros(states + 1, dtype=torch.int32)
        first_arc[1:] = counts.cumsum(0)
        chains = [failure.get(state, (-1, 0.0)) for state in range(states)]
        return cls.from_tensors(
            first_arc=first_arc,
            label=torch.tensor(columns[1], dtype=torch.int32),
            next_state=torch.tensor(columns[2], dtype=torch.int32),
            weight=torch.tensor(columns[3], dtype=torch.float32),
            failure_state=torch.tensor([state for state, _ in chains], dtype=torch.int32),
            failure_weight=torch.tensor([weight for _, weight in chains], dtype=torch.float32),
            final_weight=torch.tensor([final.get(state, -math.inf) for state in range(states)]),
            start=start,
            symbols=symbols,
        )

    @property
    def num_states(self) -> int:
        """Return the number of states."""
        return self.failure_state.shape[0]

    @property
    def num_arcs(self) -> int:
        """Return the number of arcs, without failure arcs."""
        return self.label.shape[0]

    @property
    def device(self) -> torch.device:
        """Return the device of the tensors."""
        return self.label.device

    @property
    def nbytes(self) -> int:
        """Return the memory of the tensors in bytes."""
        return sum(each.nbytes for each in self.tensors().values())

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by their names."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("start", "symbols")}

    def to(self, device: torch.device | str) -> Automaton:
        """Return the automaton on a device; itself if it is there already."""
        moved = {name: each.to(device) for name, each in self.tensors().items()}
        if moved["label"] is self.label:
            return self
        return Automaton(**moved, start=self.start, symbols=self.symbols)

    def scaled(self, scale: float, label_bonus: float = 0.0) -> Automaton:
        """Return the automaton with the weights of arcs, failure arcs and ends times ``scale``.

        Args:
            scale: a finite number of at least 0. -inf stays -inf, even at 0.
            label_bonus: added once for each label of a sequence: to the arcs, after the scale.

        Raises:
            ValueError: ``scale`` is negative or not finite, or ``label_bonus`` is not finite.
        """
        if not 0 <= scale < math.inf:
            raise ValueError(f"scale is {scale}, expected a finite number of at least 0")
        if not math.isfinite(label_bonus):
            raise ValueError(f"label_bonus is {label_bonus}, expected a finite number")

        def scaled(weights: Tensor, bonus: float = 0.0) -> Tensor:
            finite = (weights.double() * scale + bonus).float()
            return torch.where(weights == -math.inf, weights, finite)

        tensors = {name: each for name, each in self.tensors().items() if name != "largest_weight"}
        tensors["weight"] = scaled(self.weight, label_bonus)
        tensors["failure_weight"] = scaled(self.failure_weight)
        tensors["final_weight"] = scaled(self.final_weight)
        return Automaton.from_tensors(**tensors, start=self.start, symbols=self.symbols)

    def step(self, states: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the states after one more label, and the weights of the labels.

        Args:
            states: int64 of any shape, in [-1, S). ``REJECTED`` (-1) stays what it is.
            labels: int64, at least 0, of a shape that broadcasts with ``states``.

        Returns:
            The next states, int64, and the weights, float64, both of the broadcast shape. A rejected label gives
            the state ``REJECTED`` (-1) and the weight -inf.

        Raises:
            ValueError: a state or a label is out of range.
        """
        check_range(states, "states", -1, self.num_states)
        check_range(labels, "labels", 0, None)
        shape = (states + labels).shape
        states = states.to(torch.int64).expand(shape).reshape(-1)
        labels = labels.to(torch.int64).expand(shape).reshape(-1)
        nexts = torch.full_like(states, REJECTED)
        weights = torch.full_like(states, -math.inf, dtype=torch.float64)
        walkers = (states >= 0).nonzero()[:, 0]  # those that have not found an arc yet
        at, sums = states[walkers], torch.zeros_like(weights[walkers])
        while walkers.numel():
            arc = self._find_arc(at, labels[walkers])
            found = arc >= 0
            arc, arrived = arc[found], walkers[found]
            weights[arrived] = sums[found] + self.weight[arc].double()
            nexts[arrived] = self.next_state[arc].long()
            goes_on = ~found & (self.failure_state[at] >= 0)
            walkers, at, sums = walkers[goes_on], at[goes_on], sums[goes_on]
            sums = sums + self.failure_weight[at].double()
            at = self.failure_state[at].long()
        nexts[weights == -math.inf] = REJECTED
        return nexts.reshape(shape), weights.reshape(shape)

    def _find_arc(self, states: Tensor, labels: Tensor) -> Tensor:
        """Return the arc of each label from each state, -1 for none, by a binary search."""
        begin, end = self.first_arc[states].long(), self.first_arc[states + 1].long()
        low, high = begin.clone(), end.clone()
        while bool((low < high).any()):
            middle = (low + high) // 2
            smaller = (low < high) & (self.label[middle.clamp(max=self.num_arcs - 1)] < labels)
            low, high = (
                torch.where(smaller, middle + 1, low),
                torch.where(smaller, high, middle.minimum(high)),
            )
        last = max(self.num_arcs - 1, 0)
        if self.num_arcs == 0:
            return torch.full_like(states, -1)
        own = (low < end) & (self.label[low.clamp(max=last)] == labels)
        otherwise = (begin < end) & (self.label[begin.clamp(max=last)] == OTHERWISE)
        return torch.where(own, low, torch.where(otherwise, begin, -1))

    @cached_property
    def _root(self) -> int:
        state = self.start
        while (failure := int(self.failure_state[state])) >= 0:
            state = failure
        return state

    def root(self) -> int:
        """Return the last state on the way of failure arcs from the start: the empty context of an n-gram model."""
        return self._root

    @cached_property
    def root_arcs(self) -> Tensor:
        """Return the arc of each label in the state :meth:`root`, int32, -1 for none: one look for many arcs."""
        first, end = self.first_arc[self.root() : self.root() + 2].tolist()
        labels = self.label[first:end].long()
        own = labels >= 0
        size = int(labels[-1]) + 1 if bool(own.any()) else 0
        arcs = torch.full((size,), -1, dtype=torch.int32, device=self.device)
        arcs[labels[own]] = torch.arange(first, end, dtype=torch.int32, device=self.device)[own]
        return arcs

    def largest_weight_of_labels(self, size: int) -> Tensor:
        """Return (size) float64, an upper bound of the weight of each label, from any state."""
        first, failure = self.first_arc.long(), self.failure_state.long()
        best = torch.full((size,), -math.inf, dtype=torch.float64, device=self.device)
        begin = first[:-1][first.diff() > 0]
        otherwise = begin[self.label[begin] == OTHERWISE]
        if otherwise.numel():
            best.fill_(float(self.weight[otherwise].max()))
        own = (self.label >= 0) & (self.label < size)
        best.scatter_reduce_(0, self.label[own].long(), self.weight[own].double(), "amax")
        gain = torch.zeros(self.num_states, dtype=torch.float64, device=self.device)
        followers = (failure >= 0).nonzero()[:, 0]
        while True:  # the largest sum of failure weights from each state, arcs of any number
            more = gain.index_put(
                (followers,), self.failure_weight[followers].double() + gain[failure[followers]]
            )
            more.clamp_(min=0)
            if torch.equal(more, gain):
                return best + gain.max()
            gain = more

    def final(self, states: Tensor) -> Tensor:
        """Return the weights of ending in ``states`` (int64, in [-1, S)), float64; -inf for ``REJECTED``."""
        weights = self.final_weight[states.clamp(min=0)].double()
        return torch.where(states >= 0, weights, -math.inf)

    def score(self, sequence: Sequence[int] | Tensor) -> float:
        """Return A(sequence): the sum of the weights of its labels and the final weight, a natural logarithm."""
        state = torch.tensor(self.start, device=self.device)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for label in torch.as_tensor(sequence, dtype=torch.int64, device=self.device):
            state, weight = self.step(state, label)
            total = total + weight
        return float(total + self.final(state))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file that :meth:`load` maps into memory; a file of that name is replaced at once or not at all.

        It is a safetensors file with the tensors by their names. Equal automata give equal bytes.
        """
        tensors = {name: each.detach().cpu() for name, each in self.tensors().items()}
        write_tensors(path, tensors, self.start, self.symbols)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Automaton:
        """Return the automaton of a file that :meth:`save` wrote.

        On the CPU the tensors are the mapped file: pages are read when they are first used, and processes share
        them.

        Raises:
            ValueError: the file is no automaton, or it is damaged; the message names it and what is wrong.
        """
        tensors, start, symbols = read_tensors(path)
        return cls(**tensors, start=start, symbols=symbols).to(device)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Automaton):
            return NotImplemented
        if (self.start, self.symbols) != (other.start, other.symbols):
            return False
        theirs = other.to(self.device).tensors()
        return all(torch.equal(each, theirs[name]) for name, each in self.tensors().items())

    __hash__ = None  # type: ignore[assignment]

    def __getstate__(self) -> dict[str, Any]:
        # A loaded tensor is a view of the whole file, which must not be pickled with each of them.
        compact = {
            name: each.clone() if each.untyped_storage().nbytes() > each.nbytes else each
            for name, each in self.tensors().items()
        }
        return {**compact, "start": self.start, "symbols": self.symbols}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        names = "" if self.symbols is None else f", symbols={len(self.symbols)}"
        return (
            f"Automaton(states={self.num_states}, arcs={self.num_arcs}, start={self.start}{names},"
            f" device={str(self.device)!r}, megabytes={self.nbytes / 1e6:.1f})"
        )


def _names(symbols: Sequence[str] | None) -> tuple[str, ...] | None:
    if symbols is None:
        return None
    for label, name in enumerate(symbols):
        if not isinstance(name, str):
            raise TypeError(f"symbols[{label}] must be a str, got {type(name).__name__}")
        if "\0" in name:
            raise ValueError(f"symbols[{label}] is {name!r}, expected no NUL in a name")
    return tuple(symbols)


def _largest_weights(tensors: dict[str, Tensor], depths: Tensor) -> Tensor:
    """Return the largest weight out of each state, through failure arcs too, rounded upwards to float32."""
    first, failure = tensors["first_arc"].long(), tensors["failure_state"].long()
    largest = torch.full((failure.shape[0],), -math.inf, device=failure.device)
    state_of_arc = torch.repeat_interleave(first.diff())
    largest.scatter_reduce_(0, state_of_arc, tensors["weight"], "amax")
    order = torch.argsort(depths, stable=True)
    for group in torch.split(order, torch.bincount(depths).tolist())[1:]:
        through = tensors["failure_weight"][group].double() + largest[failure[group]].double()
        rounded = through.float()
        upwards = torch.nextafter(rounded, torch.full_like(rounded, math.inf))
        rounded = torch.where(rounded.double() < through, upwards, rounded)
        largest[group] = torch.maximum(largest[group], rounded)
    return largest


torch.serialization.add_safe_globals([Automaton])
