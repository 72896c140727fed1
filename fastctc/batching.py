"""torch.func.vmap of loss and alignment: the extra dimension becomes part of the batch of one call."""

from typing import Any

import torch
from torch import Tensor

from fastctc import ops

__all__: list[str] = []

# The dimension N of each argument, in the order of the schema; class_bias, which comes next, has none.
LOSS = {"input": 1, "targets": 0, "input_lengths": 0, "target_lengths": 0}
BACKWARD = {"grad_loss": 0, **LOSS, "occupancy": 0, "row_statistics": 1, "status": 0}
TANGENT = {"input": 1, "tangent": 1, "targets": 0, "input_lengths": 0, "target_lengths": 0}


def _folded(
    info: Any, in_dims: tuple[int | None, ...], dims: dict[str, int], args: tuple[Any, ...]
) -> list[Any]:
    """The arguments with B samples for each one there was; what is not mapped over is repeated."""
    if in_dims[len(dims)] is not None:
        raise ValueError("vmap over label_priors is not supported")
    folded = []
    for tensor, in_dim, (name, dim) in zip(args, in_dims, dims.items(), strict=False):
        if in_dim is None:
            batched = tensor.unsqueeze(dim).expand(*tensor.shape[:dim], info.batch_size, *tensor.shape[dim:])
        else:
            batched = tensor.movedim(in_dim, dim)
        flat = batched.flatten(dim, dim + 1)
        folded.append(flat if name == "input" else flat.contiguous())
    return [*folded, *args[len(dims) :]]


def _check_targets(targets: Tensor, targets_dim: int | None, lengths_dim: int | None) -> None:
    """Concatenated targets are found by the sums of the lengths, which must not shift between the mapped calls."""
    concatenated = targets.dim() - (targets_dim is not None) == 1
    if concatenated and (targets_dim is not None or lengths_dim is not None):
        raise ValueError("vmap over targets or target_lengths needs padded targets, (N, S)")


@torch.library.register_vmap("fastctc::ctc_loss")
def _(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    _check_targets(args[1], in_dims[1], in_dims[3])
    results = ops.ctc_loss(*_folded(info, in_dims, LOSS, args))
    dims = 0, 0, 1, 0
    return tuple(_unfolded(info, result, dim) for result, dim in zip(results, dims, strict=True)), dims


@torch.library.register_vmap("fastctc::ctc_loss_backward")
def _(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensor, int]:
    grad_loss, *others = args
    if all(dim is None for dim in in_dims[1:]):  # as in a Jacobian: a multiple of the same gradient
        ones = grad_loss.new_ones(others[0].shape[1])
        gradient = ops.ctc_loss_backward(ones, *others)
        weights = grad_loss.movedim(in_dims[0], 0)[:, None, :, None]
        return (weights * gradient).to(gradient.dtype), 0
    gradient = ops.ctc_loss_backward(*_folded(info, in_dims, BACKWARD, args))
    return _unfolded(info, gradient, 1), 1


@torch.library.register_vmap("fastctc::ctc_loss_tangent")
def _(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Tensor, int]:
    return _unfolded(info, ops.ctc_loss_tangent(*_folded(info, in_dims, TANGENT, args)), 0), 0


@torch.library.register_vmap("fastctc::forced_align")
def _(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    _check_targets(args[1], in_dims[1], in_dims[3])
    results = ops.forced_align(*_folded(info, in_dims, LOSS, args))
    return tuple(_unfolded(info, result, 0) for result in results), (0, 0, 0)


def _unfolded(info: Any, result: Tensor, dim: int) -> Tensor:
    batch = result.shape[dim] // info.batch_size
    return result.reshape(*result.shape[:dim], info.batch_size, batch, *result.shape[dim + 1 :])
