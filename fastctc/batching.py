"""torch.func.vmap of loss and alignment: the extra dimension becomes part of the batch of one call."""

from typing import Any

import torch
from torch import Tensor

from fastctc import ops
from fastctc.errors import ArgumentValueError

__all__: list[str] = []

# The dimension N of each tensor that can be mapped over.
BATCH_DIM = {
    "grad_loss": 0,
    "input": 1,
    "tangent": 1,
    "targets": 0,
    "input_lengths": 0,
    "target_lengths": 0,
    "occupancy": 0,
    "row_statistics": 1,
    "status": 0,
}

InDims = tuple[int | None, ...]


def _folded(op: str, info: Any, in_dims: InDims, args: tuple[Any, ...]) -> list[Any]:
    """Return the arguments of one call with B * N samples; a tensor that is not mapped over is repeated."""
    folded = []
    for name, arg, in_dim in zip(ops.ARGUMENTS[op], args, in_dims, strict=True):
        if name not in BATCH_DIM:
            if in_dim is not None:
                raise ArgumentValueError("vmap over label_priors is not supported")
            folded.append(arg)
            continue
        dim = BATCH_DIM[name]
        if in_dim is None:
            batched = arg.unsqueeze(dim).expand(*arg.shape[:dim], info.batch_size, *arg.shape[dim:])
        else:
            batched = arg.movedim(in_dim, dim)
        flat = batched.flatten(dim, dim + 1)
        folded.append(flat if name == "input" else flat.contiguous())
    return folded


def _unfolded(info: Any, result: Tensor, dim: int) -> Tensor:
    """Split the dimension of B * N samples into B and N."""
    batch = result.shape[dim] // info.batch_size
    return result.reshape(*result.shape[:dim], info.batch_size, batch, *result.shape[dim + 1 :])


def _check_targets(op: str, in_dims: InDims, args: tuple[Any, ...]) -> None:
    """Raise ValueError where concatenated targets or their lengths are mapped over.

    The op finds concatenated targets by the sums of the lengths, which must be the same in all mapped calls.
    """
    mapped = {name for name, dim in zip(ops.ARGUMENTS[op], in_dims, strict=True) if dim is not None}
    targets = args[ops.ARGUMENTS[op].index("targets")]
    concatenated = targets.dim() - ("targets" in mapped) == 1
    if concatenated and mapped & {"targets", "target_lengths"}:
        raise ArgumentValueError("vmap over targets or target_lengths needs padded targets, (N, S)")


@torch.library.register_vmap("fastctc::ctc_loss")
def _(info: Any, in_dims: InDims, *args: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    _check_targets("ctc_loss", in_dims, args)
    results = ops.ctc_loss(*_folded("ctc_loss", info, in_dims, args))
    dims = 0, BATCH_DIM["occupancy"], BATCH_DIM["row_statistics"], BATCH_DIM["status"]
    return tuple(_unfolded(info, result, dim) for result, dim in zip(results, dims, strict=True)), dims


@torch.library.register_vmap("fastctc::ctc_loss_backward")
def _(info: Any, in_dims: InDims, *args: Any) -> tuple[Tensor, int]:
    grad_loss, *fields = args
    grad_loss_dim, *others = in_dims
    if all(dim is None for dim in others):  # as in a Jacobian: multiples of one gradient
        saved = ops.SavedLoss(*fields)
        ones = grad_loss.new_ones(saved.input.shape[1])
        gradient = ops.ctc_loss_backward(ones, *saved)
        weights = grad_loss.movedim(grad_loss_dim, 0)[:, None, :, None]
        return (weights * gradient).to(gradient.dtype), 0
    gradient = ops.ctc_loss_backward(*_folded("ctc_loss_backward", info, in_dims, args))
    return _unfolded(info, gradient, 1), 1


@torch.library.register_vmap("fastctc::ctc_loss_tangent")
def _(info: Any, in_dims: InDims, *args: Any) -> tuple[Tensor, int]:
    tangent = ops.ctc_loss_tangent(*_folded("ctc_loss_tangent", info, in_dims, args))
    return _unfolded(info, tangent, 0), 0


@torch.library.register_vmap("fastctc::forced_align")
def _(info: Any, in_dims: InDims, *args: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    _check_targets("forced_align", in_dims, args)
    results = ops.forced_align(*_folded("forced_align", info, in_dims, args))
    return tuple(_unfolded(info, result, 0) for result in results), (0, 0, 0)
