"""The loss on the CPU in eager mode without PyTorch's dispatcher: see fastctc.direct.

One call computes the losses and their reduction, and one autograd function differentiates both.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from fastctc import direct, ops
from fastctc.arguments import ANY_LENGTH
from fastctc.autograd import gradient, in_forward_mode, loss_tangent
from fastctc.ops import LossArguments, SavedLoss
from fastctc.reduction import REDUCTIONS, gradient_of_losses, reduced

__all__ = ["direct_loss", "plain_loss"]

_FIRST_OPTION = LossArguments._fields.index("blank")  # max_length is not needed after the forward pass


def plain_loss(
    tensors: tuple[Any, ...], blank: Any, reduction: str, zero_infinity: bool, from_logits: bool
) -> Tensor | None:
    """Return the loss for the most frequent kind of arguments, which nobody has checked yet.

    These are padded targets of int64 on the CPU, lengths of the same type or lists of ints, and no options. For
    other arguments and for wrong ones the result is None.
    """
    log_probs, targets, *lengths = tensors
    given = tensors if type(lengths[0]) is Tensor else tensors[:2]
    if not direct.applies(*given) or type(blank) is not int or reduction not in REDUCTIONS:
        return None
    if log_probs.dim() != 3 or targets.dim() != 2:
        return None
    arguments = LossArguments(
        log_probs, targets, lengths[0], lengths[1], None, ANY_LENGTH, blank, -1, 0.0, bool(from_logits)
    )
    try:
        return _loss(arguments, reduction, bool(zero_infinity))
    except (RuntimeError, TypeError, ValueError):
        return None


def _loss(arguments: LossArguments, reduction: str, zero_infinity: bool) -> Tensor:
    """Return the reduced loss, (N) or a scalar, for arguments to which fastctc.direct applies."""
    input = arguments.input
    if (input.requires_grad and torch.is_grad_enabled()) or in_forward_mode():
        return _apply(input, arguments, reduction, zero_infinity)
    return _results(arguments, False, reduction, zero_infinity)[0]


direct_loss: Callable[[LossArguments, str, bool], Tensor] = ops.raising(_loss)


def _results(arguments: LossArguments, need_grad: bool, reduction: str, zero_infinity: bool) -> list[Tensor]:
    """Return the reduced loss and, with need_grad, a block with what the gradient needs."""
    options = *arguments[5:], need_grad, REDUCTIONS.index(reduction), zero_infinity
    if type(arguments.input_lengths) is Tensor:
        return direct.call(ops._C.ctc_loss, arguments.tensors, (None, *options))
    return direct.call(ops._C.ctc_loss, arguments[:2], (arguments[2:4], *options))


class _DirectLoss(Function):
    @staticmethod
    def forward(
        ctx: Any, _input: Tensor, arguments: LossArguments, reduction: str, zero_infinity: bool
    ) -> Tensor:
        loss, block = _results(arguments, True, reduction, zero_infinity)
        lengths = arguments[2:4]
        ctx.lengths = None if type(lengths[0]) is Tensor else tuple(map(tuple, lengths))
        saved = *arguments[: 4 if ctx.lengths is None else 2], block, arguments.class_bias
        ctx.save_for_backward(*saved)
        if in_forward_mode():
            ctx.save_for_forward(*saved)
        ctx.options = arguments[_FIRST_OPTION:]
        ctx.reduction = reduction
        ctx.set_materialize_grads(False)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, None, None, None]:
        if grad is None:
            return None, None, None, None
        *tensors, _ = ctx.saved_tensors
        if torch.is_grad_enabled() or in_forward_mode() or not direct.applies(grad, tensors[0]):
            saved = _saved(ctx)
            grad_losses = gradient_of_losses(grad, saved.target_lengths, ctx.reduction)
            return gradient(grad_losses, saved), None, None, None
        blank, star, _, from_logits = ctx.options
        options = ctx.lengths, blank, star, from_logits, REDUCTIONS.index(ctx.reduction)
        return direct.call(ops._C.ctc_loss_backward, (grad, *tensors), options)[0], None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor | None, *_: None) -> Tensor | None:
        if tangent is None:
            return None
        saved = _saved(ctx)
        return reduced(loss_tangent(saved, tangent), saved.target_lengths, ctx.reduction, False)


# Function.apply looks for transforms first, which direct.applies has done.
_apply: Callable[..., Tensor] = super(Function, _DirectLoss).apply


def _saved(ctx: Any) -> SavedLoss:
    """Return the parts of the block and all else that the derivatives need; see Block in reduced_loss.cpp."""
    input, targets, *lengths, block, class_bias = ctx.saved_tensors
    input_lengths, target_lengths = lengths or [torch.tensor(x, dtype=torch.int64) for x in ctx.lengths]
    frames, batch, _ = input.shape
    planes = 3 if ctx.options[-1] else 1
    rows = frames * batch
    columns = (block.shape[0] - batch) // rows - planes if rows else 0
    occupancy, row_statistics, status = block.split([rows * columns, rows * planes, batch])
    return SavedLoss(
        input,
        targets,
        input_lengths,
        target_lengths,
        occupancy.view(batch, frames, columns),
        row_statistics.view(planes, batch, frames),
        status.view(torch.int32)[:batch],
        class_bias,
        *ctx.options,
    )
