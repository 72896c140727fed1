"""Batch normalization of images of different widths, with ReLU, pooling and a residual sum after it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastctc.normalization import has_kernel, normalized


class MaskedBatchNorm(nn.BatchNorm2d):
    """Batch normalization, whose statistics in training leave the padding out, and what follows it."""

    def forward(
        self,
        x: Tensor,
        inside: Tensor | None = None,
        pool: tuple[int, int] = (1, 1),
        added: Tensor | None = None,
    ) -> Tensor:
        """Apply ``BatchNorm2d`` over the columns where ``inside`` is true, ReLU, and what :func:`finished` does.

        Args:
            x: (N, C, H, W). In training its padding may be set to zero in place.
            inside: (N, 1, 1, W) bool, true in the first columns of each image; None where nothing is padding.
            pool: rows and columns of the windows of max-pooling.
            added: (N, C, H / rows, W / columns), is added last; None: nothing.

        Returns:
            (N, C, H / rows, W / columns). No gradient flows from the padding.
        """
        if self.training and has_kernel(x, pool):
            y, mean, variance, count = self._by_kernel(x, inside, pool, added)
        elif not self.training or inside is None:
            return finished(F.relu(super().forward(x), inplace=True), inside, pool, added)
        else:
            y, mean, variance, count = _NormalizeReLU.apply(  # type: ignore[no-untyped-call]
                x, zero_padding(x.detach(), inside), inside, self.weight, self.bias, self.eps
            )
            y = finished(y, None, pool, added)
        with torch.no_grad():
            assert self.running_mean is not None and self.running_var is not None
            momentum = 0.1 if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * count / (count - 1).clamp_min(1), momentum)
        return y  # type: ignore[no-any-return]

    def _by_kernel(
        self, x: Tensor, inside: Tensor | None, pool: tuple[int, int], added: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the result of training, the mean and the variance, and of how many pixels they are."""
        widths = [x.shape[3]] * len(x) if inside is None else inside.sum(3).flatten().tolist()
        result = normalized(x, self.weight, self.bias, widths, self.eps, pool, added)
        return *result, torch.tensor(x.shape[2] * sum(widths))


def finished(x: Tensor, inside: Tensor | None, pool: tuple[int, int], added: Tensor | None) -> Tensor:
    """Set the padding of (N, C, H, W) >= 0 to zero, pool it, and add a tensor of the shape that it has then."""
    if inside is not None:
        x = x * inside if torch.is_grad_enabled() else zero_padding(x, inside)
    x = x if pool == (1, 1) else pooled(x, pool)  # a half-filled window sees the zeros of the padding
    return x if added is None else added + x


def pooled(x: Tensor, pool: tuple[int, int]) -> Tensor:
    """Return ``F.max_pool2d``, without a gradient on the CPU by the faster maximum of two views per axis."""
    whole = x.shape[2] % pool[0] == 0 and x.shape[3] % pool[1] == 0
    if torch.compiler.is_exporting() or torch.is_grad_enabled() or x.device.type != "cpu" or not whole:
        return F.max_pool2d(x, pool)
    if pool[0] == 2:
        x = torch.maximum(x[:, :, 0::2], x[:, :, 1::2])
    return torch.maximum(x[..., 0::2], x[..., 1::2]) if pool[1] == 2 else x


def zero_padding(x: Tensor, inside: Tensor) -> Tensor:
    """Set (N, C, H, W) to zero in place where (N, 1, 1, W) is false; return it."""
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return x.mul_(inside)
    return cut_padding(x, inside.sum(3).flatten().tolist())


def cut_padding(x: Tensor, widths: list[int]) -> Tensor:
    """Set (N, C, H, W) to zero in place behind the widths of its images, by a pass over the padding; return it."""
    for n, width in enumerate(widths):
        if width < x.shape[3]:
            x[n, :, :, width:].zero_()
    return x


class _NormalizeReLU(torch.autograd.Function):
    """The normalization and ReLU with their gradient, in few passes over memory.

    Ioffe and Szegedy, Batch Normalization, arXiv:1502.03167, section 3. The padding is zero, so the sums over the
    columns inside follow from those over all columns.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, values: Tensor, inside: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        count = inside.sum() * x.shape[2]
        total = x.numel() // x.shape[1]
        wide = torch.promote_types(x.dtype, torch.float32)
        mean, variance = (torch.empty(x.shape[1], dtype=wide, device=x.device) for _ in range(2))
        F.batch_norm(values, mean.zero_(), variance.zero_(), training=True, momentum=1.0)
        squares = variance * ((total - 1) / total) + mean.square()
        mean = mean * total / count
        variance = (squares * total / count - mean.square()).clamp_min(0)
        y = zero_padding(F.batch_norm(values, mean, variance, weight, bias, eps=eps).relu_(), inside)
        ctx.save_for_backward(values, y, inside, weight, mean, variance, count)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance, count)
        return y, mean, variance, count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, y, inside, weight, mean, variance, count = ctx.saved_tensors
        dy = torch.ops.aten.threshold_backward(gradients[0], y, 0)  # zero in the padding, as y is
        scale = torch.rsqrt(variance + ctx.eps)
        _, dweight, dbias = torch.ops.aten.native_batch_norm_backward(
            dy, x, weight, mean, variance, mean, scale, True, ctx.eps, [False, True, True]
        )
        # dx = weight scale (dy - dbias / count - (x - mean) scale dweight / count)
        zero, one = torch.zeros_like(mean), torch.full_like(variance, 1 - ctx.eps)
        dx = F.batch_norm(dy, zero, one, weight * scale, -weight * scale * dbias / count, eps=ctx.eps)
        slope = -weight * scale * dweight / count
        dx = dx.add_(F.batch_norm(x, mean, variance, slope, zero, eps=ctx.eps))
        return zero_padding(dx, inside), None, None, dweight, dbias, None
