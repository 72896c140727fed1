"""The input of pyctcdecode's decoder as log-probabilities, and the result of a search as texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastctc.alignment import TokenSpan
from fastctc.compat.hypotheses import Merged, log_add, merge
from fastctc.compat.pyctcdecode.alphabet import Alphabet
from fastctc.decode_result import NBestResult, ScoredResult
from fastctc.errors import ArgumentTypeError, ArgumentValueError
from fastctc.text import word_spans

__all__ = ["Texts", "WordFrames", "log_probabilities", "without_unlikely"]

SMALLEST_PROBABILITY = 1e-15
WordFrames = tuple[str, tuple[int, int]]


def log_probabilities(logits: Any, classes: int) -> Tensor:
    """Return (T, C) natural-log probabilities of at least 1e-15, of logits or probabilities.

    Raises:
        TypeError: ``logits`` are not floating-point.
        ValueError: ``logits`` have other dimensions, or NaN.
    """
    values = torch.as_tensor(logits).detach().cpu()
    if not values.is_floating_point():
        raise ArgumentTypeError(f"logits must be floating-point numbers, got {values.dtype}")
    if values.dim() != 2 or values.shape[1] != classes:
        raise ArgumentValueError(
            f"logits has shape {tuple(values.shape)}, expected (T, {classes}) for {classes} labels"
        )
    if bool(values.isnan().any()):
        raise ArgumentValueError("logits has a NaN, expected numbers")
    values = values if values.dtype == torch.float64 else values.float()
    if math.isclose(float(values.sum(1).mean()), 1):
        return values.clamp(SMALLEST_PROBABILITY, 1).log()
    return values.log_softmax(1).clamp(math.log(SMALLEST_PROBABILITY), 0)


def without_unlikely(log_probs: Tensor, smallest: float, spared: Sequence[int]) -> Tensor:
    """Return log-probabilities with -inf for classes below ``smallest``.

    The best class of each frame stays, and so do the classes ``spared``.
    """
    if smallest == -math.inf or not log_probs.numel():
        return log_probs
    cut = log_probs < smallest
    cut[:, list(spared)] = False
    cut.scatter_(1, log_probs.argmax(1, keepdim=True), False)
    return log_probs.masked_fill(cut, -math.inf)


class Texts:
    """The texts of one utterance, best first. Hypotheses that differ in their tokens alone are one text.

    Args:
        result: the hypotheses of one sample.
        alphabet: the labels.
        prune: the difference from the best score, at most 0, at which a text is left out.
    """

    def __init__(self, result: NBestResult, alphabet: Alphabet, prune: float) -> None:
        self._result, self._alphabet, self._prune = result, alphabet, prune
        self._scores: list[float] = result.scores.tolist()
        self._possible = [row for row, score in enumerate(self._scores) if score > -math.inf] or [0]
        self._lengths: list[int] = result.lengths.tolist()

    def best(self) -> str:
        """Return the first text of :meth:`beams`. It reads hypotheses until the others cannot change the first."""
        totals: dict[str, float] = {}
        scores = self._result.scores[: len(self._possible)].double()
        others = [*scores.flip(0).logcumsumexp(0).flip(0)[1:].tolist(), -math.inf]
        for row, rest in zip(self._possible, others):
            text = self._text(row)
            totals[text] = log_add(totals.get(text, -math.inf), self._scores[row])
            first, second = [*sorted(totals.values(), reverse=True), -math.inf][:2]
            if first >= log_add(second, rest):
                break
        return max(totals, key=lambda each: totals[each])

    def beams(self, history: int | None = None) -> list[tuple[str, list[WordFrames], float, float]]:
        """Return (text, words with their frames, ln P(text | x), score) of each text.

        Args:
            history: the number of words at the end in which a text must differ from all better ones.
        """
        result, scores = self._result, self._scores
        acoustics = result.acoustic_scores.tolist() if isinstance(result, ScoredResult) else scores
        texts = [self._text(row) for row in self._possible]
        merged = merge(self._possible, texts, scores, acoustics)
        chosen: dict[Any, Merged] = {}
        for place, each in enumerate(merged):
            if place == 0 or each.score >= merged[0].score + self._prune:
                end = place if history is None else tuple(texts[each.row].split()[-history:])
                chosen.setdefault(end, each)
        return [
            (texts[each.row], self._frames(each.row), each.acoustic, each.score) for each in chosen.values()
        ]

    def _text(self, row: int) -> str:
        return self._alphabet.text(self._result.tokens[row, : self._lengths[row]].tolist())

    def _frames(self, row: int) -> list[WordFrames]:
        length = int(self._result.lengths[row])
        columns = (self._result.tokens, self._result.timesteps, self._result.ends)
        runs = zip(*(column[row, :length].tolist() for column in columns))
        spans = [TokenSpan(token, start, end, 0.0) for token, start, end in runs]
        words = word_spans(spans, self._alphabet.labels, separator="▁" if self._alphabet.is_bpe else " ")
        return [(word.text, (int(word.start), int(word.end))) for word in words]
