"""How close is equal: one table, by dtype of the input, used by every test.

The input is rounded to its dtype before either side sees it, so these bound the error of the computation and
of the rounding of its result, not the rounding of the input.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tolerance:
    loss: float  # |difference| <= loss * max(1, |expected|), element by element
    gradient: float  # max |difference| <= gradient * max |expected|


TOLERANCES = {
    torch.float64: Tolerance(loss=1e-10, gradient=1e-9),
    torch.float32: Tolerance(loss=1e-5, gradient=1e-5),
    torch.float16: Tolerance(loss=1e-3, gradient=1e-3),
    torch.bfloat16: Tolerance(loss=8e-3, gradient=8e-3),
}

# The `scale` of gradients of logits: softmax minus posterior, which nearly cancel where a model is right.
DIFFERENCE_OF_PROBABILITIES = 0.1

# Largest error of an fp32 gradient of long inputs: 16000 frames, 1000 labels, logits of standard deviation 10.
LONG_GRADIENT_ERROR = 2e-6


def assert_loss_close(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """Equal within the table; infinities equal exactly, NaN where NaN is expected."""
    assert actual.shape == expected.shape
    actual, expected = actual.detach().double().cpu(), expected.detach().double().cpu()
    finite = expected.isfinite()
    assert_same(actual[~finite], expected[~finite])
    error = (actual - expected).abs()[finite] / expected.abs()[finite].clamp(min=1.0)
    assert (error <= TOLERANCES[dtype].loss).all(), f"loss {actual} instead of {expected}"


def assert_gradient_close(actual: Tensor, expected: Tensor, dtype: torch.dtype, scale: float = 0.0) -> None:
    """Equal within the table, relative to the largest entry or to `scale`, whichever is larger."""
    assert actual.shape == expected.shape
    actual, expected = actual.detach().double().cpu(), expected.detach().double().cpu()
    if expected.numel() == 0:
        return
    error = float((actual - expected).abs().max())
    bound = TOLERANCES[dtype].gradient * max(scale, float(expected.abs().max()))
    assert error <= bound, f"gradient is off by {error:.3g}, allowed are {bound:.3g}"


def assert_same(actual: Tensor, expected: Tensor) -> None:
    """Bitwise equal, but for the kind of NaN."""
    torch.testing.assert_close(actual, expected, rtol=0.0, atol=0.0, equal_nan=True)
