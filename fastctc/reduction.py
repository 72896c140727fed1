"""The reduction of the losses of a batch, in operations of PyTorch."""

import torch
from torch import Tensor

__all__ = ["REDUCTIONS", "gradient_of_losses", "reduced"]

REDUCTIONS = ("none", "mean", "sum")  # the order of enum Reduction in csrc/torch_ops/loss_reduction.h


def reduced(losses: Tensor, target_lengths: Tensor, reduction: str, zero_infinity: bool) -> Tensor:
    """Return the reduction of losses (N): a scalar, or (N) for "none".

    On the CPU sums are in float64. So they are rounded once, as in the compiled form of this function.
    """
    if zero_infinity:
        losses = torch.where(losses == torch.inf, 0, losses)
    if reduction == "none":
        return losses
    dtype = torch.float64 if losses.is_cpu else losses.dtype
    if reduction == "mean":
        losses = losses / target_lengths.clamp(min=1)
        if losses.shape[0] != 0:
            return losses.mean(dtype=dtype).to(losses.dtype)
    return losses.sum(dtype=dtype).to(losses.dtype)


def gradient_of_losses(grad: Tensor, target_lengths: Tensor, reduction: str) -> Tensor:
    """Return the gradient of each loss, (N), where `grad` is the gradient of the reduced one."""
    batch = target_lengths.shape[0]
    if reduction == "mean":
        return (grad / batch).expand(batch) / target_lengths.clamp(min=1)
    return grad.expand(batch)
