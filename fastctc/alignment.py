"""Alignment: the frames of the labels of a target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fastctc import ops
from fastctc.arguments import (
    Lengths,
    alignment_arguments,
    check_scores,
    check_status,
    integer,
    loss_arguments,
    traced,
    transforms_active,
    with_any_length,
)
from fastctc.errors import ArgumentValueError, refuse_scripting
from fastctc.ops import SavedLoss

if TYPE_CHECKING:
    import numpy as np

__all__ = ["TokenSpan", "ctc_posteriors", "forced_align", "merge_tokens"]


@refuse_scripting
def forced_align(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Lengths | None = None,
    target_lengths: Lengths | None = None,
    blank: int = 0,
    *,
    time_major: bool = False,
    from_logits: bool = False,
    star: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Find the most probable path that spells the target. Drop-in for ``torchaudio.functional.forced_align``.

    The algorithm is Viterbi's, on the lattice of Graves et al., ICML 2006, section 4.1. Sums are in double,
    so long inputs are as exact as short ones. Nothing waits for the device. :func:`merge_tokens` makes spans
    of a path.

    Of equally probable paths, the result is the one that, from its end backwards,

    - ends in the last label,
    - enters each label or blank as early as it can,
    - comes from a blank where it can.

    The result is the same on all devices, and does not depend on the batch or its padding.

    It differs from torchaudio's function as follows:

    - Batches of any size are aligned. torchaudio's function takes one sample.
    - A target that cannot be aligned gets scores of -inf. torchaudio's function raises an exception.
    - Of equally probable paths, torchaudio's function may return another.
    - ``time_major``, ``from_logits``, ``star`` and float16 and bfloat16 scores are additions.

    A label that equals the blank is refused by both.

    Args:
        log_probs: (N, T, C), or (T, N, C) if ``time_major``, or (T, C) for a single sample; float16, bfloat16,
            float32 or float64; natural-log probabilities, or logits if ``from_logits``. Any strides.
        targets: (N, S) integers, padded with anything, or concatenated; (S) for a single sample.
        input_lengths: (N) frames of each sample: a tensor on any device, a sequence or an int. All T if None.
        target_lengths: (N) labels of each sample: a tensor on any device, a sequence or an int. All S if None.
        blank: the index of the blank class.
        time_major: the first dimension is time.
        from_logits: apply a log-softmax to ``log_probs`` first.
        star: a label in ``targets`` that stands for anything, for one frame or more, with probability 1, as in
            :func:`fastctc.ctc_loss`. ``C`` is a good number for it: an appended column of zeros, a class that
            is always certain, would have that index.

    Returns:
        A tuple of

        - ``paths`` (N, T): the class of each frame, or ``star``; int32 for int32 targets, else int64.
        - ``scores`` (N, T): the natural-log probability of that class, 0 for a star; float64 for float64 input,
          else float32. A score above 0 by the rounding of a log-softmax is 0.

        A single sample has no dimension N. From ``input_lengths`` on, paths are blank and scores 0. So the
        scores of a sample add up to the log-probability of its path.

        A target that cannot be aligned has scores of -inf and a path of blanks in all T frames: it needs more
        frames, or classes of probability 0. A sample with a NaN or +inf in a frame that is used has scores of
        NaN instead. Other samples are not affected. There is no gradient: gather ``log_probs`` at ``paths``
        for one.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`fastctc.ctc_loss`, and for a label that equals
            ``blank``. On CUDA a sample with a label or length out of range has the scores NaN: see
            :func:`fastctc.debug`.

    >>> import torch, fastctc
    >>> log_probs = torch.tensor([[0.1, 0.8, 0.1], [0.5, 0.4, 0.1], [0.6, 0.2, 0.2], [0.2, 0.1, 0.7]]).log()
    >>> paths, scores = fastctc.forced_align(log_probs[None], torch.tensor([[1, 2]]))
    >>> paths.tolist(), (100 * scores.exp()).round().int().tolist()
    ([[1, 0, 0, 2]], [[80, 50, 60, 70]])
    """
    blank = check_scores(log_probs, blank)
    single = log_probs.dim() == 2
    x = log_probs.detach()
    if not single and not time_major:
        x = x.transpose(0, 1)
    batch = 1 if single else x.shape[1]
    arguments = loss_arguments(
        x,
        targets,
        torch.full((batch,), x.shape[0], device=x.device) if input_lengths is None else input_lengths,
        _whole_targets(targets, batch, x.device) if target_lengths is None else target_lengths,
        blank,
        from_logits=from_logits,
        star=star,
    )
    if traced():
        arguments = with_any_length(arguments)
    paths, scores, status = ops.forced_align(*alignment_arguments(arguments))
    if not torch.compiler.is_compiling() and not transforms_active():
        check_status(status, arguments, blank_is_label=False)
    if targets.dtype == torch.int32:
        paths = paths.to(torch.int32)
    return (paths.squeeze(0), scores.squeeze(0)) if single else (paths, scores)


def _whole_targets(targets: Tensor, batch: int, device: torch.device) -> Tensor:
    """Return the lengths of targets that are used whole; loss_arguments checks the form of the targets."""
    dimensions = targets.dim() if isinstance(targets, Tensor) else 0
    if dimensions == 1 and batch != 1:
        raise ArgumentValueError("target_lengths must be given where targets are concatenated")
    return torch.full((batch,), targets.shape[-1] if dimensions else 0, device=device)


@dataclass
class TokenSpan:
    """A token and its frames. ``len(span)`` is the number of frames.

    The fields have the names and the order of torchaudio's ``TokenSpan``.
    """

    token: int  #: the class
    start: int  #: the first frame
    end: int  #: the frame after the last one
    score: float  #: the mean of the natural-log probabilities of its frames

    def __len__(self) -> int:
        return self.end - self.start


@refuse_scripting
def merge_tokens(tokens: Tensor, scores: Tensor, blank: int = 0) -> list[Any]:
    """Return the tokens of a path with their frames and mean scores. Repeats are merged and blanks dropped.

    Drop-in for ``torchaudio.functional.merge_tokens`` that takes batches, too.

    Args:
        tokens: (T) or (N, T) integers: the classes of frames, such as the paths of :func:`forced_align`.
        scores: (T) or (N, T): the natural-log probabilities of the classes, such as its scores.
        blank: the index of the blank class.

    Returns:
        A list of :class:`TokenSpan` in order of time; for a batch, such a list for each sample. A path of
        :func:`forced_align` is blank after a sample's input length, so no span is there.

    Raises:
        ValueError: tokens and scores are not of one shape, (T) or (N, T).

    >>> import torch, fastctc
    >>> fastctc.merge_tokens(torch.tensor([0, 3, 3, 0, 3]), torch.tensor([0.0, -0.25, -0.75, 0.0, -2.0]))
    [TokenSpan(token=3, start=1, end=3, score=-0.5), TokenSpan(token=3, start=4, end=5, score=-2.0)]
    """
    if tokens.dim() not in (1, 2) or tokens.shape != scores.shape:
        raise ArgumentValueError(
            "tokens and scores must both have shape (T) or (N, T), "
            f"got {tuple(tokens.shape)} and {tuple(scores.shape)}"
        )
    blank = integer(blank, "blank")
    classes = tokens.detach().to("cpu", torch.int64).numpy()
    values = scores.detach().to("cpu", torch.float64).numpy()
    if classes.ndim == 1:
        return _spans(classes, values, blank)
    return [_spans(*row, blank) for row in zip(classes, values, strict=True)]


def _spans(tokens: np.ndarray, scores: np.ndarray, blank: int) -> list[TokenSpan]:
    import numpy as np  # nothing else in the core of the package needs it

    if len(tokens) == 0:
        return []
    starts = np.flatnonzero(np.diff(tokens, prepend=tokens[0] - 1))
    ends = np.append(starts[1:], len(tokens))
    means = np.add.reduceat(scores, starts) / (ends - starts)
    columns = tokens[starts].tolist(), starts.tolist(), ends.tolist(), means.tolist()
    return [TokenSpan(*span) for span in zip(*columns, strict=True) if span[0] != blank]


@refuse_scripting
def ctc_posteriors(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Lengths,
    target_lengths: Lengths,
    blank: int = 0,
    *,
    from_logits: bool = False,
    compact: bool = False,
    label_priors: Tensor | None = None,
    blank_penalty: float = 0.0,
    delay_penalty: float = 0.0,
    star: int | None = None,
) -> Tensor:
    r"""Compute the probability of each class in each frame, given that the frames spell the target.

    :math:`\gamma_t(c) = P(\text{path}_t = c \mid \text{target})` is minus the derivative of
    ``fastctc.ctc_loss(..., reduction="sum")`` with respect to log-probabilities (Graves et al., "Connectionist
    Temporal Classification", ICML 2006, equations 14 and 15). The same kernels compute both. The result
    carries no gradient.

    Args:
        log_probs: as in :func:`fastctc.ctc_loss`.
        targets: as in :func:`fastctc.ctc_loss`.
        input_lengths: as in :func:`fastctc.ctc_loss`.
        target_lengths: as in :func:`fastctc.ctc_loss`.
        blank: as in :func:`fastctc.ctc_loss`.
        from_logits: as in :func:`fastctc.ctc_loss`.
        compact: return the posteriors of the target's labels, position by position, instead of the posteriors
            of the classes. No tensor as large as ``log_probs`` is made then.
        label_priors: as in :func:`fastctc.ctc_loss`.
        blank_penalty: as in :func:`fastctc.ctc_loss`.
        delay_penalty: as in :func:`fastctc.ctc_loss`.
        star: as in :func:`fastctc.ctc_loss`. A star is no class: in a frame the classes sum to 1 less its
            posterior.

    Returns:
        (T, N, C), or (T, C) for a single sample; float64 for float64 input, else float32. Each value is in
        [0, 1]. The classes of a frame in use sum to 1.

        With ``compact`` (N, T, S), or (T, S): the probability that label i emits frame t. What a frame lacks
        to 1 is the probability of the blanks between the labels. S is the number of columns of ``targets``.
        For concatenated targets it is the length of the longest one, or a bound on it where
        ``target_lengths`` are on a GPU, compiled or transformed.

        Frames and labels beyond a sample's lengths are 0. A sample whose target cannot be aligned is 0. A NaN
        in a frame that is used makes all used frames of its sample NaN.

    Raises:
        TypeError, ValueError, RuntimeError: as :func:`fastctc.ctc_loss`. On CUDA a sample with a label or
            length out of range is 0: see :func:`fastctc.debug`.

    >>> import torch, fastctc
    >>> log_probs = torch.full((3, 3), 1 / 3).log()
    >>> gamma = fastctc.ctc_posteriors(log_probs, torch.tensor([1]), 3, 1)  # 1--, 11-, -1-, -11, --1, 111
    >>> (6 * gamma).round().int().tolist()
    [[3, 3, 0], [2, 4, 0], [3, 3, 0]]
    """
    arguments = loss_arguments(
        log_probs.detach() if isinstance(log_probs, Tensor) else log_probs,
        targets,
        input_lengths,
        target_lengths,
        blank,
        from_logits=from_logits,
        star=star,
        label_priors=label_priors,
        blank_penalty=blank_penalty,
        delay_penalty=delay_penalty,
    )
    if traced():
        arguments = with_any_length(arguments)
    _, occupancy, row_statistics, status = ops.ctc_loss(*arguments, True)
    if not torch.compiler.is_compiling() and not transforms_active():
        check_status(status, arguments)
    saved = SavedLoss.of(arguments, _at_most_one(occupancy), row_statistics, status)
    if compact:
        gamma, batch_dim = _of_labels(saved), 0
    else:
        gamma, batch_dim = _of_classes(saved), 1
    return gamma.squeeze(batch_dim) if log_probs.dim() == 2 else gamma


def _at_most_one(occupancy: Tensor) -> Tensor:
    """Scale the frames whose occupancies (N, T, S) add up to more than 1, by rounding."""
    return occupancy / occupancy.sum(2, keepdim=True).clamp(min=1)


def _of_classes(saved: SavedLoss) -> Tensor:
    """Return minus the gradient with respect to log-probabilities, (T, N, C).

    It depends on the log-probabilities only through the occupancies, so zeros take their place.
    """
    weights = saved.occupancy.new_full((saved.occupancy.shape[0],), -1.0)
    scores = saved.occupancy.new_zeros(()).expand(saved.input.shape)
    return ops.ctc_loss_backward(weights, *saved._replace(input=scores, from_logits=False))


def _of_labels(saved: SavedLoss) -> Tensor:
    """Return the occupancies, (N, T, S): NaN for a sample with a NaN in a frame that is used."""
    occupancy = saved.occupancy
    frames = torch.arange(occupancy.shape[1], device=occupancy.device)
    used = frames < saved.input_lengths[:, None]
    not_a_number = (saved.status == ops.NOT_A_NUMBER)[:, None] & used
    occupancy = occupancy.masked_fill(not_a_number[:, :, None], torch.nan)
    columns = saved.targets.shape[1] if saved.targets.dim() == 2 else occupancy.shape[2]
    return torch.nn.functional.pad(occupancy, (0, columns - occupancy.shape[2]))
