"""The input of pyctcdecode's decoder as log-probabilities, and the result of a search as texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastctc.alignment import TokenSpan
from fastctc.compat.hypotheses import Merged, merge
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
        self._result, self._alphabet = result, alphabet
        scores = result.scores.tolist()
        acoustics = result.acoustic_scores.tolist() if isinstance(result, ScoredResult) else scores
        possible = [row for row, score in enumerate(scores) if score > -math.inf] or [0]
        lengths = result.lengths.tolist()
        tokens = result.tokens[:, : max(lengths)].tolist()
        texts = [alphabet.text(row[:length]) for row, length in zip(tokens, lengths)]
        merged = merge(possible, texts, scores, acoustics)
        self._merged = [each for each in merged if each.score >= merged[0].score + prune] or merged[:1]
        self._all_texts = texts

    @property
    def texts(self) -> list[str]:
        """Return the texts."""
        return [self._all_texts[each.row] for each in self._merged]

    def beams(self, history: int | None = None) -> list[tuple[str, list[WordFrames], float, float]]:
        """Return (text, words with their frames, ln P(text | x), score) of each text.

        Args:
            history: the number of words at the end in which a text must differ from all better ones.
        """
        chosen: dict[Any, Merged] = {}
        for number, each in enumerate(self._merged):
            text = self._all_texts[each.row]
            chosen.setdefault(number if history is None else tuple(text.split()[-history:]), each)
        return [
            (self._all_texts[each.row], self._frames(each.row), each.acoustic, each.score)
            for each in chosen.values()
        ]

    def _frames(self, row: int) -> list[WordFrames]:
        length = int(self._result.lengths[row])
        columns = (self._result.tokens, self._result.timesteps, self._result.ends)
        runs = zip(*(column[row, :length].tolist() for column in columns))
        spans = [TokenSpan(token, start, end, 0.0) for token, start, end in runs]
        words = word_spans(spans, self._alphabet.labels, separator="▁" if self._alphabet.is_bpe else " ")
        return [(word.text, (int(word.start), int(word.end))) for word in words]
