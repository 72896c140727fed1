"""torch.ops.fastctc.convolution: a layer of the recognizer, against PyTorch in float64."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastctc.convolution import convolution, pack_convolution


def by_torch(
    x: Tensor, weight: Tensor, bias: Tensor, widths: list[int], dilation: int, rectifies: bool, adds_input: bool,
    *pool: int,
) -> Tensor:  # fmt: skip
    """Return the layer of (N, H, W, C) in float64."""
    x, weight, bias = x.permute(0, 3, 1, 2).double(), weight.double(), bias.double()
    rows, columns = weight.shape[2:]
    stride = 2 if rows == 5 else 1
    y = F.conv2d(x, weight, bias, stride, (rows // 2, columns // 2 * dilation), (1, dilation))
    y = y.relu() if rectifies else y
    for n, width in enumerate(widths):
        y[n, :, :, width:] = 0
    y = x + y if adds_input else y
    return F.max_pool2d(y, pool).permute(0, 2, 3, 1)


@st.composite
def layers(draw: st.DrawFn) -> tuple[Any, ...]:
    """Return input, weight, bias and the options of a layer."""
    inputs, outputs = (16 * draw(st.integers(1, 4)) for _ in range(2))
    if first := draw(st.booleans()):
        inputs = 1
    taps = draw(st.sampled_from([(3, 3), (5, 5)] if first else [(3, 3), (1, 5), (1, 1)]))
    pool = draw(st.sampled_from([(1, 1), (2, 1), (2, 2)])) if taps[0] > 1 else (1, 1)
    adds_input = pool == (1, 1) and not first and draw(st.booleans())
    dilation = draw(st.integers(1, 4)) if pool == (1, 1) and not first else 1
    n, rows, columns = draw(st.integers(1, 3)), draw(st.integers(3, 17)), draw(st.integers(3, 60))
    widths = [draw(st.integers(1, columns)) for _ in range(n)]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    x = torch.randn(n, rows, columns, inputs, generator=generator)
    for each, width in zip(x, widths, strict=True):
        each[:, width:] = 0
    outputs = inputs if adds_input else outputs
    weight = torch.randn(outputs, inputs, *taps, generator=generator) / (inputs * taps[0] * taps[1]) ** 0.5
    bias = torch.randn(outputs, generator=generator)
    return x, weight, bias, widths, dilation, draw(st.booleans()), adds_input, *pool


@settings(max_examples=60, deadline=None)
@given(layers())
def test_equals_torch(layer: tuple[Any, ...]) -> None:
    x, weight, *options = layer
    found = convolution(x, pack_convolution(weight), *options)
    torch.testing.assert_close(found.double(), by_torch(x, weight, *options), rtol=0, atol=3e-5)


@settings(max_examples=20, deadline=None)
@given(layers())
def test_threads_and_other_images_change_no_bit(layer: tuple[Any, ...]) -> None:
    x, weight, bias, widths, *options = layer
    packed, threads = pack_convolution(weight), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        whole = convolution(x, packed, bias, widths, *options)
        torch.set_num_threads(3)
        assert torch.equal(convolution(x, packed, bias, widths, *options), whole)
    finally:
        torch.set_num_threads(threads)
    for n, width in enumerate(widths):
        assert torch.equal(convolution(x[n : n + 1], packed, bias, [width], *options)[0], whole[n])


@pytest.mark.parametrize("channels", [32, 256])
@pytest.mark.parametrize("taps", [(3, 3), (1, 5)])
def test_the_rounding_error_is_a_few_times_that_of_a_direct_sum(taps: tuple[int, int], channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 8, 64, channels, generator=generator)
    weight = torch.randn(channels, channels, *taps, generator=generator)
    options = torch.zeros(channels), [64, 64], 1, False, False, 1, 1
    exact = by_torch(x, weight, *options)
    direct = F.conv2d(x.permute(0, 3, 1, 2), weight, padding=(taps[0] // 2, taps[1] // 2)).permute(0, 2, 3, 1)
    found = convolution(x, pack_convolution(weight), *options)
    assert (found - exact).square().mean().sqrt() < 6 * (direct - exact).square().mean().sqrt()


X, PACKED, BIAS = torch.randn(2, 4, 8, 16), pack_convolution(torch.randn(32, 16, 3, 3)), torch.zeros(32)
OPTIONS = [8, 8], 1, True, False, 1, 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X.double(), PACKED, BIAS, *OPTIONS), "input must be a contiguous float32 tensor (N, H, W, C)"),
        (
            (X.transpose(1, 2), PACKED, BIAS, *OPTIONS),
            "input must be a contiguous float32 tensor (N, H, W, C)",
        ),
        (
            (X[..., :8].contiguous(), PACKED, BIAS, *OPTIONS),
            "packed is for 16 inputs and 32 outputs, input has 8",
        ),
        ((X, PACKED, BIAS[:16], *OPTIONS), "bias 16"),
        ((X, PACKED[:5], BIAS, *OPTIONS), "packed has 5 places, expected 1, 8, 9, 25 or 36"),
        ((X, PACKED, BIAS, [8], *OPTIONS[1:]), "widths are 1, expected 2"),
        ((X, PACKED, BIAS, [8, 8], 0, *OPTIONS[2:]), "dilation is 0, expected at least 1"),
        ((X, PACKED, BIAS, *OPTIONS[:4], 1, 2), "the pool is 1x2, expected 1x1, 2x1 or 2x2"),
        (
            (X, PACKED, BIAS, [8, 8], 2, *OPTIONS[2:4], 2, 2),
            "a pooled or a first layer has 3x3 or 5x5 kernels, no dilation",
        ),
        (
            (X, PACKED, BIAS, [8, 8], 1, True, True, 1, 1),
            "an input of 16 channels cannot be added to 32 channels",
        ),
    ],
)
def test_errors(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        convolution(*arguments)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((16, 16, 2, 2), "a kernel has 2 rows and 2 columns, expected 1x1, 1x5 or 3x3, or 5x5 of one input"),
        ((16, 8, 3, 3), "inputs are 8, expected a multiple of 16"),
        ((24, 16, 3, 3), "outputs are 24, expected a multiple of 16"),
        ((16, 16, 3), "weight must be a contiguous float32 tensor (outputs, inputs, rows, columns)"),
    ],
)
def test_errors_of_packing(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        pack_convolution(torch.zeros(shape))
