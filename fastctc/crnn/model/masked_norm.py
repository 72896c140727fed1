"""Batch normalization of images of different widths, with the ReLU that follows it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MaskedBatchNorm(nn.BatchNorm2d):
    """Batch normalization, whose statistics in training leave the padding out, and ReLU."""

    def forward(self, x: Tensor, inside: Tensor | None = None) -> Tensor:
        """Apply ``BatchNorm2d`` over the columns where ``inside`` is true, then ReLU.

        Args:
            x: (N, C, H, W). In training its padding is set to zero in place.
            inside: (N, 1, 1, W) bool, true in the first columns of each image; None where nothing is padding.

        Returns:
            (N, C, H, W). In training it is zero in the padding, and no gradient flows from there.
        """
        if not self.training or inside is None:
            return F.relu(super().forward(x), inplace=True)
        assert self.running_mean is not None and self.running_var is not None
        y, mean, variance, count = _NormalizeReLU.apply(  # type: ignore[no-untyped-call]
            x, zero_padding(x.detach(), inside), inside, self.weight, self.bias, self.eps
        )
        with torch.no_grad():
            momentum = 0.1 if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * count / (count - 1).clamp_min(1), momentum)
        return y  # type: ignore[no-any-return]


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
