"""The compiled batch normalization of the recognizer in training on the CPU: its handles, shapes and gradient.

Pixels in the padding, behind the widths of the images, are not counted. They become zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fastctc.convolution import MULTIPLE, is_eager

__all__ = ["has_kernel", "normalization", "normalization_grad", "normalized"]

normalization: Callable[..., tuple[Tensor, Tensor, Tensor]] = torch.ops.fastctc.normalization.default
normalization_grad: Callable[..., tuple[Tensor, Tensor, Tensor]] = (
    torch.ops.fastctc.normalization_grad.default
)


@torch.library.register_fake("fastctc::normalization")
def _(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    widths: list[int],
    eps: float,
    pool_rows: int,
    pool_columns: int,
    added: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    batch, channels, rows, columns = input.shape
    shape = batch, channels, rows // pool_rows, columns // pool_columns
    output = torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=torch.channels_last)
    return output, torch.empty_like(weight), torch.empty_like(weight)


@torch.library.register_fake("fastctc::normalization_grad")
def _(
    grad: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    widths: list[int],
    eps: float,
    pool_rows: int,
    pool_columns: int,
) -> tuple[Tensor, Tensor, Tensor]:
    by_input = torch.empty_like(input, memory_format=torch.channels_last)
    return by_input, torch.empty_like(weight), torch.empty_like(bias)


def has_kernel(x: Tensor, pool: tuple[int, int]) -> bool:
    """Return True if the kernel takes images (N, C, H, W) and the windows of a pooling."""
    _, channels, rows, columns = x.shape
    is_whole = rows % pool[0] == 0 and columns % pool[1] == 0 and channels % MULTIPLE == 0
    return is_eager(x) and is_whole and pool in ((1, 1), (2, 1), (2, 2))


def normalized(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    widths: list[int],
    eps: float,
    pool: tuple[int, int] = (1, 1),
    added: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Apply batch normalization by the statistics of a batch, ReLU, max-pooling, and a sum.

    Args:
        x: (N, C, H, W) float32 on the CPU, C a multiple of 16.
        weight, bias: (C,).
        widths: columns of each image that are not padding.
        eps: is added to the variance.
        pool: rows and columns of the windows of max-pooling.
        added: (N, C, H / rows, W / columns), is added last; None: nothing.

    Returns:
        (N, C, H / rows, W / columns), zero in the padding before the sum; mean and variance (C,), which have no
        gradient. The variance is the mean square of the differences from the mean.
    """
    result: tuple[Tensor, Tensor, Tensor] = _Normalization.apply(  # type: ignore[no-untyped-call]
        x, weight, bias, widths, eps, pool, added
    )
    return result


class _Normalization(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        widths: list[int],
        eps: float,
        pool: tuple[int, int],
        added: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        x = x.contiguous(memory_format=torch.channels_last)
        if added is not None:
            added = added.contiguous(memory_format=torch.channels_last)
        y, mean, variance = normalization(x, weight, bias, widths, eps, *pool, added)
        ctx.save_for_backward(x, weight, bias, mean, variance)
        ctx.options = widths, eps, *pool
        ctx.adds = added is not None
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        grad = grad.contiguous(memory_format=torch.channels_last)
        gradients = normalization_grad(grad, *ctx.saved_tensors, *ctx.options)
        return *gradients, None, None, None, grad if ctx.adds else None
