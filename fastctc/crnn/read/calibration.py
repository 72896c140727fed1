"""Calibration: the distance of confidence from accuracy, and the temperature that reduces it."""

from __future__ import annotations

import math
from collections.abc import Sequence

_BINS = 15
_COLDEST, _HOTTEST = 0.1, 100.0


def confidence_of(score: float, temperature: float = 1.0) -> float:
    """Return the confidence in a text: its probability to the power of 1 / ``temperature``.

    Args:
        score: natural-log probability of the text.
        temperature: above 1 for a model that is more accurate than it is sure, below 1 for the contrary.
    """
    return math.exp(min(0.0, score) / temperature)


def calibration_error(confidences: Sequence[float], right: Sequence[bool]) -> float:
    """Return the expected calibration error: the mean distance of confidence and accuracy over 15 equal bins.

    (Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning", 2015.)

    Args:
        confidences: of each text, 0 to 1.
        right: whether each text is exact.

    Returns:
        0 to 1; 0 without texts.
    """
    bins: dict[int, list[tuple[float, bool]]] = {}
    for each in zip(confidences, right, strict=True):
        bins.setdefault(min(_BINS - 1, int(each[0] * _BINS)), []).append(each)
    gaps = (abs(sum(c for c, _ in one) - sum(r for _, r in one)) for one in bins.values())
    return sum(gaps) / max(1, len(right))


def fitted_temperature(scores: Sequence[float], right: Sequence[bool]) -> float:
    """Return the temperature under which the confidences explain best which texts are exact.

    (Guo et al., "On calibration of modern neural networks", arXiv:1706.04599, with the probability of the text in
    place of a class's.) The likelihood has one text more that is exact and one that is not, both of the mean
    score. So a model without a mistake does not become sure of everything.

    Args:
        scores: natural-log probability of each text.
        right: whether each text is exact.

    Raises:
        ValueError: no text has a finite score.
    """
    pairs = [
        (min(score, -1e-9), exact) for score, exact in zip(scores, right, strict=True) if score > -math.inf
    ]
    if not pairs:
        raise ValueError(f"scores has {len(scores)} scores, none of them finite: expected at least one")
    mean = sum(score for score, _ in pairs) / len(pairs)
    pairs += [(mean, True), (mean, False)]

    def loss(logarithm: float) -> float:
        temperature = math.exp(logarithm)
        return -sum(
            s / temperature if exact else math.log(-math.expm1(s / temperature)) for s, exact in pairs
        )

    low, high = math.log(_COLDEST), math.log(_HOTTEST)
    ratio = (math.sqrt(5) - 1) / 2
    while high - low > 1e-4:  # golden section: the loss is convex in 1 / temperature, so it has one minimum
        left, right_ = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right_) if loss(left) < loss(right_) else (left, high)
    return math.exp((low + high) / 2)
