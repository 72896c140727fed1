"""Second derivatives of the loss, for a second backward pass, Hessians and forward-mode AD of a gradient."""

from typing import Any, NoReturn

import torch
from torch import Tensor

from fastctc.ops import (
    ARGUMENTS,
    OK,
    SavedLoss,
    ctc_loss_backward,
    ctc_loss_tangent,
    gradients,
)

__all__ = ["differentiable_second_derivative", "second_derivative"]


def second_derivative(direction: Tensor, grad_loss: Tensor, saved: SavedLoss) -> tuple[Tensor, Tensor]:
    """Compute the gradients of <direction, ctc_loss_backward(grad_loss, *saved)>.

    Returns the gradient with respect to grad_loss, (N), and the one with respect to the input, (T, N, C). The
    second is also the change of ctc_loss_backward when the input moves by `direction`, (T, N, C).

    When the log-probabilities move by `direction`, their gradient -gamma moves by -gamma'. gamma' are the
    derivatives of the occupancies; the derivatives of the labels of one class are added up, like the occupancies.
    For logits the chain rule of the log-softmax follows: it moves by direction - <softmax, direction>.
    """
    input, status, blank = saved.input, saved.status, saved.blank
    num_frames, _, num_classes = input.shape
    dtype, device = grad_loss.dtype, input.device
    used = (torch.arange(num_frames, device=device)[:, None] < saved.input_lengths) & (status == OK)
    used = used[:, :, None]
    direction = torch.where(used, direction.to(dtype), 0.0)
    along = direction
    if saved.from_logits:
        softmax = torch.where(used, input.to(dtype), 0.0).softmax(2)
        along = direction - (softmax * direction).sum(2, keepdim=True)

    tangent = ctc_loss_tangent(
        input,
        along,
        saved.targets,
        saved.input_lengths,
        saved.target_lengths,
        saved.class_bias,
        saved.occupancy.shape[2],  # max_length
        blank,
        saved.star,
        saved.delay_penalty,
        saved.from_logits,
    )
    of_log_probs = saved._replace(input=input.to(dtype), from_logits=False)
    ones = torch.ones_like(grad_loss)
    first = ctc_loss_backward(ones, *of_log_probs)  # -gamma, (T, N, C)
    second = ctc_loss_backward(ones, *of_log_probs._replace(occupancy=tangent))  # -gamma'
    # The occupancies of a frame sum to 1, so gamma' of the blank is minus the sum of the others.
    of_others = torch.where(_equal_the_blank(saved)[:, None], 0.0, tangent).sum(2)
    is_blank = torch.arange(num_classes, device=device) == blank
    second = torch.where(used & is_blank, of_others.t()[:, :, None], second)
    if saved.from_logits:
        total = first.sum(2, keepdim=True)  # -1, or more where a star covers the frame
        first = first - softmax * total
        second = second - softmax * (second.sum(2, keepdim=True) + total * along)
    second = torch.where(used, grad_loss[:, None] * second, second)
    return (direction * first).sum((0, 2)), second.to(input.dtype)


def _equal_the_blank(saved: SavedLoss) -> Tensor:
    """Return which labels are equal to the blank, (N, S); what is beyond a target may be anything."""
    targets, columns = saved.targets, saved.occupancy.shape[2]
    if targets.dim() == 2:
        return targets[:, :columns] == saved.blank
    padded = torch.nn.functional.pad(targets, (0, columns + 1))
    offsets = saved.target_lengths.cumsum(0) - saved.target_lengths
    places = offsets[:, None] + torch.arange(columns, device=targets.device)
    return padded[places.clamp(0, padded.shape[0] - 1)] == saved.blank


def differentiable_second_derivative(
    direction: Tensor, grad_loss: Tensor, saved: SavedLoss
) -> tuple[Tensor, Tensor]:
    """Compute second_derivative, differentiable by the direction and by grad_loss.

    Both results are linear in the direction, and the second is linear in grad_loss. Its derivative by the input
    would be the third derivative of the loss. Where that is asked for, NotImplementedError is raised.
    """
    results: tuple[Tensor, Tensor] = _SecondDerivative.apply(
        direction, grad_loss, _NoThirdDerivative.apply(saved.input), *saved
    )
    return results


class _NoThirdDerivative(torch.autograd.Function):
    """Return the input as it is, and raise NotImplementedError where it is differentiated."""

    generate_vmap_rule = True

    @staticmethod
    def forward(input: Tensor) -> Tensor:
        return input.view_as(input)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> None:
        if grad is not None:
            _no_third_derivative(ctx)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor | None) -> None:
        _no_third_derivative(ctx)


class _SecondDerivative(torch.autograd.Function):
    """Compute second_derivative from the fields of a SavedLoss.

    The second result gets its derivative by the input through `guard`, a copy of the input from _NoThirdDerivative.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(direction: Tensor, grad_loss: Tensor, guard: Tensor, *saved: Any) -> tuple[Tensor, Tensor]:
        return second_derivative(direction, grad_loss, SavedLoss(*saved))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        direction, grad_loss, _, *fields = inputs
        saved = SavedLoss(*fields)
        ctx.save_for_backward(direction, grad_loss, *saved.tensors)
        ctx.save_for_forward(direction, grad_loss, *saved.tensors)
        ctx.options = saved.options
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, of_grad_loss: Tensor | None, of_input: Tensor | None) -> tuple[Tensor | None, ...]:
        direction, grad_loss, *tensors = ctx.saved_tensors
        saved = SavedLoss(*tensors, *ctx.options)
        by_direction: list[Tensor] = []
        by_grad_loss = by_guard = by_input = None
        if of_grad_loss is not None:
            by_direction.append(ctc_loss_backward(of_grad_loss, *saved))
            by_input = differentiable_second_derivative(direction, of_grad_loss, saved)[1]
        if of_input is not None:
            by_direction.append(differentiable_second_derivative(of_input, grad_loss, saved)[1])
            ones = torch.ones_like(grad_loss)
            product = differentiable_second_derivative(direction, ones, saved)[1]
            by_grad_loss = (product * of_input).to(grad_loss.dtype).sum((0, 2))
            by_guard = of_input
        total = sum(by_direction[1:], by_direction[0]) if by_direction else None
        return total, by_grad_loss, by_guard, *gradients(SavedLoss._fields, input=by_input)

    @staticmethod
    def jvp(
        ctx: Any, of_direction: Tensor | None, of_grad_loss: Tensor | None, *others: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        direction, grad_loss, *tensors = ctx.saved_tensors
        saved = SavedLoss(*tensors, *ctx.options)
        if others[1] is not None:  # of the input
            _no_third_derivative(ctx)
        by_grad_loss, by_input = torch.zeros_like(grad_loss), torch.zeros_like(saved.input)
        if of_direction is not None:
            by_grad_loss, by_input = differentiable_second_derivative(of_direction, grad_loss, saved)
        if of_grad_loss is not None:
            by_input = by_input + differentiable_second_derivative(direction, of_grad_loss, saved)[1]
        return by_grad_loss, by_input


def _save_for_double_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad_loss, *fields = inputs
    saved = SavedLoss(*fields)
    ctx.save_for_backward(grad_loss, *saved.tensors)
    ctx.options = saved.options


def _double_backward(ctx: Any, direction: Tensor) -> tuple[Tensor | None, ...]:
    grad_loss, *tensors = ctx.saved_tensors
    saved = SavedLoss(*tensors, *ctx.options)
    by_grad_loss, by_input = differentiable_second_derivative(direction, grad_loss, saved)
    return gradients(ARGUMENTS["ctc_loss_backward"], grad_loss=by_grad_loss, input=by_input)


def _no_third_derivative(ctx: Any, *_: Tensor | None) -> NoReturn:
    raise NotImplementedError("fastctc.ctc_loss has no third derivative")


torch.library.register_autograd(
    "fastctc::ctc_loss_backward", _double_backward, setup_context=_save_for_double_backward
)
torch.library.register_autograd("fastctc::ctc_loss_tangent", _no_third_derivative)
