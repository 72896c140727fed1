"""Checks and normal forms of the arguments that the public functions share.

What can be told from types and shapes is checked here, in Python; values are checked by the ops.
"""

import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastctc import ops

Lengths = Tensor | Sequence[int] | int

FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGER = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)

_debug = os.environ.get("FASTCTC_DEBUG", "0") not in ("", "0")


def debug(enabled: bool) -> None:
    """Turns the checking of values on CUDA on or off (as ``FASTCTC_DEBUG=1`` does from the start).

    On the CPU a label or length out of range always raises an exception, and in a beam search so do
    log-probabilities above 0. On CUDA looking at values would make the host wait for the device, so such a sample
    gets the loss NaN and a zero gradient, or the score NaN, instead; with debugging on it raises the same exception
    as on the CPU.
    """
    global _debug
    _debug = enabled


def transforms_active() -> bool:
    """Are we inside torch.func.vmap, grad, jvp, ..., where tensors have no values to look at?"""
    return torch._C._are_functorch_transforms_active()  # type: ignore[no-any-return]


def check_scores(log_probs: Tensor, blank: int) -> None:
    """Checks log-probabilities or logits: a floating-point tensor of 2 or 3 dimensions, classes last."""
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
    if isinstance(blank, bool) or not isinstance(blank, int):
        raise TypeError(f"blank must be an int, got {type(blank).__name__}")
    if not 0 <= blank < log_probs.shape[-1]:
        raise ValueError(f"blank is {blank}, but log_probs has {log_probs.shape[-1]} classes")


def indices(tensor: Tensor, device: torch.device) -> Tensor:
    """As int64 on `device`, contiguous."""
    if tensor.dtype == torch.int64 and tensor.device == device and tensor.is_contiguous():
        return tensor  # at half of the cost of finding that there is nothing to convert
    return tensor.to(device=device, dtype=torch.int64).contiguous()


def lengths_tensor(lengths: Lengths, name: str, batch: int, device: torch.device) -> Tensor:
    """Lengths in any accepted form as a contiguous int64 tensor of shape (N,) on `device`."""
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
    """Checks an option that counts something, of which there is at least one."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} is {value}, but must be at least 1")


class SearchOptions(NamedTuple):
    """What the ops of the beam search take beside tensors, nbest and beam_size; infinity stands for no cut."""

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
    """The options of a beam search, checked and in the form that the ops take."""
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
    """Between natural logarithms; None is an infinite one."""
    if value is None:
        return math.inf
    _check_real(value, name)
    if not value >= 0:
        raise ValueError(
            f"{name} is {value}, but must be a distance of natural logarithms, at least 0, or None"
        )
    return float(value)


def check_nbest(nbest: int, beam_size: int) -> None:
    """Checks how many hypotheses are wanted of a beam."""
    check_count(nbest, "nbest")
    if nbest > beam_size:
        raise ValueError(f"nbest is {nbest}, but beam_size is only {beam_size}")


class LossArguments(NamedTuple):
    """What torch.ops.fastctc.ctc_loss takes, but for need_grad."""

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


def loss_arguments(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Lengths,
    target_lengths: Lengths,
    blank: int,
    from_logits: bool,
    label_priors: Tensor | None,
    blank_penalty: float,
    delay_penalty: float,
    star: int | None,
) -> LossArguments:
    """The arguments of fastctc.ctc_loss, checked and in the one form that the op takes; (T, C) becomes N = 1."""
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
        log_probs,
        indices(targets, device),
        lengths_tensor(input_lengths, "input_lengths", batch, device),
        lengths_tensor(target_lengths, "target_lengths", batch, device),
        class_bias,
        max_length,
        blank,
        -1 if star is None else star,
        delay_penalty,
        from_logits,
    )


def check_number(value: float, name: str) -> None:
    """Checks an option that is a finite number."""
    _check_real(value, name)
    if not -math.inf < value < math.inf:
        raise ValueError(f"{name} must be finite, got {value}")


def _check_real(value: float, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")


def check_star(star: int, blank: int) -> None:
    """Checks the label that stands for anything."""
    if isinstance(star, bool) or not isinstance(star, int):
        raise TypeError(f"star must be an int or None, got {type(star).__name__}")
    if star < 0:
        raise ValueError(f"star is {star}, but must not be negative")
    if star == blank:
        raise ValueError(f"star is {star}, the blank")


def _class_bias(log_probs: Tensor, label_priors: Tensor | None, blank: int, blank_penalty: float) -> Tensor:
    """What is added to the log-probability of each class: (C), of the loss's type."""
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
        if not _has_finite_values(label_priors):
            raise ValueError("label_priors must be finite: a class that never occurs needs a floor")
        bias = label_priors.detach().to(device=device, dtype=dtype).neg().contiguous()
    if blank_penalty != 0:
        bias[blank] -= blank_penalty
    return bias


def _has_finite_values(tensor: Tensor) -> bool:
    """Or cannot be looked at here."""
    if tensor.device.type != "cpu" or torch.compiler.is_compiling() or transforms_active():
        return True
    return bool(tensor.isfinite().all())


def _longest_of_concatenated(targets: Tensor, target_lengths: Lengths) -> int:
    """A bound on the lengths of targets that needs no look at device memory."""
    bound = targets.shape[0]
    if torch.compiler.is_compiling():
        return bound
    if isinstance(target_lengths, Tensor):
        if target_lengths.device.type != "cpu" or target_lengths.numel() == 0 or transforms_active():
            return bound
        longest = int(target_lengths.max())
    elif isinstance(target_lengths, int):
        longest = target_lengths
    else:
        longest = max((v for v in target_lengths if isinstance(v, int)), default=0)
    return max(0, min(bound, longest))


def check_status(status: Tensor, arguments: LossArguments) -> None:
    """With debugging on, raises what the CPU would say of labels and lengths that a GPU found out of range."""
    if not (_debug and (status == ops.INVALID).any()):
        return
    input, *others = arguments
    on_cpu = [a.cpu() if isinstance(a, Tensor) else a for a in others]
    no_scores = torch.zeros(1, dtype=input.dtype).expand(input.shape)
    ops.ctc_loss(no_scores, *on_cpu, False)


def check_search(scores: Tensor, *arguments: Any) -> None:
    """With debugging on, raises what the CPU would say of a beam search that gave NaN on a GPU.

    `arguments` are those of torch.ops.fastctc.beam_search; a NaN in the input is no error.
    """
    if not _debug or torch.compiler.is_compiling():
        return
    if scores.is_cuda and scores.isnan().any():
        ops.beam_search(*(a.cpu() if isinstance(a, Tensor) else a for a in arguments))


def debugging() -> bool:
    """Is the checking of values on CUDA on?"""
    return _debug
