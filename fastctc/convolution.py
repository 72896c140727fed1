"""The compiled convolution of the recognizer's layers on the CPU: its handles, shapes and gradient.

Weights (outputs, inputs, rows, columns) are packed once. They are 1x1, 1x5 or 3x3, with inputs and outputs that are
multiples of 16, or of one input 3x3 or 5x5, the latter with a stride of 2.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastctc import ops as ops  # loads the extension

__all__ = [
    "MULTIPLE",
    "Conv2d",
    "convolution",
    "convolution_weights",
    "has_kernel",
    "is_eager",
    "pack_convolution",
    "pytorch_layers",
]

MULTIPLE = 16
"""Outputs and inputs of a kernel are a multiple of it."""

convolution: Callable[..., Tensor] = torch.ops.fastctc.convolution.default
convolution_weights: Callable[..., Tensor] = torch.ops.fastctc.convolution_weights.default
pack_convolution: Callable[..., Tensor] = torch.ops.fastctc.pack_convolution.default


@torch.library.register_fake("fastctc::pack_convolution")
def _(weight: Tensor) -> Tensor:
    outputs, inputs, *taps = weight.shape
    rows, columns = int(taps[0]), int(taps[1])
    places = rows * columns if inputs == 1 else {(1, 1): 1, (1, 5): 8, (3, 3): 36}[rows, columns]
    return weight.new_empty((places, outputs, inputs))


@torch.library.register_fake("fastctc::convolution")
def _(
    input: Tensor,
    packed: Tensor,
    bias: Tensor,
    widths: list[int],
    dilation: int,
    rectifies: bool,
    adds_input: bool,
    pool_rows: int,
    pool_columns: int,
) -> Tensor:
    batch, _, rows, columns = input.shape
    if packed.shape[0] == 25:  # 5x5, with a stride of 2
        rows, columns = (rows + 1) // 2, (columns + 1) // 2
    shape = batch, packed.shape[1], rows // pool_rows, columns // pool_columns
    return torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=torch.channels_last)


@torch.library.register_fake("fastctc::convolution_weights")
def _(input: Tensor, grad: Tensor, rows: int, columns: int, dilation: int) -> Tensor:
    return input.new_empty((grad.shape[1], input.shape[1], rows, columns))


class Conv2d(torch.nn.Conv2d):
    """``torch.nn.Conv2d``, by our kernels in float32 on the CPU if they have its shape, in training too."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        whole = self.out_channels % MULTIPLE == 0 and self.kernel_size != (1, 1)
        self.trains = whole and self.bias is None and has_kernel(self)

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, outputs, H, W)."""
        if not (self.trains and is_eager(input)):
            return super().forward(input)
        result: Tensor = _Convolution.apply(  # type: ignore[no-untyped-call]
            input, self.weight, self.dilation[1], self.stride[0]
        )
        return result


def has_kernel(conv: torch.nn.Conv2d) -> bool:
    """Return True if there is a kernel for the shape of a convolution, maybe with more outputs."""
    taps, dilation = cast("tuple[int, int]", conv.kernel_size), cast("tuple[int, int]", conv.dilation)
    if conv.in_channels == 1:
        has_shape = (taps, conv.stride) in (((3, 3), (1, 1)), ((5, 5), (2, 2))) and dilation == (1, 1)
    else:
        has_shape = taps in ((1, 1), (1, 5), (3, 3)) and conv.stride == (1, 1) and dilation[0] == 1
    has_inputs = conv.in_channels == 1 or conv.in_channels % MULTIPLE == 0
    keeps_size = conv.padding == (taps[0] // 2, taps[1] // 2 * dilation[1])
    return has_shape and has_inputs and keeps_size and conv.groups == 1


@contextlib.contextmanager
def pytorch_layers() -> Iterator[None]:
    """Let PyTorch compute all layers in a block, where its functions are recorded."""
    token = _left_to_pytorch.set(True)
    try:
        yield
    finally:
        _left_to_pytorch.reset(token)


_left_to_pytorch = contextvars.ContextVar("left_to_pytorch", default=False)


def is_eager(x: Tensor) -> bool:
    """Return True if our kernels may compute a layer of a tensor: now, in float32, on the CPU."""
    return (
        not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not _left_to_pytorch.get()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
    )


class _Convolution(torch.autograd.Function):
    """A convolution that keeps rows and columns, or halves them with a stride of 2, with its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dilation: int, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dilation, ctx.stride = dilation, stride
        return _convolved(x, weight, dilation, stride)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        wants = ctx.needs_input_grad[:2]
        if weight.shape[1] == 1:
            padding = [weight.shape[2] // 2, weight.shape[3] // 2]
            stride = [ctx.stride, ctx.stride]
            by_input, by_weight, _ = torch.ops.aten.convolution_backward(
                grad, x, weight, None, stride, padding, [1, 1], False, [0, 0], 1, [*wants, False]
            )
            return by_input, by_weight, None, None
        by_input = by_weight = None
        if wants[0]:
            by_input = _convolved(grad, weight.flip(2, 3).transpose(0, 1), ctx.dilation)
        if wants[1]:
            x = x.contiguous(memory_format=torch.channels_last)
            by_weight = convolution_weights(x, grad, weight.shape[2], weight.shape[3], ctx.dilation)
        return by_input, by_weight, None, None


def _convolved(x: Tensor, weight: Tensor, dilation: int, stride: int = 1) -> Tensor:
    widths = [(x.shape[3] + stride - 1) // stride] * len(x)
    return convolution(
        x.contiguous(memory_format=torch.channels_last), pack_convolution(weight.contiguous()),
        weight.new_zeros(weight.shape[0]), widths, dilation, False, False, 1, 1,
    )  # fmt: skip
