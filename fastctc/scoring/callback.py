"""Scorers in Python: a function that weighs tokens in batches, such as a neural language model."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from fastctc.scoring.automaton import Automaton
from fastctc.scoring.scorer import Arc, End

__all__ = ["CallbackScorer"]

ROUNDING = 1e-4  # by which a weight may exceed the largest one


@dataclass(frozen=True)
class CallbackScorer:
    """Weigh sequences of tokens by functions in Python, on the CPU.

    A search calls ``step`` at most once for each frame, with all pairs of a prefix and a next token that may enter
    the beam, of all samples. The B states of a call are what ``start`` is, a tensor or a tuple, list or dict of
    tensors, with a first dimension B. A state must not depend on the others of its batch.

    A state that is no tensor, such as the state of another library, is its place in a list that the callback keeps.

    Args:
        start: the state before the first token, without the dimension B.
        step: takes states and tokens (B) int64. Returns the states after the tokens, and weights (B): natural
            logarithms, such as ln P(token | tokens before). -inf rejects the token.
        end: takes states, returns the weights (B) of ending there, such as ln P(</s> | tokens). None: all are 0.
        largest_weight: no weight that ``step`` returns is larger. 0 fits log-probabilities. The search leaves out
            pairs that cannot enter the beam with this weight, so it loses nothing.

    Raises:
        TypeError: ``start`` has no tensor, or ``step`` or ``end`` is no function.
        ValueError: ``largest_weight`` is NaN or infinite.

    A model that prefers a token other than the one before:

    >>> weights = torch.tensor([0.3, 0.7]).log()  # of the same token, of another one
    >>> def step(last, tokens):
    ...     return tokens, weights[(last != tokens).long()]
    >>> changes = CallbackScorer(torch.tensor(-1), step)
    >>> log_probs = torch.full((3, 3), 1 / 3).log()
    >>> from fastctc.scoring import brute_force_search
    >>> brute_force_search(log_probs, [changes])[0].tokens
    (1,)
    """

    start: Any
    step: Callable[[Any, Tensor], tuple[Any, Tensor]]
    end: Callable[[Any], Tensor] | None = None
    largest_weight: float = 0.0

    def __post_init__(self) -> None:
        leaves = pytree.tree_leaves(self.start)
        if not leaves or not all(isinstance(each, Tensor) for each in leaves):
            raise TypeError(
                f"start must be a tensor or a tuple, list or dict of tensors, got {self.start!r:.60}"
            )
        if not callable(self.step) or not (self.end is None or callable(self.end)):
            name, value = ("end", self.end) if callable(self.step) else ("step", self.step)
            raise TypeError(f"{name} must be a function, got {type(value).__name__}")
        if not math.isfinite(self.largest_weight):
            raise ValueError(f"largest_weight is {self.largest_weight}, expected a finite number")

    @classmethod
    def of(cls, automaton: Automaton) -> CallbackScorer:
        """Return an automaton as a scorer with functions, for a search that has others of these too."""
        automaton = automaton.to("cpu")
        largest = float(automaton.largest_weight.max())
        return cls(torch.tensor(automaton.start), automaton.step, automaton.final, max(largest, 0.0))

    def first_states(self, count: int) -> Any:
        """Return the start state ``count`` times."""
        return pytree.tree_map(lambda each: each.expand(count, *each.shape), self.start)

    def advance(self, states: Any, tokens: Tensor) -> tuple[Any, Tensor]:
        """Return the next states and the weights (B) float64 of tokens (B), checked.

        Raises:
            ValueError: ``step`` returned weights or states of another size, a NaN, or a weight that is too large.
        """
        states, weights = self.step(states, tokens)
        weights = _checked(weights, "step", len(tokens))
        for each in pytree.tree_leaves(states):
            if not isinstance(each, Tensor) or each.shape[:1] != tokens.shape:
                got = tuple(each.shape) if isinstance(each, Tensor) else type(each).__name__
                raise ValueError(f"step returned a state of {got}, expected tensors of {len(tokens)} states")
        if len(tokens) and float(weights.max()) > self.largest_weight + ROUNDING:
            raise ValueError(
                f"step returned the weight {float(weights.max())}, expected at most largest_weight, which is"
                f" {self.largest_weight}"
            )
        return states, weights

    def finish(self, states: Any, count: int) -> Tensor:
        """Return the weights (B) float64 of ending in each of ``count`` states."""
        if self.end is None:
            return torch.zeros(count, dtype=torch.float64)
        return _checked(self.end(states), "end", count)

    def begin(self) -> Any:
        """Return the start state (for the searches that define what is found)."""
        return self.first_states(1)

    def arcs(self, state: Any, label: int) -> list[Arc]:
        """Return the arc of a label, or none."""
        states, weights = self.advance(state, torch.tensor([label]))
        return [Arc(states, float(weights))] if float(weights) > -math.inf else []

    def ends(self, state: Any) -> list[End]:
        """Return the weight of ending, or nothing if it is -inf."""
        weight = float(self.finish(state, 1))
        return [End(weight)] if weight > -math.inf else []


def _checked(weights: Tensor, name: str, count: int) -> Tensor:
    """Return what a callback returned as float64."""
    if not isinstance(weights, Tensor) or tuple(weights.shape) != (count,):
        got = tuple(weights.shape) if isinstance(weights, Tensor) else type(weights).__name__
        raise ValueError(f"{name} returned weights of {got}, expected a tensor of ({count},)")
    if bool(weights.isnan().any()):
        raise ValueError(f"{name} returned the weight NaN, expected a natural logarithm")
    return weights.detach().to("cpu", torch.float64)
