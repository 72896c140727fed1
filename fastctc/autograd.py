"""Derivatives of the loss: gradients, forward-mode AD, and the transforms of torch.func.

Under torch.compile, torch.export and torch.jit.trace the op itself is called, with the gradient registered in
fastctc.ops. In eager mode autograd functions call it: they cost less per call and support forward-mode AD.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

from fastctc import batching as batching  # registers the rules of vmap
from fastctc import ops
from fastctc.arguments import check_status, transforms_active, with_any_length
from fastctc.ops import LossArguments, SavedLoss
from fastctc.second_order import differentiable_second_derivative

__all__ = ["ctc_loss", "gradient", "in_forward_mode", "loss_tangent"]

# It skips the Python code of torch.library, which otherwise runs in each call of an op.
_below_autograd = torch._C._AutoDispatchBelowAutograd


def ctc_loss(arguments: LossArguments) -> Tensor:
    """Return the loss of each sample, (N), differentiable by `arguments.input`."""
    input = arguments.input
    need_grad = input.requires_grad and torch.is_grad_enabled()
    if torch.compiler.is_compiling():
        if _has_tangent(input):  # it would be lost silently
            raise NotImplementedError("torch.compile of fastctc.ctc_loss does not support forward-mode AD")
        if transforms_active() or torch.compiler.is_exporting():  # what is exported may be trained later
            need_grad = torch.is_grad_enabled()
        return ops.ctc_loss(*arguments, need_grad)[0]
    if torch._C._is_tracing():  # torch.jit.trace records ops, and no functions of autograd
        return ops.ctc_loss(*with_any_length(arguments), True)[0]
    if transforms_active():
        _refuse_nested_forward_mode()
        return _TransformedLoss.apply(*arguments)[0]
    if need_grad or _has_tangent(input):
        return _Loss.apply(input, arguments)
    with _below_autograd():
        loss, _, _, status = ops.ctc_loss(*arguments, False)
    check_status(status, arguments)
    return loss


def _refuse_nested_forward_mode() -> None:
    """Raise inside nested forward-mode AD: there PyTorch's autograd functions lose the outer tangent silently."""
    transforms = torch._C._functorch.get_interpreter_stack()
    if transforms and sum(each.key() == torch._C._functorch.TransformType.Jvp for each in transforms) > 1:
        raise NotImplementedError(
            "forward-mode AD of forward-mode AD of fastctc.ctc_loss: use jacfwd of jacrev"
        )


class _Loss(Function):
    """Compute the losses and keep inside what their gradient needs."""

    @staticmethod
    def forward(ctx: Any, _input: Tensor, arguments: LossArguments) -> Tensor:
        with _below_autograd():
            loss, occupancy, row_statistics, status = ops.ctc_loss(*arguments, True)
        check_status(status, arguments)
        _save(ctx, SavedLoss.of(arguments, occupancy, row_statistics, status))
        return loss

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor | None) -> tuple[Tensor | None, None]:
        if grad_loss is None:
            return None, None
        arguments = grad_loss, *ctx.saved_tensors, *ctx.options
        if torch.is_grad_enabled() or in_forward_mode():
            return _Gradient.apply(*arguments), None
        with _below_autograd():
            return ops.ctc_loss_backward(*arguments), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor | None, _: None) -> Tensor | None:
        return None if tangent is None else loss_tangent(_saved(ctx), tangent)


class _TransformedLoss(Function):
    """Compute all results of the op in the form that torch.func needs; fastctc.batching has the rules of vmap."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        return ops.ctc_loss(*arguments, True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _, occupancy, row_statistics, status = output
        ctx.mark_non_differentiable(occupancy, row_statistics, status)
        _save(ctx, SavedLoss.of(LossArguments(*inputs), occupancy, row_statistics, status))

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        grad = None
        if grad_loss is not None:
            grad = _Gradient.apply(grad_loss, *ctx.saved_tensors, *ctx.options)
        return ops.gradients(LossArguments._fields, input=grad)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        change = None if tangent is None else loss_tangent(_saved(ctx), tangent)
        return change, None, None, None


class _Gradient(Function):
    """Compute the gradient of the losses as a function of grad_loss and the fields of a SavedLoss.

    It is differentiable by grad_loss and by the input.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(grad_loss: Tensor, *saved: Any) -> Tensor:
        return ops.ctc_loss_backward(grad_loss, *saved)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        grad_loss, *fields = inputs
        _save(ctx, SavedLoss(*fields), grad_loss)

    @staticmethod
    def backward(ctx: Any, direction: Tensor | None) -> tuple[Tensor | None, ...]:
        by_grad_loss = by_input = None
        if direction is not None:
            grad_loss, *tensors = ctx.saved_tensors
            saved = SavedLoss(*tensors, *ctx.options)
            by_grad_loss, by_input = differentiable_second_derivative(direction, grad_loss, saved)
        return by_grad_loss, *ops.gradients(SavedLoss._fields, input=by_input)

    @staticmethod
    def jvp(ctx: Any, grad_loss_tangent: Tensor | None, input_tangent: Tensor | None, *_: None) -> Tensor:
        grad_loss, *tensors = ctx.saved_tensors
        saved = SavedLoss(*tensors, *ctx.options)
        terms = []
        if grad_loss_tangent is not None:
            terms.append(_Gradient.apply(grad_loss_tangent, *saved))
        if input_tangent is not None:  # the second derivative is symmetric
            change = differentiable_second_derivative(input_tangent, grad_loss, saved)[1]
            terms.append(change)
        return sum(terms[1:], terms[0])


def _save(ctx: Any, saved: SavedLoss, *first: Tensor) -> None:
    """Save the tensors in `first`, then the tensors of the loss. Keep the options."""
    tensors = first + saved.tensors
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)
    ctx.options = saved.options
    ctx.set_materialize_grads(False)


def in_forward_mode() -> bool:
    """Return True inside forward-mode AD."""
    return forward_ad._current_level >= 0


def _has_tangent(tensor: Tensor) -> bool:
    return in_forward_mode() and forward_ad.unpack_dual(tensor).tangent is not None


def _saved(ctx: Any) -> SavedLoss:
    return SavedLoss(*ctx.saved_tensors, *ctx.options)


def gradient(grad_losses: Tensor, saved: SavedLoss) -> Tensor:
    """Return the gradient of the input, differentiable by grad_losses, (N), and by the input."""
    found: Tensor = _Gradient.apply(grad_losses, *saved)
    return found


def loss_tangent(saved: SavedLoss, tangent: Tensor) -> Tensor:
    """Return gradient times tangent: the change of the losses, with no second pass over the lattice."""
    dtype = saved.occupancy.dtype
    ones = torch.ones(saved.input.shape[1], dtype=dtype, device=saved.input.device)
    factors = gradient(ones, saved).to(dtype)
    products = factors * tangent.to(dtype)
    return torch.where(factors == 0, 0, products).sum((0, 2))  # the tangent of unused frames may be anything
