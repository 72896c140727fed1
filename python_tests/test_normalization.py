"""torch.ops.fastctc.normalization: batch normalization, ReLU and pooling, against PyTorch in float64."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastctc.normalization import has_kernel, normalization, normalization_grad, normalized

LAST = torch.channels_last
Case = tuple[Tensor, Tensor, Tensor, list[int], float, tuple[int, int], Tensor | None]


def by_torch(
    x: Tensor, weight: Tensor, bias: Tensor, widths: list[int], eps: float, pool: tuple[int, int],
    added: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return the layer of (N, C, H, W), its mean and variance, by the pixels that are not padding."""
    columns = torch.cat([each[..., :width] for each, width in zip(x, widths, strict=True)], dim=2)
    mean, variance = columns.mean((1, 2)), columns.var((1, 2), correction=0)
    inside = (torch.arange(x.shape[3]) < torch.tensor(widths)[:, None])[:, None, None, :]
    scale = weight / (variance + eps).sqrt()
    y = (x - mean[:, None, None]) * scale[:, None, None] + bias[:, None, None]
    y = F.max_pool2d(torch.where(inside, y.relu(), 0.0), pool)
    return y if added is None else y + added, mean, variance


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Return the arguments of ``normalized``."""
    pool = draw(st.sampled_from([(1, 1), (2, 1), (2, 2)]))
    n, channels = draw(st.integers(1, 4)), 16 * draw(st.integers(1, 9))
    rows, columns = pool[0] * draw(st.integers(1, 5)), pool[1] * draw(st.integers(2, 20))
    widths = [draw(st.integers(1, columns)) for _ in range(n)]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    x = torch.randn(n, channels, rows, columns, generator=generator)
    x = draw(st.sampled_from([0.1, 1.0, 30.0])) * (x + draw(st.sampled_from([0.0, -3.0, 50.0])))
    weight, bias = torch.randn(2, channels, generator=generator)
    shape = n, channels, rows // pool[0], columns // pool[1]
    added = None
    if draw(st.booleans()):
        added = torch.randn(shape, generator=generator).contiguous(memory_format=LAST)
    return x.contiguous(memory_format=LAST), weight, bias, widths, 1e-5, pool, added


@settings(max_examples=60, deadline=None)
@given(cases())
def test_equals_torch(case: Case) -> None:
    exact = by_torch(*(each.double() if isinstance(each, Tensor) else each for each in case))
    found = normalized(*case)
    # The mean is rounded, and the difference from it is divided by the deviation.
    mean, variance = exact[1:]
    rounding = 1e-6 * float((mean.abs() * case[1].abs() / (variance + 1e-5).sqrt()).max())
    torch.testing.assert_close(found[0].double(), exact[0], rtol=1e-5, atol=1e-5 + rounding)
    for one, other in zip(found[1:], exact[1:], strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-8)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_gradients_are_those_of_torch(case: Case) -> None:
    x, weight, bias, widths, eps, pool, added = case
    x = x + 0.01 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))  # no two pixels are equal
    found = []
    for dtype, layer in ((torch.float32, normalized), (torch.float64, by_torch)):
        inputs = [each.to(dtype).requires_grad_() for each in (x, weight, bias)]
        more = None if added is None else added.to(dtype).requires_grad_()
        y, *_ = layer(*inputs, widths, eps, pool, more)
        grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(2)).to(dtype)
        inputs += [] if more is None else [more]
        found.append([each.double() for each in torch.autograd.grad(y, inputs, grad)])
    for mine, other in zip(*found, strict=True):
        assert mine.shape == other.shape
        scale = max(1.0, float(other.abs().max()))
        wrong = (mine - other).abs() > 2e-3 * scale
        # A value near zero, or near another one, may pass the gradient.
        assert float(wrong.double().mean()) < 2e-3


@settings(max_examples=20, deadline=None)
@given(cases())
def test_threads_change_no_bit(case: Case) -> None:
    x, weight, bias, widths, eps, pool, added = case
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            y, mean, variance = normalization(x, weight, bias, widths, eps, *pool, added)
            grad = y.cos().contiguous(memory_format=LAST)
            gradients = normalization_grad(grad, x, weight, bias, mean, variance, widths, eps, *pool)
            results.append([y, mean, variance, *gradients])
    finally:
        torch.set_num_threads(threads)
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_padding_is_not_read() -> None:
    x = torch.randn(2, 16, 4, 9).contiguous(memory_format=LAST)
    weight, bias, results = torch.ones(16), torch.zeros(16), []
    for padding in (0.0, float("nan")):
        x[1, :, :, 5:] = padding
        y, mean, variance = normalization(x, weight, bias, [9, 5], 1e-5, 1, 1, None)
        grad = torch.where(torch.arange(9) < torch.tensor([9, 5])[:, None, None, None], y, padding)
        grad = grad.contiguous(memory_format=LAST)
        more = normalization_grad(grad, x, weight, bias, mean, variance, [9, 5], 1e-5, 1, 1)
        results.append([y, mean, variance, *more])
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other) and bool(torch.isfinite(one).all())


def test_a_small_variance_beside_a_large_mean() -> None:
    x = (1000 + 0.1 * torch.randn(4, 16, 8, 40, dtype=torch.float64)).float().contiguous(memory_format=LAST)
    _, mean, variance = normalized(x, torch.ones(16), torch.zeros(16), [40] * 4, 1e-5)
    exact = x.double().var((0, 2, 3), correction=0)
    torch.testing.assert_close(variance.double(), exact, rtol=1e-5, atol=0)
    torch.testing.assert_close(mean.double(), x.double().mean((0, 2, 3)), rtol=1e-6, atol=0)


def test_numbers_that_are_none_stay_so() -> None:
    x = torch.randn(1, 16, 2, 4).contiguous(memory_format=LAST)
    x[0, 3, 0, 0], x[0, 5, 1, 2] = float("nan"), float("inf")
    y, mean, variance = normalized(x, torch.ones(16), torch.zeros(16), [4], 1e-5, (2, 2))
    for channel in range(16):
        is_bad = channel in (3, 5)
        assert bool(torch.isnan(y[0, channel]).all()) == is_bad
        assert bool(torch.isfinite(mean[channel]) and torch.isfinite(variance[channel])) != is_bad


def test_which_images_have_a_kernel() -> None:
    x = torch.zeros(1, 32, 4, 6)
    assert has_kernel(x, (2, 2)) and has_kernel(x[:, :16], (1, 1))
    assert not has_kernel(x[:, :8], (1, 1)) and not has_kernel(x.double(), (1, 1))
    assert not has_kernel(x[..., :5], (2, 2)) and not has_kernel(x, (1, 2))
    with torch.autocast("cpu", torch.bfloat16):
        assert not has_kernel(x, (1, 1))


X = torch.randn(2, 16, 4, 8).contiguous(memory_format=LAST)
ONE, OPTIONS = torch.ones(16), (1e-5, 2, 2, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X.double(), ONE, ONE, [8, 8], *OPTIONS), "input must be a float32 tensor (N, C, H, W)"),
        ((X.contiguous(), ONE, ONE, [8, 8], *OPTIONS), "contiguous in channels_last"),
        ((X, ONE[:8], ONE, [8, 8], *OPTIONS), "weight is of 8 channels, expected 16"),
        ((X, ONE, ONE.double(), [8, 8], *OPTIONS), "bias must be a contiguous float32 tensor (channels)"),
        ((X, ONE, ONE, [8], *OPTIONS), "widths are 1, expected 2"),
        ((X, ONE, ONE, [8, 9], *OPTIONS), "a width is 9, expected 1 to 8"),
        ((X, ONE, ONE, [8, 0], *OPTIONS), "a width is 0, expected 1 to 8"),
        ((X, ONE, ONE, [8, 8], 1e-5, 1, 2, None), "the pool is 1x2, expected 1x1, 2x1 or 2x2"),
        ((X, ONE, ONE, [8, 8], 1e-5, 1, 1, X[:1]), "size 0 of added is 1, expected 2"),
        (
            (X[:, :8].contiguous(memory_format=LAST), ONE[:8], ONE[:8], [8, 8], *OPTIONS),
            "expected images, rows, and a multiple of 16 channels",
        ),
        (
            (X[:, :, :3].contiguous(memory_format=LAST), ONE, ONE, [8, 8], *OPTIONS),
            "input has 3 rows and 8 columns, expected a multiple of the pool, 2x2",
        ),
    ],
)
def test_errors(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        normalization(*arguments)


def test_an_error_of_the_gradient() -> None:
    with pytest.raises(ValueError, match="size 2 of grad is 4, expected 2"):
        normalization_grad(X, X, ONE, ONE, ONE, ONE, [8, 8], 1e-5, 2, 2)
