"""Checks and normal forms of the arguments that the public functions share.

This module checks types, shapes and options. The ops check the values in tensors.
"""

import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastctc import ops
from fastctc.ops import LossArguments

Lengths = Tensor | Sequence[int] | int

FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGER = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)

_debug = os.environ.get("FASTCTC_DEBUG", "0") not in ("", "0")


def debug(enabled: bool) -> None:
    """Turn the checks of values on CUDA on or off. ``FASTCTC_DEBUG=1`` turns them on from the start.

    On the CPU a label or length out of range always raises an exception. In a beam search a log-probability above
    0 raises one too. On CUDA a check of values would make the host wait for the device. There such a sample gets
    the loss NaN and a zero gradient, or the score NaN. With debugging on, CUDA raises the same exceptions as the
    CPU.
    """
    global _debug
    _debug = enabled


def transforms_active() -> bool:
    """Return True inside torch.func.vmap, grad, jvp, and so on, where tensors have no readable values."""
    return torch._C._are_functorch_transforms_active()  # type: ignore[no-any-return]


def check_blank(blank: int) -> None:
    """Check the index of the blank class as far as possible without the number of classes."""
    if isinstance(blank, bool) or not isinstance(blank, int):
        raise TypeError(f"blank must be an int, got {type(blank).__name__}")
    if blank < 0:
        raise ValueError(f"blank is {blank}, but must not be negative")


def check_scores(log_probs: Tensor, blank: int) -> None:
    """Check log-probabilities or logits, a floating-point tensor (..., C) of 2 or 3 dimensions, and the blank."""
    if not isinstance(log_probs, Tensor):
        raise TypeError(f"log_probs must be a tensor, got {type(log_probs).__name__}")
    if log_probs.dtype not in FLOATING:
        raise TypeError(
            f"log_probs must be a tensor of float16, bfloat16, float32 or float64, got {log_probs.dtype}"
        )
    if log_probs.dim() not in (2, 3):
        raise ValueError(
            f"log_probs must have 2 or 3 dimensions, got {log_probs.dim()}: shape {tuple(log_probs.shape)}"
        )
    check_blank(blank)
    if blank >= log_probs.shape[-1]:
        raise ValueError(f"blank is {blank}, but log_probs has {log_probs.shape[-1]} classes")


def indices(tensor: Tensor, device: torch.device) -> Tensor:
    """Return the tensor as int64 on `device`, contiguous."""
    if tensor.dtype == torch.int64 and tensor.device == device and tensor.is_contiguous():
        return tensor  # this test costs half of a conversion that does nothing
    return tensor.to(device=device, dtype=torch.int64).contiguous()


def lengths_tensor(lengths: Lengths, name: str, batch: int, device: torch.device) -> Tensor:
    """Return lengths of any accepted form as a contiguous int64 tensor of shape (N,) on `device`."""
    if isinstance(lengths, Tensor):
        if lengths.dtype not in INTEGER:
            raise TypeError(f"{name} must be an integer tensor, got {lengths.dtype}")
        if lengths.dim() > 1:
            raise ValueError(f"{name} must have one dimension, got shape {tuple(lengths.shape)}")
        tensor = indices(lengths.reshape(1) if lengths.dim() == 0 else lengths, device)
    else:
        values = [lengths] if isinstance(lengths, int) else list(lengths)
        for i, value in enumerate(values):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name}[{i}] must be an int, got {type(value).__name__}")
        tensor = torch.tensor(values, dtype=torch.int64, device=device)
    if tensor.shape[0] != batch:
        raise ValueError(f"{name} has {tensor.shape[0]} values, but log_probs has a batch of {batch}")
    return tensor


def check_count(value: int, name: str) -> None:
    """Check an option that is a count of at least one."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} is {value}, but must be at least 1")


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
        _check_real(blank_skip, "blank_skip")
        if not 0 < blank_skip <= 1:
            raise ValueError(
                f"blank_skip is {blank_skip}, but must be a probability above 0 and at most 1, or None"
            )
        log_skip = math.log(blank_skip)
    return SearchOptions(
        blank,
        from_logits,
        _distance(beam_threshold, "beam_threshold"),
        _distance(token_threshold, "token_threshold"),
        log_skip,
    )


def _distance(value: float | None, name: str) -> float:
    """Check a distance of natural logarithms; None means infinity."""
    if value is None:
        return math.inf
    _check_real(value, name)
    if not value >= 0:
        raise ValueError(
            f"{name} is {value}, but must be a distance of natural logarithms, at least 0, or None"
        )
    return float(value)


def check_nbest(nbest: int, beam_size: int) -> None:
    """Check the number of hypotheses that a search returns."""
    check_count(nbest, "nbest")
    if nbest > beam_size:
        raise ValueError(f"nbest is {nbest}, but beam_size is only {beam_size}")


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
    check_scores(log_probs, blank)
    if not isinstance(targets, Tensor) or targets.dtype not in INTEGER:
        got = targets.dtype if isinstance(targets, Tensor) else type(targets).__name__
        raise TypeError(f"targets must be an integer tensor, got {got}")
    if log_probs.dim() == 2:
        log_probs = log_probs.unsqueeze(1)
        targets = targets.unsqueeze(0) if targets.dim() == 1 else targets
    batch = log_probs.shape[1]
    if targets.dim() not in (1, 2) or (targets.dim() == 2 and targets.shape[0] != batch):
        raise ValueError(
            f"targets must have shape (N, S) with N = {batch}, or (sum of target_lengths), "
            f"got {tuple(targets.shape)}"
        )
    check_number(delay_penalty, "delay_penalty")
    check_number(blank_penalty, "blank_penalty")
    if star is not None:
        check_star(star, blank)
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
        star=-1 if star is None else star,
        delay_penalty=delay_penalty,
        from_logits=from_logits,
    )


def check_number(value: float, name: str) -> None:
    """Check an option that is a finite number."""
    _check_real(value, name)
    if not -math.inf < value < math.inf:
        raise ValueError(f"{name} must be finite, got {value}")


def _check_real(value: float, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")


def check_star(star: int, blank: int) -> None:
    """Check the label that matches any class."""
    if isinstance(star, bool) or not isinstance(star, int):
        raise TypeError(f"star must be an int or None, got {type(star).__name__}")
    if star < 0:
        raise ValueError(f"star is {star}, but must not be negative")
    if star == blank:
        raise ValueError(f"star is {star}, the blank")


def _class_bias(log_probs: Tensor, label_priors: Tensor | None, blank: int, blank_penalty: float) -> Tensor:
    """Return what is added to the log-probability of each class: (C), of the loss's type."""
    classes, device = log_probs.shape[2], log_probs.device
    dtype = torch.float64 if log_probs.dtype == torch.float64 else torch.float32
    if label_priors is None:
        bias = torch.zeros(classes, dtype=dtype, device=device)
    else:
        if not isinstance(label_priors, Tensor) or label_priors.dtype not in FLOATING:
            got = label_priors.dtype if isinstance(label_priors, Tensor) else type(label_priors).__name__
            raise TypeError(f"label_priors must be a floating-point tensor, got {got}")
        if tuple(label_priors.shape) != (classes,):
            raise ValueError(
                f"label_priors must have shape (C) with C = {classes}, got {tuple(label_priors.shape)}"
            )
        if _can_be_read(label_priors) and not label_priors.isfinite().all():
            raise ValueError("label_priors must be finite: a class that never occurs needs a floor")
        bias = label_priors.detach().to(device=device, dtype=dtype).neg().contiguous()
    if blank_penalty != 0:
        bias[blank] -= blank_penalty
    return bias


def _can_be_read(tensor: Tensor) -> bool:
    """Return True if the values can be read here without a device synchronization."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling() and not transforms_active()


def _longest_of_concatenated(targets: Tensor, target_lengths: Lengths) -> int:
    """Return a bound on the lengths of concatenated targets without a device synchronization."""
    bound = targets.shape[0]
    if torch.compiler.is_compiling():
        return bound
    if isinstance(target_lengths, Tensor):
        if not _can_be_read(target_lengths) or target_lengths.numel() == 0:
            return bound
        longest = int(target_lengths.max())
    elif isinstance(target_lengths, int):
        longest = target_lengths
    else:
        longest = max((v for v in target_lengths if isinstance(v, int)), default=0)
    return max(0, min(bound, longest))


def check_status(status: Tensor, arguments: LossArguments) -> None:
    """Raise the error of the CPU, with debugging on, if a GPU found a label or length out of range."""
    if not (_debug and (status == ops.INVALID).any()):
        return
    no_scores = torch.zeros(1, dtype=arguments.input.dtype).expand(arguments.input.shape)
    on_cpu = (a.cpu() if isinstance(a, Tensor) else a for a in arguments._replace(input=no_scores))
    ops.ctc_loss(*on_cpu, False)


def check_search(scores: Tensor, *arguments: Any) -> None:
    """Raise the error of the CPU, with debugging on, if a beam search on a GPU gave NaN.

    `arguments` are the arguments of torch.ops.fastctc.beam_search. A NaN in the input is no error.
    """
    if not _debug or torch.compiler.is_compiling():
        return
    if scores.is_cuda and scores.isnan().any():
        ops.beam_search(*(a.cpu() if isinstance(a, Tensor) else a for a in arguments))


def debugging() -> bool:
    """Return True if the checks of values on CUDA are on."""
    return _debug
