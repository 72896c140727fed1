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

__all__ = [
    "NAMES",
    "_C",
    "SecondDerivative",
    "beam_search",
    "beam_search_advance",
    "beam_search_result",
    "ctc_loss",
    "ctc_loss_backward",
    "ctc_loss_tangent",
    "greedy_decode",
    "second_derivative",
]

NAMES = (
    "beam_search",
    "beam_search_advance",
    "beam_search_result",
    "ctc_loss",
    "ctc_loss_backward",
    "ctc_loss_tangent",
    "greedy_decode",
)

OK, NOT_A_NUMBER, INVALID = 0, 2, 3  # of enum Status in csrc/math/lattice.h

Tensors4 = tuple[Tensor, Tensor, Tensor, Tensor]
Tensors5 = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]

ctc_loss: Callable[..., Tensors4] = torch.ops.fastctc.ctc_loss.default
ctc_loss_backward: Callable[..., Tensor] = torch.ops.fastctc.ctc_loss_backward.default
ctc_loss_tangent: Callable[..., Tensor] = torch.ops.fastctc.ctc_loss_tangent.default
greedy_decode: Callable[..., Tensors5] = torch.ops.fastctc.greedy_decode.default
beam_search: Callable[..., Tensors5] = torch.ops.fastctc.beam_search.default
beam_search_advance: Callable[..., None] = torch.ops.fastctc.beam_search_advance.default
beam_search_result: Callable[..., Tensors5] = torch.ops.fastctc.beam_search_result.default


def _scalar_type(dtype: torch.dtype) -> torch.dtype:
    """The type of losses, occupancies and scores: float64 for float64, float32 for everything else."""
    return torch.float64 if dtype == torch.float64 else torch.float32


# ---- ctc_loss: (input (T, N, C), ...) -> loss (N), occupancy (N, T, S), row_statistics (3 or 1, N, T), status
# (N)


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
        input.new_empty((batch, frames if need_grad else 0, torch.sym_min(max_length, frames)), dtype=dtype),
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
    class_bias: Tensor | None,
    blank: int,
    star: int,
    delay_penalty: float,
    from_logits: bool,
) -> Tensor:
    return torch.empty_like(input)


@torch.library.register_fake("fastctc::ctc_loss_tangent")
def _(
    input: Tensor,
    tangent: Tensor,
    targets: Tensor,
    input_lengths: Tensor,
    target_lengths: Tensor,
    class_bias: Tensor | None,
    max_length: int,
    blank: int,
    star: int,
    delay_penalty: float,
    from_logits: bool,
) -> Tensor:
    frames, batch, _ = input.shape
    return input.new_empty(
        (batch, frames, torch.sym_min(max_length, frames)), dtype=_scalar_type(input.dtype)
    )


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    input, targets, input_lengths, target_lengths, class_bias, _, *options, need_grad = inputs
    _, occupancy, row_statistics, status = output
    ctx.save_for_backward(
        input, targets, input_lengths, target_lengths, occupancy, row_statistics, status, class_bias
    )
    ctx.options = options  # blank, star, delay_penalty, from_logits
    ctx.has_occupancy = need_grad
    ctx.mark_non_differentiable(occupancy, row_statistics, status)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_loss: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    grad = None
    if not ctx.has_occupancy:
        raise RuntimeError("fastctc::ctc_loss was called with need_grad=False: it cannot be differentiated")
    if grad_loss is not None:
        grad = ctc_loss_backward(grad_loss, *ctx.saved_tensors, *ctx.options)
    return (grad, *[None] * 10)


def second_derivative(
    direction: Tensor,
    grad_loss: Tensor,
    input: Tensor,
    targets: Tensor,
    input_lengths: Tensor,
    target_lengths: Tensor,
    occupancy: Tensor,
    row_statistics: Tensor,
    status: Tensor,
    class_bias: Tensor | None,
    blank: int,
    star: int,
    delay_penalty: float,
    from_logits: bool,
) -> tuple[Tensor, Tensor]:
    """The gradients of <direction, ctc_loss_backward(grad_loss, input, ...)> by grad_loss (N) and input (T, N, C).

    The second is also what ctc_loss_backward moves by as the input moves by `direction` (T, N, C).

    Along a direction of the log-probabilities, their gradient -gamma moves by -gamma', the derivatives of the
    occupancies, which are summed over the labels of a class like the occupancies themselves. For logits comes
    the chain rule of the log-softmax, which moves by direction - <softmax, direction>.
    """
    num_frames, _, num_classes = input.shape
    dtype, device = grad_loss.dtype, input.device
    used = (torch.arange(num_frames, device=device)[:, None] < input_lengths) & (status == OK)
    used = used[:, :, None]
    direction = torch.where(used, direction.to(dtype), 0.0)
    along = direction
    if from_logits:
        softmax = torch.where(used, input.to(dtype), 0.0).softmax(2)
        along = direction - (softmax * direction).sum(2, keepdim=True)

    labels = targets, input_lengths, target_lengths
    tangent = ctc_loss_tangent(
        input, along, *labels, class_bias, occupancy.shape[2], blank, star, delay_penalty, from_logits
    )

    def minus_classes(of_labels: Tensor) -> Tensor:
        """-gamma (T, N, C) of occupancies (N, T, S): the gradient with respect to log-probabilities."""
        saved = of_labels, row_statistics, status, class_bias
        ones = torch.ones_like(grad_loss)
        return ctc_loss_backward(ones, input.to(dtype), *labels, *saved, blank, star, delay_penalty, False)

    first, second = minus_classes(occupancy), minus_classes(tangent)
    # The blank has what the labels leave of 1: of its derivative, 0.
    is_blank = torch.arange(num_classes, device=device) == blank
    second = torch.where(used & is_blank, tangent.sum(2).t()[:, :, None], second)
    if from_logits:
        total = first.sum(2, keepdim=True)  # -1, but for stars
        first = first - softmax * total
        second = second - softmax * (second.sum(2, keepdim=True) + total * along)
    second = torch.where(used, grad_loss[:, None] * second, second)
    return (direction * first).sum((0, 2)), second.to(input.dtype)


class SecondDerivative(torch.autograd.Function):
    """second_derivative, which has no derivative itself."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, Tensor]:
        """As second_derivative."""
        return second_derivative(*arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Saves nothing."""

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[None, ...]:
        """Raises."""
        return _no_third_derivative(ctx)


def _save_for_double_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:9])
    ctx.options = inputs[9:]  # blank, star, delay_penalty, from_logits


def _double_backward(ctx: Any, direction: Tensor) -> tuple[Tensor | None, ...]:
    grads = SecondDerivative.apply(direction, *ctx.saved_tensors, *ctx.options)
    return (*grads, *[None] * 11)


def _no_third_derivative(ctx: Any, *_: Tensor | None) -> tuple[None, ...]:
    raise NotImplementedError("fastctc.ctc_loss has no third derivative")


torch.library.register_autograd("fastctc::ctc_loss", _backward, setup_context=_save_for_backward)
torch.library.register_autograd(
    "fastctc::ctc_loss_backward", _double_backward, setup_context=_save_for_double_backward
)
torch.library.register_autograd("fastctc::ctc_loss_tangent", _no_third_derivative)


# ---- decoders: -> tokens (..., T), lengths (...), scores (...), timesteps (..., T), confidences (..., T)


def _decoded(place: Tensor, leading: tuple[int, ...], frames: int, scalar: torch.dtype) -> Tensors5:
    return (
        place.new_empty((*leading, frames), dtype=torch.int64),
        place.new_empty(leading, dtype=torch.int64),
        place.new_empty(leading, dtype=scalar),
        place.new_empty((*leading, frames), dtype=torch.int64),
        place.new_empty((*leading, frames), dtype=scalar),
    )


@torch.library.register_fake("fastctc::greedy_decode")
def _(input: Tensor, input_lengths: Tensor, blank: int, from_logits: bool) -> Tensors5:
    batch, frames, _ = input.shape
    return _decoded(input, (batch,), frames, _scalar_type(input.dtype))


@torch.library.register_fake("fastctc::beam_search")
def _(
    input: Tensor,
    input_lengths: Tensor,
    beam_size: int,
    nbest: int,
    blank: int,
    from_logits: bool,
    beam_threshold: float,
    token_threshold: float,
    blank_skip: float,
) -> Tensors5:
    batch, frames, _ = input.shape
    return _decoded(input, (batch, nbest), frames, _scalar_type(input.dtype))


# input (N, T, C); state (N, _C.beam_state_bytes(beam_size)) uint8, zeros before the first frame; arena (N,
# capacity, 4) int32 with capacity at least beam_size for each frame since. Both belong to the kernels that
# wrote them.
@torch.library.register_fake("fastctc::beam_search_advance")
def _(
    input: Tensor,
    input_lengths: Tensor,
    state: Tensor,
    arena: Tensor,
    beam_size: int,
    blank: int,
    from_logits: bool,
    beam_threshold: float,
    token_threshold: float,
    blank_skip: float,
) -> None:
    return None


@torch.library.register_fake("fastctc::beam_search_result")
def _(state: Tensor, arena: Tensor, beam_size: int, nbest: int, max_length: int, float64: bool) -> Tensors5:
    scalar = torch.float64 if float64 else torch.float32
    return _decoded(state, (state.shape[0], nbest), max_length, scalar)
