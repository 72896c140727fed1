"""The scorer of a decoder, and the words of its results."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastctc.compat.skipped_word import SKIPPED_WORD
from fastctc.decode_result import NBestResult, ScoredResult
from fastctc.scoring import UNKNOWN_WORD, Automaton, CallbackScorer, LexiconScorer

__all__ = ["Knowledge"]


class Knowledge:
    """The scorer of a search, and the words of its results.

    Args:
        scorer: the weights of tokens, None for none.
        blank: the class of the blank.
        silence: the class of silence.
        unknown: what stands among the words for a word that the lexicon lacks.
    """

    def __init__(
        self,
        scorer: LexiconScorer | Automaton | CallbackScorer | None,
        blank: int,
        silence: int,
        unknown: str,
    ) -> None:
        self.scorer, self.blank, self.silence, self.unknown = scorer, blank, silence, unknown

    @property
    def has_words(self) -> bool:
        """Return True with a lexicon."""
        return isinstance(self.scorer, LexiconScorer)

    def scorer_on(self, device: torch.device) -> LexiconScorer | Automaton | CallbackScorer | None:
        """Return the scorer for a search on a device. It stays there until another device is asked for."""
        if isinstance(self.scorer, (LexiconScorer, Automaton)) and self.scorer.device != device:
            self.scorer = self.scorer.to(device)
        return self.scorer

    def begin(self) -> None:
        """Forget what earlier searches left."""

    def word_keys(self, result: NBestResult) -> list[Sequence[Hashable]]:
        """Return what tells the words of each hypothesis apart: equal for equal words."""
        if not isinstance(result, ScoredResult) or not isinstance(self.scorer, LexiconScorer):
            return [range(result.lengths.shape[1])] * result.lengths.shape[0]
        words = self.scorer.lexicon.words
        silence = words.index(SKIPPED_WORD) if SKIPPED_WORD in words else -1
        return [
            [tuple(number for number in row if number not in (-1, silence)) for row in sample]
            for sample in _completed(result.words, result.last_words).tolist()
        ]

    def spell(self, key: Any) -> list[str]:
        """Return the words of a key."""
        if not isinstance(self.scorer, LexiconScorer):
            return []
        words = (self.scorer.word(number) for number in key)
        return [self.unknown if word == UNKNOWN_WORD else word for word in words]


def _completed(words: Tensor, last_words: Tensor) -> Tensor:
    """Return (..., L) the numbers of the words in order, padded with -1, for the L of the longest hypothesis."""
    numbers = torch.cat([words, last_words.unsqueeze(-1)], -1)
    kept = numbers >= 0
    place = kept.cumsum(-1)
    longest = int(place[..., -1].max()) if place.numel() else 0
    found = torch.full((*numbers.shape[:-1], longest + 1), -1, device=numbers.device)
    return found.scatter_(-1, torch.where(kept, place - 1, longest), numbers)[..., :longest]
