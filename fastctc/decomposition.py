"""Greedy decoding in plain PyTorch, which torch.onnx.export writes in place of the compiled op.

Sums are in the type of the scores, so these differ from the compiled op in the last bits. The tokens are the same.
"""

import torch
from torch import Tensor
from torch._decomp import register_decomposition

from fastctc import ops

__all__ = ["greedy_decode"]

LARGEST_LOG_PROB = 0.01  # kLargestLogProb of csrc/math/prefix.h


@register_decomposition(torch.ops.fastctc.greedy_decode.default)
def greedy_decode(input: Tensor, input_lengths: Tensor, blank: int, from_logits: bool) -> ops.Tensors8:
    """Compute what torch.ops.fastctc.greedy_decode computes, without a loop over frames."""
    x = input if input.dtype == torch.float64 else input.float()
    batch, frames, _ = x.shape
    best, log_prob = x.argmax(2), x.amax(2)
    invalid = x.isnan().any(2)
    if from_logits:
        relative = log_prob - torch.where(log_prob == -torch.inf, 0.0, x.logsumexp(2))
        invalid, log_prob = invalid | relative.isnan(), relative
    else:
        invalid = invalid | (log_prob > LARGEST_LOG_PROB)
    frame = torch.arange(frames, device=x.device).expand(batch, frames)
    used = frame < input_lengths[:, None]
    failed = (invalid & used).any(1) | (input_lengths < 0) | (input_lengths > frames)

    previous = torch.cat([torch.full_like(best[:, :1], blank), best[:, :-1]], 1)
    in_run = used & (best != blank) & ~failed[:, None]
    starts = in_run & (best != previous)
    run = torch.where(
        in_run, starts.to(torch.int64).cumsum(1) - 1, frames
    )  # all other frames go to a last column
    none = torch.full((batch, frames + 1), -1, dtype=torch.int64, device=x.device)

    def of_runs(reduced: Tensor) -> Tensor:
        return reduced[:, :frames]

    start_of_run = torch.where(starts, run, frames)
    tokens = of_runs(none.scatter(1, start_of_run, best))
    timesteps = of_runs(none.scatter(1, start_of_run, frame))
    ends = of_runs(none.scatter_reduce(1, run, frame + 1, "amax"))
    peak = torch.full((batch, frames + 1), -torch.inf, dtype=x.dtype, device=x.device)
    peak = peak.scatter_reduce(1, run, log_prob, "amax")
    is_peak = in_run & (log_prob == peak.gather(1, run))
    peaks = (none + frames + 1).scatter_reduce(1, torch.where(is_peak, run, frames), frame, "amin")
    sums = torch.zeros((batch, frames + 1), dtype=x.dtype, device=x.device).scatter_add(1, run, log_prob)
    inside = tokens >= 0
    count = torch.where(inside, ends - timesteps, 1)
    scores = torch.where(used, log_prob, 0.0).sum(1).clamp(max=0)
    return (
        tokens,
        starts.to(torch.int64).sum(1),
        torch.where(failed, torch.nan, scores),
        timesteps,
        torch.where(inside, of_runs(peak).clamp(max=0).exp(), 0.0),
        ends,
        torch.where(inside, of_runs(peaks), -1),
        torch.where(inside, (of_runs(sums) / count).clamp(max=0), 0.0),
    )
