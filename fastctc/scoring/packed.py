"""Scorers in the form that the kernels take: a list of tensors, a list of numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from fastctc.errors import ArgumentTypeError, ArgumentValueError
from fastctc.scoring.automaton import Automaton
from fastctc.scoring.callback import CallbackScorer
from fastctc.scoring.lexicon_scorer import LexiconScorer

__all__ = ["PackedScorer", "SearchScorer", "pack"]

SearchScorer: TypeAlias = Automaton | LexiconScorer | CallbackScorer
"""What a search can weigh tokens with."""

LARGEST = 3  # automata of a search: kLargestScorer of csrc/math/scorer.h


class PackedScorer(NamedTuple):
    """The last arguments of the ops that search with a scorer."""

    tensors: list[Tensor]
    numbers: list[int]
    unknown_word: float  #: added for each word that the lexicon lacks; -inf forbids such words


def pack(scorer: SearchScorer | Sequence[SearchScorer], device: torch.device) -> PackedScorer:
    """Return one to three scorers, whose weights are added, for a search on a device.

    Raises:
        TypeError: one of them is no Automaton and no LexiconScorer.
        ValueError: there is none, there are more than three or two LexiconScorers, or one is on another device.
    """
    parts: list[Any] = list(scorer) if isinstance(scorer, (list, tuple)) else [scorer]
    for place, part in enumerate(parts):
        name = f"scorer[{place}]" if isinstance(scorer, (list, tuple)) else "scorer"
        if not isinstance(part, (Automaton, LexiconScorer)):
            raise ArgumentTypeError(
                f"{name} must be an Automaton or a LexiconScorer, got {type(part).__name__}"
            )
        if part.device != device:
            raise ArgumentValueError(
                f"{name} is on {part.device}, but log_probs is on {device}: use its to({str(device)!r})"
            )
    lexicons = [part for part in parts if isinstance(part, LexiconScorer)]
    if not 1 <= len(parts) <= LARGEST:
        raise ArgumentValueError(f"scorer has {len(parts)} scorers, expected 1 to {LARGEST}")
    if len(lexicons) > 1:
        raise ArgumentValueError(f"scorer has {len(lexicons)} LexiconScorers, expected at most one")
    automata = [each.model for each in lexicons] + [each for each in parts if isinstance(each, Automaton)]
    tensors, numbers = [], [len(automata)]
    for each in automata:
        tensors += [*each.tensors().values(), each.root_arcs]
        numbers += [each.start, each.root()]
    unknown = -math.inf
    for lexicon in lexicons:
        tensors += lexicon.tensors()
        numbers += [lexicon.boundary, -1 if lexicon.separator is None else lexicon.separator]
        if lexicon.unknown_word is not None:
            unknown = lexicon.unknown_word + lexicon.word_bonus
    return PackedScorer(tensors, numbers, unknown)
