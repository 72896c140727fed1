"""The tensors of a lexicon for a search: values of spellings, and bounds that save look-ups in the word model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from fastctc.scoring.lexicon_scorer import LexiconScorer

__all__ = ["search_tensors"]

SLACK = 1e-9  # bounds hold for sums that are rounded in another order, too


def search_tensors(scorer: LexiconScorer) -> list[Tensor]:
    """Return the tensors of ``LexiconView`` in csrc/math/lexicon.h, in its order."""
    lexicon = scorer.lexicon
    model_label = torch.cat([scorer.model_label, torch.tensor([scorer.unknown_label], dtype=torch.int32)])
    of_labels = scorer.model.largest_weight_of_labels(int(model_label.max()) + 1)
    word_bound = of_labels[model_label.long()] + SLACK
    node_of_end = torch.repeat_interleave(lexicon.first_end.long().diff())
    left = lexicon.weight.double() + scorer.word_bonus - scorer.look_ahead[node_of_end]
    begins = torch.zeros(max(scorer.word_begin, default=-1) + 1, dtype=torch.uint8)
    begins[list(scorer.word_begin)] = 1
    inner, end, value, arc = _bounds(scorer, left, word_bound)
    return [
        lexicon.first_arc,
        lexicon.label,
        lexicon.first_end,
        lexicon.word,
        left,
        scorer.look_ahead,
        inner + SLACK,
        end + SLACK,
        value + SLACK,
        arc + SLACK,
        model_label,
        word_bound,
        begins,
    ]


def _bounds(scorer: LexiconScorer, left: Tensor, word_bound: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return for each node the largest weight of a label within a word, and of a label that ends one.

    The third is the second without the weight in the model. The last is the largest weight of the label that leads
    to the node.
    """
    lexicon, la = scorer.lexicon, scorer.look_ahead
    never = torch.full_like(la, -math.inf)
    parent = torch.repeat_interleave(lexicon.first_arc.long().diff())
    children = torch.arange(1, lexicon.num_nodes)
    change = la[children] - la[parent]
    node_of_end = torch.repeat_interleave(lexicon.first_end.long().diff())
    value = never.scatter_reduce(0, node_of_end, left, "amax")
    end = never.scatter_reduce(0, node_of_end, left + word_bound[lexicon.word.long()], "amax")
    inner = never.scatter_reduce(0, parent, change, "amax")
    if not scorer.has_boundaries:  # the end of a word belongs to the arc that leads to its node
        has_children = lexicon.first_arc.diff()[children] > 0
        change_on = torch.where(has_children, change, torch.full_like(change, -math.inf))
        return (
            never.scatter_reduce(0, parent, change_on, "amax"),
            never.scatter_reduce(0, parent, change + end[children], "amax"),
            never.scatter_reduce(0, parent, change + value[children], "amax"),
            torch.cat([never[:1], change_on.maximum(change + end[children])]),
        )
    next_word = 0.0  # the weight of a label that begins the next word
    if scorer.unknown_word is not None:
        unknown = scorer.unknown_word + scorer.word_bonus
        of_unknown = unknown + float(word_bound[-1])
        value, end = value.maximum(unknown - la), end.maximum(of_unknown - la)
        next_word = max(next_word, of_unknown)
    if scorer.word_begin:
        next_word = max(next_word, float(la[children[parent == 0]].max()))
        value, end = value + next_word, end + next_word
    inner[0] = max(float(inner[0]), next_word)  # of the root, and outside of the lexicon
    return inner, end, value, torch.cat([never[:1], change])
