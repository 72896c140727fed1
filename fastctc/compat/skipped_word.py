"""A word that a language model skips: silence, or a space that no word follows."""

from __future__ import annotations

import torch
from torch import Tensor

from fastctc.errors import ArgumentValueError
from fastctc.scoring import Automaton

__all__ = ["SKIPPED_WORD", "skipping"]

SKIPPED_WORD = "<skipped>\1"  # unlike the words of files


def skipping(model: Automaton) -> Automaton:
    """Return the model with one more word, which has the weight 0 and leaves each state as it is.

    Raises:
        ValueError: the model has no symbols.
    """
    if model.symbols is None:
        raise ArgumentValueError("the language model has no symbols, expected the words by label")
    states = torch.arange(model.num_states + 1)
    first_arc = model.first_arc.long() + states
    old = torch.arange(model.num_arcs) + torch.repeat_interleave(model.first_arc.long().diff())
    new = first_arc[1:] - 1  # the largest label comes last

    def with_loops(values: Tensor, loops: Tensor) -> Tensor:
        both = values.new_empty(model.num_arcs + model.num_states)
        both[old], both[new] = values, loops.to(values.dtype)
        return both

    return Automaton.from_tensors(
        first_arc=first_arc.int(),
        label=with_loops(model.label, torch.full((model.num_states,), len(model.symbols))),
        next_state=with_loops(model.next_state, states[:-1]),
        weight=with_loops(model.weight, torch.zeros(model.num_states)),
        failure_state=model.failure_state,
        failure_weight=model.failure_weight,
        final_weight=model.final_weight,
        start=model.start,
        symbols=[*model.symbols, SKIPPED_WORD],
    )
