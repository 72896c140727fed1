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

from fastctc.convolution import Conv2d, convolution, convolution_weights, pack_convolution


def by_torch(
    x: Tensor, weight: Tensor, bias: Tensor, widths: list[int], dilation: int, rectifies: bool, adds_input: bool,
    *pool: int,
) -> Tensor:  # fmt: skip
    """Return the layer of (N, C, H, W) in float64."""
    x, weight, bias = x.double(), weight.double(), bias.double()
    rows, columns = weight.shape[2:]
    stride = 2 if rows == 5 else 1
    y = F.conv2d(x, weight, bias, stride, (rows // 2, columns // 2 * dilation), (1, dilation))
    y = y.relu() if rectifies else y
    for n, width in enumerate(widths):
        y[n, :, :, width:] = 0
    y = x + y if adds_input else y
    return F.max_pool2d(y, pool)


LAST = torch.channels_last


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
    x = torch.randn(n, inputs, rows, columns, generator=generator).contiguous(memory_format=LAST)
    for each, width in zip(x, widths, strict=True):
        each[:, :, width:] = 0
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
    x = torch.randn(2, channels, 8, 64, generator=generator).contiguous(memory_format=LAST)
    weight = torch.randn(channels, channels, *taps, generator=generator)
    options = torch.zeros(channels), [64, 64], 1, False, False, 1, 1
    exact = by_torch(x, weight, *options)
    direct = F.conv2d(x, weight, padding=(taps[0] // 2, taps[1] // 2))
    found = convolution(x, pack_convolution(weight), *options)
    assert (found - exact).square().mean().sqrt() < 6 * (direct - exact).square().mean().sqrt()


X = torch.randn(2, 16, 4, 8).contiguous(memory_format=LAST)
PACKED, BIAS = pack_convolution(torch.randn(32, 16, 3, 3)), torch.zeros(32)
OPTIONS = [8, 8], 1, True, False, 1, 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((X.double(), PACKED, BIAS, *OPTIONS), "input must be a float32 tensor (N, C, H, W)"),
        ((X.contiguous(), PACKED, BIAS, *OPTIONS), "contiguous in channels_last"),
        ((X[0], PACKED, BIAS, *OPTIONS), "input must be a float32 tensor (N, C, H, W)"),
        (
            (X.tile(1, 2, 1, 1).contiguous(memory_format=LAST), PACKED, BIAS, *OPTIONS),
            "packed is for 16 inputs",
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
    ("arguments", "message"),
    [
        ((X, X[:1], 3, 3, 1), "size 0 of input is 2, of grad 1"),
        ((X, X.contiguous(), 3, 3, 1), "grad must be a float32 tensor (N, C, H, W)"),
        ((X, X, 1, 1, 1), "expected 1x5 or 3x3"),
        ((X, X, 3, 3, 0), "dilation is 0, expected at least 1"),
    ],
)
def test_errors_of_the_gradient(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        convolution_weights(*arguments)


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


@pytest.mark.parametrize(
    ("inputs", "taps", "dilation"),
    [(32, (3, 3), 1), (32, (1, 5), 1), (32, (1, 5), 3), (1, (3, 3), 1), (1, (5, 5), 1)],
)
@pytest.mark.parametrize("memory_format", [LAST, torch.contiguous_format])
def test_gradients_are_those_of_torch(
    inputs: int, taps: tuple[int, int], dilation: int, memory_format: torch.memory_format
) -> None:
    generator = torch.Generator().manual_seed(0)
    options: Any = {
        "padding": (taps[0] // 2, taps[1] // 2 * dilation),
        "dilation": (1, dilation),
        "stride": 2 if taps == (5, 5) else 1,
        "bias": False,
    }
    ours, torchs = (
        Conv2d(inputs, 48, taps, **options),
        torch.nn.Conv2d(inputs, 48, taps, **options).double(),
    )
    torchs.load_state_dict(ours.state_dict())
    assert ours.trains
    x = torch.randn(2, inputs, 7, 30, generator=generator).contiguous(memory_format=memory_format)
    mine, other = x.clone().requires_grad_(), x.double().requires_grad_()
    y, exact = ours(mine), torchs(other)
    grad = torch.randn(y.shape, generator=generator)
    y.backward(grad)
    exact.backward(grad.double())
    assert mine.grad is not None and other.grad is not None
    assert ours.weight.grad is not None and torchs.weight.grad is not None
    for found, expected, size in [
        (y, exact, 1), (mine.grad, other.grad, 1), (ours.weight.grad, torchs.weight.grad, 20),
    ]:  # fmt: skip
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=3e-5 * size)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([(3, 3), (1, 5)]), st.integers(1, 3), st.integers(1, 17), st.integers(1, 90),
    st.sampled_from([16, 32, 48]), st.sampled_from([16, 80]), st.integers(1, 3), st.integers(1, 3),
)  # fmt: skip
def test_the_gradient_by_weights_is_that_of_torch(
    taps: tuple[int, int],
    n: int,
    rows: int,
    columns: int,
    inputs: int,
    outputs: int,
    dilation: int,
    threads: int,
) -> None:
    generator = torch.Generator().manual_seed(n * rows * columns)
    x, grad = (
        torch.randn(n, c, rows, columns, generator=generator).contiguous(memory_format=LAST)
        for c in (inputs, outputs)
    )
    dilation = dilation if taps == (1, 5) else 1
    weight = torch.zeros(outputs, inputs, *taps, dtype=torch.float64, requires_grad=True)
    padding = taps[0] // 2, taps[1] // 2 * dilation
    F.conv2d(x.double(), weight, None, 1, padding, (1, dilation)).backward(grad.double())
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        found = convolution_weights(x, grad, *taps, dilation)
    finally:
        torch.set_num_threads(before)
    assert weight.grad is not None
    scale = (n * rows * columns) ** 0.5
    torch.testing.assert_close(found.double(), weight.grad, rtol=0, atol=5e-5 * scale)


def test_what_has_no_kernel_is_torchs() -> None:
    for conv in [
        Conv2d(8, 16, 3, padding=1, bias=False),
        Conv2d(16, 16, 3, padding=1),
        Conv2d(16, 16, 3, bias=False),
    ]:
        assert not conv.trains
        x = torch.randn(1, conv.in_channels, 5, 9)
        assert torch.equal(conv(x), torch.nn.Conv2d.forward(conv, x))
    conv = Conv2d(16, 16, 3, padding=1, bias=False)
    x = torch.randn(1, 16, 5, 9)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(conv(x), torch.nn.Conv2d.forward(conv, x))
    assert torch.equal(conv.double()(x.double()), torch.nn.Conv2d.forward(conv, x.double()))


def test_a_layer_is_exported() -> None:
    conv, x = Conv2d(16, 16, 3, padding=1, bias=False), torch.randn(1, 16, 5, 9)
    program = torch.export.export(conv, (x,)).module()
    torch.testing.assert_close(program(x), conv(x), rtol=0, atol=1e-5)
