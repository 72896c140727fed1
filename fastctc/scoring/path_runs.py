"""Paths of classes as the tensors of a decoder's result: tokens with their frames and confidences."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["describe_paths"]


def describe_paths(paths: Tensor, log_probs: Tensor, blank: int) -> tuple[Tensor, ...]:
    """Return what :class:`fastctc.DecodeResult` has of paths, all but the scores.

    Args:
        paths: (N, K, T) int64 classes.
        log_probs: (N, T, C) natural-log probabilities.
        blank: the class of the blank.

    Returns:
        tokens (N, K, T), lengths (N, K), timesteps, confidences, ends, peaks and token_scores (all N, K, T).
        Padding is -1 or 0.
    """
    batch, hypotheses, frames = paths.shape
    y = log_probs[:, None].expand(-1, hypotheses, -1, -1).gather(3, paths[..., None])[..., 0]
    before = torch.nn.functional.pad(paths, (1, 0), value=blank)[..., :frames]
    in_run = paths != blank
    begins = in_run & (paths != before)
    lengths = begins.sum(2)
    run = torch.where(in_run, begins.cumsum(2) - 1, frames)  # runs are numbered; blanks go to a column behind
    frame = torch.arange(frames).expand_as(paths)
    shape = (batch, hypotheses, frames + 1)

    def collect(values: Tensor, start: float, how: str) -> Tensor:
        collected = torch.full(shape, start, dtype=values.dtype)
        return collected.scatter_reduce_(2, run, values, how)[..., :frames]

    there = frame < lengths[..., None]
    first = collect(frame, frames, "amin")
    end = collect(frame + 1, 0, "amax")
    highest = collect(y, -torch.inf, "amax")
    is_peak = in_run & (y == torch.cat((highest, highest[..., :1]), 2).gather(2, run))
    peak = collect(torch.where(is_peak, frame, frames), frames, "amin")
    mean = (collect(y, 0.0, "sum") / (end - first).clamp(min=1)).clamp(max=0)
    confidence = highest.clamp(max=0).exp()
    tokens = collect(torch.where(in_run, paths, -1), -1, "amax")

    def padded(values: Tensor, padding: float) -> Tensor:
        return torch.where(there, values, padding)

    return (
        padded(tokens, -1), lengths, padded(first, -1), padded(confidence, 0.0), padded(end, -1),
        padded(peak, -1), padded(mean, 0.0),
    )  # fmt: skip
