"""The compiled ops, ``torch.ops.fastctc.*``: their handles, shape functions and gradients.

Users call the functions of :mod:`fastctc`; this module is the one place that knows the ops' signatures.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

try:
    from fastctc import _C
except ImportError as error:
    raise ImportError(
        f"fastctc's compiled extension cannot be loaded ({error}). If you are in a checkout of fastctc, install "
        "it first (pip install .) and run Python from another folder."
    ) from error

__all__ = ["NAMES", "_C", "ctc_loss", "ctc_loss_backward", "greedy_decode"]

NAMES = ("ctc_loss", "ctc_loss_backward", "greedy_decode")

Tensors4 = tuple[Tensor, Tensor, Tensor, Tensor]

ctc_loss: Callable[..., Tensors4] = torch.ops.fastctc.ctc_loss.default
ctc_loss_backward: Callable[..., Tensor] = torch.ops.fastctc.ctc_loss_backward.default
greedy_decode: Callable[..., Tensors4] = torch.ops.fastctc.greedy_decode.default


def _scalar_type(dtype: torch.dtype) -> torch.dtype:
    """The type of losses, occupancies and scores: float64 for float64, float32 for everything else."""
    return torch.float64 if dtype == torch.float64 else torch.float32


# ---- ctc_loss: (input (T, N, C), ...) -> loss (N), occupancy (N, T, S), row_statistics (3 or 1, N, T), status (N)


@torch.library.register_fake("fastctc::ctc_loss")
def _(
    input: Tensor,
    targets: Tensor,
    input_lengths: Tensor,
    target_lengths: Tensor,
    class_bias: Tensor | None,
    max_length: int,
    blank: int,
    star: int,
    delay_penalty: float,
    from_logits: bool,
    need_grad: bool,
) -> Tensors4:
    frames, batch, _ = input.shape
    dtype = _scalar_type(input.dtype)
    return (
        input.new_empty(batch, dtype=dtype),
        input.new_empty((batch, frames if need_grad else 0, min(max_length, frames)), dtype=dtype),
        input.new_empty((3 if from_logits else 1, batch, frames), dtype=dtype),
        input.new_empty(batch, dtype=torch.int32),
    )


@torch.library.register_fake("fastctc::ctc_loss_backward")
def _(
    grad_loss: Tensor,
    input: Tensor,
    targets: Tensor,
    input_lengths: Tensor,
    target_lengths: Tensor,
    occupancy: Tensor,
    row_statistics: Tensor,
    status: Tensor,
    blank: int,
    star: int,
    from_logits: bool,
) -> Tensor:
    return torch.empty_like(input)


def _save_for_loss_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    input, targets, input_lengths, target_lengths, _, _, blank, star, _, from_logits, _ = inputs
    _, occupancy, row_statistics, status = output
    ctx.save_for_backward(
        input, targets, input_lengths, target_lengths, occupancy, row_statistics, status
    )
    ctx.options = blank, star, from_logits
    ctx.mark_non_differentiable(occupancy, row_statistics, status)
    ctx.set_materialize_grads(False)


def _loss_backward(ctx: Any, grad_loss: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    grad = None
    if grad_loss is not None:
        grad = ctc_loss_backward(grad_loss, *ctx.saved_tensors, *ctx.options)
    return (grad, *[None] * 10)


def _no_double_backward(ctx: Any, *_: Tensor | None) -> tuple[None, ...]:
    raise NotImplementedError("fastctc.ctc_loss has no second derivative yet")


torch.library.register_autograd("fastctc::ctc_loss", _loss_backward, setup_context=_save_for_loss_backward)
torch.library.register_autograd("fastctc::ctc_loss_backward", _no_double_backward)


# ---- greedy_decode: (input (N, T, C), ...) -> tokens (N, T), lengths (N), scores (N), timesteps (N, T)


@torch.library.register_fake("fastctc::greedy_decode")
def _(input: Tensor, input_lengths: Tensor, blank: int, from_logits: bool) -> Tensors4:
    batch, frames, _ = input.shape
    return (
        input.new_empty((batch, frames), dtype=torch.int64),
        input.new_empty(batch, dtype=torch.int64),
        input.new_empty(batch, dtype=_scalar_type(input.dtype)),
        input.new_empty((batch, frames), dtype=torch.int64),
    )
