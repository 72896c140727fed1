"""The compiled ops, ``torch.ops.fastctc.*``: their handles, shape functions and gradients.

Users call the functions of :mod:`fastctc`. No other module depends on the signatures of the ops.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastctc import direct
from fastctc.errors import ArgumentValueError

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
    "beam_search",
    "beam_search_advance",
    "beam_search_result",
    "ctc_loss",
    "ctc_loss_backward",
    "ctc_loss_tangent",
    "forced_align",
    "gradients",
    "greedy_decode",
    "raising",
    "scored_search",
    "scored_search_advance",
    "scored_search_result",
]

NAMES = (
    "beam_search",
    "beam_search_advance",
    "beam_search_result",
    "convolution",
    "convolution_weights",
    "ctc_loss",
    "ctc_loss_backward",
    "ctc_loss_tangent",
    "forced_align",
    "greedy_decode",
    "normalization",
    "normalization_grad",
    "pack_convolution",
    "scored_search",
    "scored_search_advance",
    "scored_search_result",
)

OK, NOT_A_NUMBER, INVALID = 0, 2, 3  # of enum Status in csrc/math/lattice.h

Tensors4 = tuple[Tensor, Tensor, Tensor, Tensor]
Tensors8 = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
Tensors9 = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def raising(op: Callable[..., Any]) -> Callable[..., Any]:
    """Return an op as a function that raises what the public functions promise.

    The op itself raises a plain ValueError, and a RuntimeError where memory is lacking.
    """

    def call(*arguments: Any) -> Any:
        try:
            return op(*arguments)
        except ValueError as error:
            raise ArgumentValueError(str(error)) from None
        except MemoryError:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory") from None
        except RuntimeError as error:
            if str(error).startswith("CUDA out of memory") and not isinstance(error, torch.OutOfMemoryError):
                raise torch.OutOfMemoryError(str(error)) from None
            raise

    return call


def _callable(name: str, tensors: int = 0) -> Callable[..., Any]:
    """Return the op as a function.

    If its first arguments are this many tensors, and it has no others, it is called directly where it can be.
    """
    op = getattr(torch.ops.fastctc, name).default
    if tensors == 0:
        return raising(op)
    function = getattr(_C, name)

    def call(*arguments: Any) -> Any:
        leading = arguments[:tensors]
        if direct.applies(*leading):
            return direct.call(function, leading, arguments[tensors:])
        return op(*arguments)

    return raising(call)


ctc_loss: Callable[..., Tensors4] = _callable("ctc_loss")
ctc_loss_backward: Callable[..., Tensor] = _callable("ctc_loss_backward")
ctc_loss_tangent: Callable[..., Tensor] = _callable("ctc_loss_tangent")
forced_align: Callable[..., tuple[Tensor, Tensor, Tensor]] = _callable("forced_align", 4)
greedy_decode: Callable[..., Tensors8] = _callable("greedy_decode", 2)
beam_search: Callable[..., Tensors9] = _callable("beam_search", 2)
beam_search_advance: Callable[..., None] = _callable("beam_search_advance")
beam_search_result: Callable[..., Tensors9] = _callable("beam_search_result")
scored_search: Callable[..., tuple[Tensor, ...]] = _callable("scored_search")
scored_search_advance: Callable[..., None] = _callable("scored_search_advance")
scored_search_result: Callable[..., tuple[Tensor, ...]] = _callable("scored_search_result")


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
    max_length: int  # no target is longer; at most the size of targets is used
    blank: int
    star: int  # -1: none
    delay_penalty: float
    from_logits: bool

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Return the tensors, without class_bias if it is None."""
        return self[:5] if self.class_bias is not None else self[:4]  # type: ignore[return-value]


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


def _columns(targets: Tensor, max_length: int, frames: int) -> int:
    """Return the last size of occupancies: no feasible target is longer."""
    columns: int = torch.sym_min(torch.sym_min(max_length, targets.shape[-1]), frames)
    return columns


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
        input.new_empty(
            (batch, frames if need_grad else 0, _columns(targets, max_length, frames)), dtype=dtype
        ),
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
        (batch, frames, _columns(targets, max_length, frames)), dtype=_scalar_type(input.dtype)
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


torch.library.register_autograd("fastctc::ctc_loss", _backward, setup_context=_save_for_backward)


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


# ---- decoders: -> the fields of fastctc.DecodeResult; greedy_decode leaves out path_scores, which are its scores


def _decoded(place: Tensor, leading: tuple[int, ...], frames: int, scalar: torch.dtype) -> Tensors9:
    def per_token(dtype: torch.dtype) -> Tensor:
        return place.new_empty((*leading, frames), dtype=dtype)

    return (
        per_token(torch.int64),  # tokens
        place.new_empty(leading, dtype=torch.int64),  # lengths
        place.new_empty(leading, dtype=scalar),  # scores
        per_token(torch.int64),  # timesteps
        per_token(scalar),  # confidences
        per_token(torch.int64),  # ends
        per_token(torch.int64),  # peaks
        per_token(scalar),  # token_scores
        place.new_empty(leading, dtype=scalar),  # path_scores
    )


@torch.library.register_fake("fastctc::greedy_decode")
def _(input: Tensor, input_lengths: Tensor, blank: int, from_logits: bool) -> Tensors8:
    batch, frames, _ = input.shape
    return _decoded(input, (batch,), frames, _scalar_type(input.dtype))[:8]


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
) -> Tensors9:
    batch, frames, _ = input.shape
    return _decoded(input, (batch, nbest), frames, _scalar_type(input.dtype))


# input (N, T, C); state (N, _C.beam_state_bytes(beam_size)) uint8, zeros before the first frame; arena (N,
# capacity, _C.BEAM_NODE_INTS) int32 with capacity at least beam_size for each frame since. Both belong to the
# kernels that wrote them.
@torch.library.register_fake("fastctc::beam_search_advance")
@torch.library.register_fake("fastctc::scored_search_advance")
def _(*arguments: Any) -> None:
    return None


@torch.library.register_fake("fastctc::beam_search_result")
def _(state: Tensor, arena: Tensor, beam_size: int, nbest: int, max_length: int, float64: bool) -> Tensors9:
    scalar = torch.float64 if float64 else torch.float32
    return _decoded(state, (state.shape[0], nbest), max_length, scalar)


# ---- the same with a scorer (fastctc.scoring.packed), which results in the fields of ScoredResult


def _scored(place: Tensor, leading: tuple[int, ...], frames: int, scalar: torch.dtype) -> tuple[Tensor, ...]:
    return (
        *_decoded(place, leading, frames, scalar),
        place.new_empty(leading, dtype=scalar),  # acoustic_scores
        place.new_empty(leading, dtype=scalar),  # model_scores
        place.new_empty((*leading, frames), dtype=torch.int64),  # words
        place.new_empty(leading, dtype=torch.int64),  # last_words
    )


@torch.library.register_fake("fastctc::scored_search")
def _(input: Tensor, input_lengths: Tensor, beam_size: int, nbest: int, *options: Any) -> tuple[Tensor, ...]:
    batch, frames, _ = input.shape
    return _scored(input, (batch, nbest), frames, _scalar_type(input.dtype))


@torch.library.register_fake("fastctc::scored_search_result")
def _(
    state: Tensor,
    arena: Tensor,
    beam_size: int,
    nbest: int,
    max_length: int,
    float64: bool,
    scorer: list[Tensor],
    scorer_numbers: list[int],
    unknown_word: float,
) -> tuple[Tensor, ...]:
    scalar = torch.float64 if float64 else torch.float32
    return _scored(state, (state.shape[0], nbest), max_length, scalar)
