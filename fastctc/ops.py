"""The compiled ops, ``torch.ops.fastctc.*``: their handles, shape functions and gradients.

Users call the functions of :mod:`fastctc`; this module is the one place that knows the ops' signatures.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

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
    "ARGUMENTS",
    "NAMES",
    "_C",
    "LossArguments",
    "SavedLoss",
    "SecondDerivative",
    "beam_search",
    "beam_search_advance",
    "beam_search_result",
    "ctc_loss",
    "ctc_loss_backward",
    "ctc_loss_tangent",
    "forced_align",
    "gradients",
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
    "forced_align",
    "greedy_decode",
)

OK, NOT_A_NUMBER, INVALID = 0, 2, 3  # of enum Status in csrc/math/lattice.h

Tensors4 = tuple[Tensor, Tensor, Tensor, Tensor]
Tensors5 = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]

ctc_loss: Callable[..., Tensors4] = torch.ops.fastctc.ctc_loss.default
ctc_loss_backward: Callable[..., Tensor] = torch.ops.fastctc.ctc_loss_backward.default
ctc_loss_tangent: Callable[..., Tensor] = torch.ops.fastctc.ctc_loss_tangent.default
forced_align: Callable[..., tuple[Tensor, Tensor, Tensor]] = torch.ops.fastctc.forced_align.default
greedy_decode: Callable[..., Tensors5] = torch.ops.fastctc.greedy_decode.default
beam_search: Callable[..., Tensors5] = torch.ops.fastctc.beam_search.default
beam_search_advance: Callable[..., None] = torch.ops.fastctc.beam_search_advance.default
beam_search_result: Callable[..., Tensors5] = torch.ops.fastctc.beam_search_result.default


#: The names of the arguments of each op, in the order of its schema.
ARGUMENTS: dict[str, tuple[str, ...]] = {
    name: tuple(each.name for each in getattr(torch.ops.fastctc, name).default._schema.arguments)
    for name in NAMES
}


class LossArguments(NamedTuple):
    """Hold the arguments of ctc_loss in the order of its schema, without need_grad, which is the last."""

    input: Tensor  # (T, N, C)
    targets: Tensor  # (N, S) or (sum of target_lengths), int64 like the lengths
    input_lengths: Tensor  # (N)
    target_lengths: Tensor  # (N)
    class_bias: Tensor | None  # (C), added to the log-probabilities
    max_length: int  # no target is longer
    blank: int
    star: int  # -1: none
    delay_penalty: float
    from_logits: bool


class SavedLoss(NamedTuple):
    """Hold what the derivatives of a loss need.

    The fields are the arguments of ctc_loss_backward in the order of its schema, without grad_loss, which is the
    first.
    """

    input: Tensor  # (T, N, C)
    targets: Tensor  # (N, S) or (sum of target_lengths)
    input_lengths: Tensor  # (N)
    target_lengths: Tensor  # (N)
    occupancy: Tensor  # (N, T, max_length)
    row_statistics: Tensor  # (3 or 1, N, T)
    status: Tensor  # (N)
    class_bias: Tensor | None  # (C)
    blank: int
    star: int
    delay_penalty: float
    from_logits: bool

    @classmethod
    def of(
        cls, arguments: LossArguments, occupancy: Tensor, row_statistics: Tensor, status: Tensor
    ) -> "SavedLoss":
        """Combine the arguments of a loss with its results."""
        return cls(
            arguments.input,
            arguments.targets,
            arguments.input_lengths,
            arguments.target_lengths,
            occupancy,
            row_statistics,
            status,
            arguments.class_bias,
            arguments.blank,
            arguments.star,
            arguments.delay_penalty,
            arguments.from_logits,
        )

    @property
    def tensors(self) -> tuple[Any, ...]:
        """Return the fields that an autograd context saves as tensors: all before the options."""
        return self[:_FIRST_OPTION]

    @property
    def options(self) -> tuple[Any, ...]:
        """Return blank, star, delay_penalty and from_logits."""
        return self[_FIRST_OPTION:]


_FIRST_OPTION = SavedLoss._fields.index("blank")


def gradients(names: tuple[str, ...], **known: Tensor | None) -> tuple[Tensor | None, ...]:
    """Return one gradient per argument: those given by name, None for the others."""
    return tuple(known.get(name) for name in names)


def _scalar_type(dtype: torch.dtype) -> torch.dtype:
    """Return the type of losses, occupancies and scores: float64 for float64, float32 for all others."""
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
    *arguments, need_grad = inputs
    _, occupancy, row_statistics, status = output
    saved = SavedLoss.of(LossArguments(*arguments), occupancy, row_statistics, status)
    ctx.save_for_backward(*saved.tensors)
    ctx.options = saved.options
    ctx.has_occupancy = need_grad
    ctx.mark_non_differentiable(occupancy, row_statistics, status)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_loss: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    grad = None
    if not ctx.has_occupancy:
        raise RuntimeError("fastctc::ctc_loss was called with need_grad=False: it cannot be differentiated")
    if grad_loss is not None:
        grad = ctc_loss_backward(grad_loss, *ctx.saved_tensors, *ctx.options)
    return gradients(ARGUMENTS["ctc_loss"], input=grad)


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
    is_blank = torch.arange(num_classes, device=device) == blank
    second = torch.where(used & is_blank, tangent.sum(2).t()[:, :, None], second)
    if saved.from_logits:
        total = first.sum(2, keepdim=True)  # -1, or more where a star covers the frame
        first = first - softmax * total
        second = second - softmax * (second.sum(2, keepdim=True) + total * along)
    second = torch.where(used, grad_loss[:, None] * second, second)
    return (direction * first).sum((0, 2)), second.to(input.dtype)


class SecondDerivative(torch.autograd.Function):
    """Call second_derivative with the fields of the SavedLoss one by one. It has no derivative itself."""

    generate_vmap_rule = True

    @staticmethod
    def forward(direction: Tensor, grad_loss: Tensor, *saved: Any) -> tuple[Tensor, Tensor]:
        """Return the results of second_derivative."""
        return second_derivative(direction, grad_loss, SavedLoss(*saved))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Save nothing."""

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[None, ...]:
        """Raise NotImplementedError."""
        return _no_third_derivative(ctx)


def _save_for_double_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad_loss, *fields = inputs
    saved = SavedLoss(*fields)
    ctx.save_for_backward(grad_loss, *saved.tensors)
    ctx.options = saved.options


def _double_backward(ctx: Any, direction: Tensor) -> tuple[Tensor | None, ...]:
    by_grad_loss, by_input = SecondDerivative.apply(direction, *ctx.saved_tensors, *ctx.options)
    return gradients(ARGUMENTS["ctc_loss_backward"], grad_loss=by_grad_loss, input=by_input)


def _no_third_derivative(ctx: Any, *_: Tensor | None) -> tuple[None, ...]:
    raise NotImplementedError("fastctc.ctc_loss has no third derivative")


torch.library.register_autograd("fastctc::ctc_loss", _backward, setup_context=_save_for_backward)
torch.library.register_autograd(
    "fastctc::ctc_loss_backward", _double_backward, setup_context=_save_for_double_backward
)
torch.library.register_autograd("fastctc::ctc_loss_tangent", _no_third_derivative)


# ---- forced_align: (input (T, N, C), ...) -> paths (N, T), scores (N, T), status (N)


@torch.library.register_fake("fastctc::forced_align")
def _(
    input: Tensor,
    targets: Tensor,
    input_lengths: Tensor,
    target_lengths: Tensor,
    max_length: int,
    blank: int,
    star: int,
    from_logits: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    frames, batch, _ = input.shape
    return (
        input.new_empty((batch, frames), dtype=torch.int64),
        input.new_empty((batch, frames), dtype=_scalar_type(input.dtype)),
        input.new_empty(batch, dtype=torch.int32),
    )


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
