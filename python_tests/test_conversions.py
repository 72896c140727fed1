"""Rows of float16 and bfloat16 are read and written with PyTorch's conversions, contiguous or not."""

from __future__ import annotations

import pytest
import torch
from conftest import Device
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
