"""Checks and normal forms of the arguments that the public functions share.

This module checks types, shapes and options. The ops check the values in tensors.
"""

import math
import numbers
import operator
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastctc import ops
from fastctc.errors import ArgumentTypeError, ArgumentValueError
from fastctc.ops import LossArguments

Lengths = Tensor | Sequence[int] | int  # any integer that operator.index takes

DENSE = torch.strided
ANY_LENGTH = 2**62  # the op takes the sizes of its tensors as the only bounds
FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGER = (
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.uint16,
    torch.uint32,
    torch.uint64,
)

_debug = os.environ.get("FASTCTC_DEBUG", "0") not in ("", "0")


def debug(enabled: bool) -> None:
    """Turn the checks of values on CUDA on or off. ``FASTCTC_DEBUG=1`` turns them on from the start.

    On the CPU a label or length out of range always raises an exception. In a beam search a log-probability above
    0 raises one too. On CUDA a check of values would make the host wait for the device. So without debugging a
    sample with a wrong value gets the loss NaN and a zero gradient, or the score NaN. With debugging, CUDA raises
    the same exceptions as the CPU.
    """
    global _debug
    _debug = enabled


def transforms_active() -> bool:
    """Return True inside torch.func.vmap, grad, jvp, and so on, where tensors have no readable values."""
    return torch._C._are_functorch_transforms_active()  # type: ignore[no-any-return]


def traced() -> bool:
    """Return True inside torch.jit.trace, which records sizes that are read as constants."""
    return not torch.compiler.is_compiling() and torch._C._is_tracing()  # type: ignore[no-any-return]


def with_any_length(arguments: LossArguments) -> LossArguments:
    """Return arguments with which the op takes the sizes of its tensors as the only bounds of a target's length."""
    return arguments._replace(max_length=ANY_LENGTH)


def integer(value: Any, name: str, kind: str = "an int") -> int:
    """Return an integer option as an int: whatever operator.index takes, but no bool."""
    if type(value) is int:
        return value
    if not isinstance(value, bool) and getattr(value, "dtype", None) != torch.bool:
        try:
            return operator.index(value)
        except TypeError:
            pass
    raise ArgumentTypeError(f"{name} must be {kind}, got {_kind(value)}")


def real(value: Any, name: str) -> float:
    """Return a real option, a Python or NumPy number, as a float. A tensor is refused: it would get no gradient."""
    if type(value) is float:
        return value
    if isinstance(value, bool) or not isinstance(value, (numbers.Real, torch.SymInt, torch.SymFloat)):
        raise ArgumentTypeError(f"{name} must be a number, got {type(value).__name__}")
    return float(value)


def check_number(value: Any, name: str) -> float:
    """Return an option that is a finite number as a float."""
    number = real(value, name)
    if not -math.inf < number < math.inf:
        raise ArgumentValueError(f"{name} must be finite, got {value}")
    return number


def check_count(value: Any, name: str) -> int:
    """Return an option that is a count of at least one as an int."""
    number = integer(value, name)
    if number < 1:
        raise ArgumentValueError(f"{name} is {number}, but must be at least 1")
    return number


def check_blank(blank: Any) -> int:
    """Return the index of the blank class, checked as far as possible without the number of classes."""
    index = integer(blank, "blank")
    if index < 0:
        raise ArgumentValueError(f"blank is {index}, but must not be negative")
    return index


def _kind(value: Any) -> str:
    """Return the type of a value for an error message, and the dtype and shape of a tensor."""
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype} with shape {tuple(value.shape)}"
    return type(value).__name__


def check_tensor(value: Any, name: str, dtypes: tuple[torch.dtype, ...], kind: str) -> None:
    """Check that a value is a dense tensor of one of these types, which `kind` describes."""
    if isinstance(value, Tensor) and value.dtype in dtypes and value.layout is DENSE and not value.is_nested:
        return
    if not isinstance(value, Tensor):
        raise ArgumentTypeError(f"{name} must be {kind.split(' of ')[0]}, got {type(value).__name__}")
    if value.layout is not DENSE or value.is_nested:
        layout = "a nested tensor of layout " if value.is_nested else "layout "
        hint = "; torch.nested.to_padded_tensor makes one" if value.is_nested else ""
        raise ArgumentTypeError(f"{name} must have layout torch.strided, got {layout}{value.layout}{hint}")
    raise ArgumentTypeError(f"{name} must be {kind}, got {value.dtype}")


def check_scores(log_probs: Tensor, blank: Any) -> int:
    """Check log-probabilities or logits, a floating-point tensor (..., C) of 2 or 3 dimensions.

    Returns the index of the blank class, checked too.
    """
    check_tensor(log_probs, "log_probs", FLOATING, "a tensor of float16, bfloat16, float32 or float64")
    if log_probs.dim() not in (2, 3):
        raise ArgumentValueError(
            f"log_probs must have 2 or 3 dimensions, got {log_probs.dim()}: shape {tuple(log_probs.shape)}"
        )
    index = check_blank(blank)
    if index >= log_probs.shape[-1]:
        raise ArgumentValueError(f"blank is {index}, but log_probs has {log_probs.shape[-1]} classes")
    return index


def indices(tensor: Tensor, device: torch.device) -> Tensor:
    """Return the tensor as int64 on `device`, contiguous."""
    if tensor.dtype == torch.int64 and tensor.device == device and tensor.is_contiguous():
        return tensor  # this test costs half of a conversion that does nothing
    return tensor.to(device=device, dtype=torch.int64).contiguous()


def lengths_tensor(lengths: Lengths, name: str, batch: int, device: torch.device) -> Tensor:
    """Return lengths of any accepted form as a contiguous int64 tensor of shape (N,) on `device`."""
    lengths = listed(lengths, name)
    if isinstance(lengths, Tensor):
        check_tensor(lengths, name, INTEGER, "an integer tensor")
        if lengths.dim() > 1:
            raise ArgumentValueError(f"{name} must have one dimension, got shape {tuple(lengths.shape)}")
        tensor = indices(lengths.reshape(1) if lengths.dim() == 0 else lengths, device)
    else:
        tensor = torch.tensor(lengths, dtype=torch.int64, device=device)
    if tensor.shape[0] != batch:
        raise ArgumentValueError(f"{name} has {tensor.shape[0]} values, but log_probs has a batch of {batch}")
    return tensor


def listed(lengths: Lengths, name: str) -> Tensor | list[int]:
    """Return lengths that are no tensor as a list of ints, or as a tensor where their values cannot be read."""
    if isinstance(lengths, Tensor):
        return lengths
    values = _items(lengths)
    if all(type(value) is int for value in values):
        return values
    if any(isinstance(value, (Tensor, torch.SymInt)) for value in values):
        return torch.cat([_as_tensor(value, f"{name}[{i}]") for i, value in enumerate(values)])
    return [integer(value, f"{name}[{i}]") for i, value in enumerate(values)]


def _items(lengths: Any) -> list[Any]:
    try:
        return list(lengths)
    except TypeError:  # a single number
        return [lengths]


def _as_tensor(value: Any, name: str) -> Tensor:
    """Return an integer as an int64 tensor of shape (1,), without a look at the value of a tensor."""
    if isinstance(value, torch.SymInt):
        filled: Tensor = torch.full((1,), value, dtype=torch.int64)  # type: ignore[call-overload]
        return filled
    if not isinstance(value, Tensor):
        return torch.tensor([integer(value, name)])
    check_tensor(value, name, INTEGER, "an integer")
    if value.numel() != 1:
        raise ArgumentTypeError(f"{name} must be an int, got {_kind(value)}")
    return value.to(torch.int64).reshape(1)


class SearchOptions(NamedTuple):
    """Hold the options that all ops of the beam search take; infinity means no cut."""

    blank: int
    from_logits: bool
    beam_threshold: float
    token_threshold: float
    blank_skip: float  # a natural logarithm


def search_options(
    blank: int,
    from_logits: bool,
    beam_threshold: float | None,
    token_threshold: float | None,
    blank_skip: float | None,
) -> SearchOptions:
    """Check the options of a beam search and return them in the form that the ops take."""
    log_skip = math.inf
    if blank_skip is not None:
        probability = real(blank_skip, "blank_skip")
        if not 0 < probability <= 1:
            raise ArgumentValueError(
                f"blank_skip is {blank_skip}, but must be a probability above 0 and at most 1, or None"
            )
        log_skip = math.log(probability)
    return SearchOptions(
        check_blank(blank),
        bool(from_logits),
        _distance(beam_threshold, "beam_threshold"),
        _distance(token_threshold, "token_threshold"),
        log_skip,
    )


def _distance(value: float | None, name: str) -> float:
    """Check a distance of natural logarithms; None means infinity."""
    if value is None:
        return math.inf
    distance = real(value, name)
    if not distance >= 0:
        raise ArgumentValueError(
            f"{name} is {value}, but must be a distance of natural logarithms, at least 0, or None"
        )
    return distance


def check_nbest(nbest: Any, beam_size: int) -> int:
    """Return the number of hypotheses that a search returns as an int, checked against the beam."""
    number = check_count(nbest, "nbest")
    if number > beam_size:
        raise ArgumentValueError(f"nbest is {number}, but beam_size is only {beam_size}")
    return number


def loss_arguments(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Lengths,
    target_lengths: Lengths,
    blank: int,
    *,
    from_logits: bool,
    star: int | None,
    label_priors: Tensor | None = None,
    blank_penalty: float = 0.0,
    delay_penalty: float = 0.0,
) -> LossArguments:
    """Check the arguments of fastctc.ctc_loss and return them as the op takes them; (T, C) becomes N = 1."""
    blank = check_scores(log_probs, blank)
    check_tensor(targets, "targets", INTEGER, "an integer tensor")
    target_lengths = listed(target_lengths, "target_lengths")
    if log_probs.dim() == 2:
        log_probs = log_probs.unsqueeze(1)
        targets = targets.unsqueeze(0) if targets.dim() == 1 else targets
    batch = log_probs.shape[1]
    if targets.dim() not in (1, 2) or (targets.dim() == 2 and targets.shape[0] != batch):
        raise ArgumentValueError(
            f"targets must have shape (N, S) with N = {batch}, or (sum of target_lengths), "
            f"got {tuple(targets.shape)}"
        )
    delay_penalty = check_number(delay_penalty, "delay_penalty")
    blank_penalty = check_number(blank_penalty, "blank_penalty")
    class_bias = None
    if label_priors is not None or blank_penalty != 0:
        class_bias = _class_bias(log_probs, label_priors, blank, blank_penalty)

    device = log_probs.device
    padded = targets.dim() == 2
    max_length = targets.shape[1] if padded else _longest_of_concatenated(targets, target_lengths)
    return LossArguments(
        input=log_probs,
        targets=indices(targets, device),
        input_lengths=lengths_tensor(input_lengths, "input_lengths", batch, device),
        target_lengths=lengths_tensor(target_lengths, "target_lengths", batch, device),
        class_bias=class_bias,
        max_length=max_length,
        blank=blank,
        star=-1 if star is None else check_star(star, blank),
        delay_penalty=delay_penalty,
        from_logits=bool(from_logits),
    )


def check_star(star: Any, blank: int) -> int:
    """Return the label that matches any class as an int."""
    label = integer(star, "star", "an int or None")
    if label < 0:
        raise ArgumentValueError(f"star is {label}, but must not be negative")
    if label == blank:
        raise ArgumentValueError(f"star is {label}, the blank")
    return label


def _class_bias(log_probs: Tensor, label_priors: Tensor | None, blank: int, blank_penalty: float) -> Tensor:
    """Return what is added to the log-probability of each class: (C), of the loss's type."""
    classes, device = log_probs.shape[2], log_probs.device
    dtype = torch.float64 if log_probs.dtype == torch.float64 else torch.float32
    if label_priors is None:
        bias = torch.zeros(classes, dtype=dtype, device=device)
    else:
        check_tensor(label_priors, "label_priors", FLOATING, "a floating-point tensor")
        if tuple(label_priors.shape) != (classes,):
            raise ArgumentValueError(
                f"label_priors must have shape (C) with C = {classes}, got {tuple(label_priors.shape)}"
            )
        if can_be_read(label_priors) and not label_priors.isfinite().all():
            raise ArgumentValueError("label_priors must be finite: a class that never occurs needs a floor")
        bias = label_priors.detach().to(device=device, dtype=dtype).neg().contiguous()
    if blank_penalty != 0:
        bias[blank] -= blank_penalty
    return bias


def can_be_read(tensor: Tensor) -> bool:
    """Return True if the values can be read here without a device synchronization.

    They cannot in a torch.func transform, in a dispatch mode, as of torch.export, or in torch.jit.trace.
    """
    return (
        tensor.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not transforms_active()
        and torch._C._len_torch_dispatch_stack() == 0
        and not traced()
    )


def _longest_of_concatenated(targets: Tensor, target_lengths: Tensor | list[int]) -> int:
    """Return a bound on the lengths of concatenated targets without a device synchronization."""
    bound = targets.shape[0]
    if torch.compiler.is_compiling():
        return bound
    if isinstance(target_lengths, Tensor):
        if not can_be_read(target_lengths) or target_lengths.numel() == 0:
            return bound
        longest = int(target_lengths.max())
    else:
        longest = max(target_lengths, default=0)
    return max(0, min(bound, longest))


def check_status(status: Tensor, arguments: LossArguments, *, blank_is_label: bool = True) -> None:
    """Raise the error of the CPU, with debugging on, if a GPU found a label or length out of range.

    In an alignment a label that equals the blank is out of range too.
    """
    if not (_debug and (status == ops.INVALID).any()):
        return
    no_scores = torch.zeros(1, dtype=arguments.input.dtype).expand(arguments.input.shape)
    on_cpu = LossArguments._make(
        a.cpu() if isinstance(a, Tensor) else a for a in arguments._replace(input=no_scores)
    )
    if blank_is_label:
        ops.ctc_loss(*on_cpu, False)
    else:
        ops.forced_align(*alignment_arguments(on_cpu))


def alignment_arguments(arguments: LossArguments) -> tuple[Any, ...]:
    """Return the arguments of fastctc.ops.forced_align, which has fewer options than a loss."""
    return (*arguments[:4], arguments.max_length, arguments.blank, arguments.star, arguments.from_logits)


def check_decoded(decode: Callable[..., object], scores: Tensor, *arguments: Any) -> None:
    """Raise the error of the CPU, with debugging on, if an op that decodes gave NaN on a GPU.

    `arguments` are the arguments of the op. A NaN in the input is no error.
    """
    if not _debug or torch.compiler.is_compiling():
        return
    if scores.is_cuda and scores.isnan().any():
        decode(*(a.cpu() if isinstance(a, Tensor) else a for a in arguments))


def debugging() -> bool:
    """Return True if the checks of values on CUDA are on."""
    return _debug
