"""Language models of the user's own as subclasses of torchaudio's ``CTCDecoderLM``."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastctc.compat.torchaudio.knowledge import Knowledge
from fastctc.decode_result import NBestResult
from fastctc.errors import ArgumentValueError
from fastctc.scoring import CallbackScorer

__all__ = ["CTCDecoderLM", "CTCDecoderLMState", "CustomKnowledge"]


class CTCDecoderLMState:
    """A state of a :class:`CTCDecoderLM`: a place in the tree of all histories."""

    def __init__(self) -> None:
        self.children: dict[int, CTCDecoderLMState] = {}

    def child(self, usr_index: int) -> CTCDecoderLMState:
        """Return the state after one more word or token: always the same one."""
        return self.children.setdefault(usr_index, CTCDecoderLMState())

    def compare(self, state: CTCDecoderLMState) -> int:
        """Return 0 for the same state, -1 or 1 otherwise."""
        return (id(self) > id(state)) - (id(self) < id(state))


class CTCDecoderLM(ABC):
    """A language model in Python. It is slow, and the search runs on the CPU.

    Numbers of words are the lines of ``lm_dict``; without one, their order in the lexicon. Without a lexicon the
    model is over tokens. Its scores are multiplied by ``lm_weight`` and are not converted.
    """

    largest_score: float = 0.0  #: no score is larger; set it for scores above 0

    @abstractmethod
    def start(self, start_with_nothing: bool) -> CTCDecoderLMState:
        """Return the state before the first word. ``start_with_nothing`` is False."""

    @abstractmethod
    def score(self, state: CTCDecoderLMState, usr_token_idx: int) -> tuple[CTCDecoderLMState, float]:
        """Return the state after one more word, and its score."""

    @abstractmethod
    def finish(self, state: CTCDecoderLMState) -> tuple[CTCDecoderLMState, float]:
        """Return the state at the end, and the score of ending."""


class CustomKnowledge(Knowledge):
    """A model of the user's, with or without a lexicon whose spellings end with silence.

    Args:
        lm: the model.
        lm_weight: factor of its scores.
        word_score: added for each word.
        spellings: the word and the labels of each spelling, silence included; None: the model is over tokens.
        number_of: the number of each word in the model.
        blank: the class of the blank.
        silence: the class of silence.

    Raises:
        ValueError: a spelling does not end with silence, or two words have the same spelling.
    """

    def __init__(
        self,
        lm: CTCDecoderLM,
        lm_weight: float,
        word_score: float,
        spellings: Sequence[tuple[str, list[int]]] | None,
        number_of: dict[str, int],
        blank: int,
        silence: int,
    ) -> None:
        self._lm, self._weight, self._word_score = lm, lm_weight, word_score
        self._number_of = number_of
        self._word_of = None if spellings is None else _words_of(spellings, silence)
        self._children: list[dict[int, int]] = [{}]
        self._word_at: dict[int, str] = {}
        for labels, word in (self._word_of or {}).items():
            node = 0
            for label in labels:
                if label not in self._children[node]:
                    self._children[node][label] = len(self._children)
                    self._children.append({})
                node = self._children[node][label]
            self._word_at[node] = word
        self._states: list[CTCDecoderLMState] = []
        self._steps: dict[tuple[int, int, int], tuple[int, int, float]] = {}
        self.begin()
        largest = max(lm.largest_score * lm_weight + (0.0 if spellings is None else word_score), 0.0)
        scorer = CallbackScorer(torch.zeros(2, dtype=torch.int64), self._step, self._end, largest)
        super().__init__(scorer, blank, silence, "<unk>")

    @property
    def has_words(self) -> bool:
        """Return True with a lexicon."""
        return self._word_of is not None

    def begin(self) -> None:
        """Forget the states of earlier searches."""
        self._states = [self._lm.start(False)]
        self._steps = {}

    def word_keys(self, result: NBestResult) -> list[Sequence[Hashable]]:
        """Return the words of each hypothesis."""
        if self._word_of is None:
            return super().word_keys(result)
        rows = zip(result.tokens.tolist(), result.lengths.tolist())
        return [[self._split(t[:length]) for t, length in zip(*sample)] for sample in rows]

    def spell(self, key: Any) -> list[str]:
        """Return the words of a key."""
        return list(key) if self._word_of is not None else []

    def _split(self, tokens: list[int]) -> tuple[str, ...]:
        assert self._word_of is not None
        found: list[list[int]] = [[]]
        for token in tokens:
            found[-1].append(token)
            if token == self.silence:
                found[-1].pop()
                found.append([])
        return tuple(self._word_of[tuple(labels)] for labels in found if tuple(labels) in self._word_of)

    def _step(self, states: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next states and weights. A state is (node of the lexicon, place of the model's state)."""
        found = []
        for (node, place), token in zip(states.tolist(), tokens.tolist()):
            key = (node, place, token)
            if key not in self._steps:
                self._steps[key] = self._stepped(*key)
            found.append(self._steps[key])
        weights = torch.tensor([weight for *_, weight in found], dtype=torch.float64)
        return torch.tensor([pair for *pair, _ in found]).reshape(-1, 2), weights

    def _stepped(self, node: int, place: int, token: int) -> tuple[int, int, float]:
        if self._word_of is None:
            return 0, *self._scored(place, token)
        if token != self.silence:
            child = self._children[node].get(token)
            return (0, place, -math.inf) if child is None else (child, place, 0.0)
        if node == 0:
            return 0, place, 0.0
        return 0, *self._word_end(node, place)

    def _word_end(self, node: int, place: int) -> tuple[int, float]:
        """Return the place of the model's state and the weight after the word of a node."""
        word = self._word_at.get(node)
        if word is None:
            return place, -math.inf
        place, weight = self._scored(place, self._number_of[word])
        return place, weight + self._word_score

    def _scored(self, place: int, number: int) -> tuple[int, float]:
        state, score = self._lm.score(self._states[place], number)
        self._states.append(state)
        return len(self._states) - 1, self._weight * float(score) if self._weight else 0.0

    def _end(self, states: Tensor) -> Tensor:
        """Return the weights of ending."""
        weights = []
        for node, place in states.tolist():
            weight = 0.0
            if node:
                place, weight = self._word_end(node, place)
            score = float(self._lm.finish(self._states[place])[1])
            weights.append(weight + (self._weight * score if self._weight else 0.0))
        return torch.tensor(weights, dtype=torch.float64)


def _words_of(spellings: Sequence[tuple[str, list[int]]], silence: int) -> dict[tuple[int, ...], str]:
    """Return the word of each spelling without its silence."""
    found: dict[tuple[int, ...], str] = {}
    for word, labels in spellings:
        if labels[-1] != silence or silence in labels[:-1] or len(labels) < 2:
            raise ArgumentValueError(
                f"lexicon spells {word!r} without sil_token at its end alone, expected it there for a CTCDecoderLM"
            )
        other = found.setdefault(tuple(labels[:-1]), word)
        if other != word:
            raise ArgumentValueError(
                f"lexicon spells {other!r} and {word!r} alike, expected different spellings for a CTCDecoderLM"
            )
    return found
