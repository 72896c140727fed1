"""How the loss is differentiated and batched: gradients, forward-mode AD, and the transforms of torch.func.

Under torch.compile and torch.export the op itself is called, with the gradient registered in fastctc.ops. In eager
mode autograd functions stand around it: they cost less for each call, and they know forward-mode AD.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

from fastctc import batching as batching  # registers the rules of vmap
from fastctc import ops
from fastctc.arguments import LossArguments, check_status, transforms_active

__all__ = ["ctc_loss"]

# Without it every call of an op costs a detour through the Python of torch.library.
_below_autograd = torch._C._AutoDispatchBelowAutograd


def ctc_loss(arguments: LossArguments) -> Tensor:
    """The loss of each sample, (N), differentiable by `arguments.input`."""
    input = arguments.input
    need_grad = input.requires_grad and torch.is_grad_enabled()
    if torch.compiler.is_compiling():
        if _has_tangent(input):  # it would be lost without a word
            raise NotImplementedError("torch.compile of fastctc.ctc_loss knows no forward-mode AD")
        if transforms_active() or torch.compiler.is_exporting():  # what is exported may be trained later
            need_grad = torch.is_grad_enabled()
        return ops.ctc_loss(*arguments, need_grad)[0]
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
    """PyTorch has autograd functions lose, without a word, the outer of two tangents."""
    transforms = torch._C._functorch.get_interpreter_stack()
    if transforms and sum(each.key() == torch._C._functorch.TransformType.Jvp for each in transforms) > 1:
        raise NotImplementedError(
            "forward-mode AD of forward-mode AD of fastctc.ctc_loss: use jacfwd of jacrev"
        )


class _Loss(Function):
    """The losses; what their gradient needs stays inside."""

    @staticmethod
    def forward(ctx: Any, _input: Tensor, arguments: LossArguments) -> Tensor:
        with _below_autograd():
            loss, occupancy, row_statistics, status = ops.ctc_loss(*arguments, True)
        check_status(status, arguments)
        _save(ctx, arguments, occupancy, row_statistics, status)
        return loss

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor | None) -> tuple[Tensor | None, None]:
        if grad_loss is None:
            return None, None
        arguments = grad_loss, *ctx.saved_tensors, *ctx.options
        if torch.is_grad_enabled() or _has_tangent(grad_loss) or _has_tangent(arguments[1]):
            return _Gradient.apply(*arguments), None
        with _below_autograd():
            return ops.ctc_loss_backward(*arguments), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor | None, _: None) -> Tensor | None:
        return _loss_tangent(ctx, tangent)


class _TransformedLoss(Function):
    """All results of the op, in the form that torch.func wants; vmap comes from the rules in fastctc.batching."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        return ops.ctc_loss(*arguments, True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _, *results = output
        ctx.mark_non_differentiable(*results)
        _save(ctx, LossArguments(*inputs), *results)

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if grad_loss is None:
            return (None,) * 10
        return _Gradient.apply(grad_loss, *ctx.saved_tensors, *ctx.options), *[None] * 9

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        return _loss_tangent(ctx, tangent), None, None, None


class _Gradient(Function):
    """The gradient as a function of its own, of grad_loss and the input."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> Tensor:
        return ops.ctc_loss_backward(*arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:9])
        ctx.save_for_forward(*inputs[:9])
        ctx.options = inputs[9:]
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, direction: Tensor | None) -> tuple[Tensor | None, ...]:
        if direction is None:
            return (None,) * 13
        return *ops.SecondDerivative.apply(direction, *ctx.saved_tensors, *ctx.options), *[None] * 11

    @staticmethod
    def jvp(ctx: Any, grad_loss_tangent: Tensor | None, input_tangent: Tensor | None, *_: None) -> Tensor:
        grad_loss, *saved = ctx.saved_tensors
        terms = []
        if grad_loss_tangent is not None:
            terms.append(_Gradient.apply(grad_loss_tangent, *saved, *ctx.options))
        if input_tangent is not None:  # the second derivative is symmetric
            _, change = ops.SecondDerivative.apply(input_tangent, grad_loss, *saved, *ctx.options)
            terms.append(change)
        return sum(terms[1:], terms[0])


def _save(ctx: Any, arguments: LossArguments, *results: Tensor) -> None:
    tensors = (*arguments[:4], *results, arguments.class_bias)
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)
    ctx.options = arguments[6:]  # blank, star, delay_penalty, from_logits
    ctx.set_materialize_grads(False)


def _has_tangent(tensor: Tensor) -> bool:
    return forward_ad.unpack_dual(tensor).tangent is not None


def _loss_tangent(ctx: Any, tangent: Tensor | None) -> Tensor | None:
    """The change of the losses with the input: gradient times tangent, without another pass over the lattice."""
    if tangent is None:
        return None
    input, *_, occupancy, _, _, _ = saved = ctx.saved_tensors
    ones = torch.ones(input.shape[1], dtype=occupancy.dtype, device=input.device)
    gradient = _Gradient.apply(ones, *saved, *ctx.options).to(occupancy.dtype)
    products = gradient * tangent.to(occupancy.dtype)
    return torch.where(gradient == 0, 0, products).sum((0, 2))  # what is never read may have any tangent
