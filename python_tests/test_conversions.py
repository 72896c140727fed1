"""Rows of float16 and bfloat16 are read and written with PyTorch's conversions, contiguous or not."""

from __future__ import annotations

import pytest
import torch
from conftest import Device
from tolerances import assert_same
from torch import Tensor

import fastctc

HALVES = (torch.float16, torch.bfloat16)


def finite_values(dtype: torch.dtype) -> Tensor:
    """Return each finite number that is at most 0, (many,)."""
    values = torch.arange(-(2**15), 0, dtype=torch.int32).to(torch.int16).view(dtype)  # the sign bit is set
    return values[values.isfinite()]


def with_gaps(x: Tensor, gap: int) -> Tensor:
    """Return the same values, with the classes `gap` elements apart."""
    wide = torch.full((*x.shape, gap), float("nan"), dtype=x.dtype, device=x.device)
    wide[..., 0] = x
    return wide[..., 0]


@pytest.mark.parametrize("gap", (1, 3))
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_every_number_is_read(dtype: torch.dtype, gap: int, device: Device) -> None:
    values = finite_values(dtype)[:: 1 if device.name in ("cpu", "cuda") else 97]
    x = torch.full((1, len(values), 37), -float("inf"), dtype=dtype)
    x[0, torch.arange(len(values)), torch.arange(len(values)) % 36 + 1] = values
    x = x.to(device.torch)
    greedy = fastctc.greedy_decode(with_gaps(x, gap))
    expected = fastctc.greedy_decode(x.float())
    for a, b in zip(greedy, expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("gap", (1, 3))
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_gradients_are_rounded_as_by_pytorch(dtype: torch.dtype, gap: int, device: Device) -> None:
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(19, 2, 37, generator=generator) * 6).to(device=device.torch, dtype=dtype)
    targets = torch.randint(1, 37, (2, 5), generator=generator).to(device.torch)
    half = with_gaps(x, gap).requires_grad_()
    single = x.float().requires_grad_()
    scale = torch.tensor([1.0, 1e-4], device=device.torch)  # the second has subnormal gradients in float16
    for each in (half, single):
        losses = fastctc.ctc_loss(each, targets, [19, 17], [5, 4], reduction="none", from_logits=True)
        (losses * scale).sum().backward()
    assert half.grad is not None and single.grad is not None
    assert torch.equal(half.grad, single.grad.to(dtype))


@pytest.mark.parametrize("gap", (1, 3))
@pytest.mark.parametrize("factor", (1.0, -3e-39, 0.0, 2e38, float("inf"), float("nan")))
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_long_rows_on_the_cpu(dtype: torch.dtype, factor: float, gap: int) -> None:
    """Rows that end within a register, with masked classes, and gradients that are subnormal, infinite or NaN."""
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(6, 2, 1031, generator=generator) * 9).to(dtype)
    x[torch.rand(6, 2, 1031, generator=generator) < 0.1] = -torch.inf
    targets = torch.tensor([[1, 700, 3], [1030, 1030, 5]])
    x.scatter_(2, torch.nn.functional.pad(targets, (1, 0)).expand(6, 2, 4), 1.0)  # with the blank
    results = []
    for each in (with_gaps(x, gap).requires_grad_(), x.float().requires_grad_()):
        losses = fastctc.ctc_loss(each, targets, [6, 5], [3, 3], reduction="none", from_logits=True)
        assert losses.isfinite().all()
        gradient = torch.autograd.grad(losses, each, torch.full_like(losses, factor))[0]
        results.append((losses.detach(), gradient.to(dtype)))
    (losses, gradient), (expected, expected_gradient) = results
    assert torch.equal(losses, expected)
    assert_same(gradient, expected_gradient)
