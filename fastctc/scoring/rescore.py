"""Scores of whole hypotheses by any function, after a search."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor

__all__ = ["rescore"]

Scored = TypeVar("Scored", covariant=True)


class Hypotheses(Protocol[Scored]):
    """What a search returns: a :class:`fastctc.NBestResult`."""

    @property
    def tokens(self) -> Tensor:
        """Return the tokens (..., nbest, T)."""

    @property
    def lengths(self) -> Tensor:
        """Return the number of tokens (..., nbest)."""

    @property
    def scores(self) -> Tensor:
        """Return the scores (..., nbest), -inf or NaN where there is no hypothesis."""

    def with_model_scores(self, added: Tensor) -> Scored:
        """Return the hypotheses in the order of their scores plus ``added``."""


def rescore(
    result: Hypotheses[Scored],
    function: Callable[[list[list[int]]], Sequence[float] | Tensor],
    *,
    weight: float = 1.0,
    token_bonus: float = 0.0,
) -> Scored:
    """Return the n-best of a search with the scores of a model of whole sequences, best first.

    The score of each hypothesis y grows by ``weight`` * ln P(y) + ``token_bonus`` * the number of its tokens. Only
    hypotheses that the search has found are compared. A larger ``nbest`` gives the model more to choose from.

    Args:
        result: of :func:`fastctc.beam_search`, for a batch or a single sample, with a scorer or without.
        function: called once, with the tokens of all hypotheses of all samples. Returns a natural logarithm for
            each, such as ln P(y) of a language model; -inf rejects the hypothesis.
        weight: a finite number.
        token_bonus: a finite number, against a model that prefers short sequences.

    Returns:
        A :class:`fastctc.ScoredResult`. What was added is part of its ``model_scores``. The ``acoustic_scores`` are
        as before.

    Raises:
        ValueError: ``function`` returned another number of values, or NaN or +inf. Or ``weight`` or
            ``token_bonus`` is not finite.

    >>> import fastctc
    >>> log_probs = torch.tensor([[0.2, 0.5, 0.3], [0.2, 0.3, 0.5]]).log()
    >>> result = fastctc.beam_search(log_probs, nbest=3)
    >>> result.to_text("-ab")
    ['a', 'b', 'ab']
    >>> pairs = rescore(result, lambda hypotheses: [-2.0 * abs(len(tokens) - 2) for tokens in hypotheses])
    >>> pairs.to_text("-ab"), pairs.model_scores.tolist()
    (['ab', 'a', 'b'], [0.0, -2.0, -2.0])
    """
    for name, value in (("weight", weight), ("token_bonus", token_bonus)):
        if not math.isfinite(value):
            raise ValueError(f"{name} is {value}, expected a finite number")
    exists = result.scores > -math.inf
    lengths = result.lengths[exists]
    hypotheses = [row[:length] for row, length in zip(result.tokens[exists].tolist(), lengths.tolist())]
    values = torch.as_tensor(function(hypotheses), dtype=torch.float64)
    if tuple(values.shape) != (len(hypotheses),):
        raise ValueError(
            f"function returned values of shape {tuple(values.shape)}, expected one for each of the"
            f" {len(hypotheses)} hypotheses"
        )
    wrong = ~(values < math.inf)
    if bool(wrong.any()):
        place = int(wrong.nonzero()[0])
        raise ValueError(
            f"function returned {float(values[place])} for the tokens {hypotheses[place]}, expected a natural"
            " logarithm"
        )
    added = torch.zeros(exists.shape, dtype=torch.float64, device=exists.device)
    weighed = torch.where(values > -math.inf, weight * values, values).to(exists.device)
    added[exists] = weighed.detach() + token_bonus * lengths
    return result.with_model_scores(added)
