"""Decoding: from log-probabilities to token sequences."""

from typing import NamedTuple

import torch
from torch import Tensor

from fastctc import ops
from fastctc.arguments import Lengths, check_scores, lengths_tensor

__all__ = ["GreedyResult", "greedy_decode"]


class GreedyResult(NamedTuple):
    """What :func:`greedy_decode` found, on the device of its input."""

    tokens: Tensor  #: (N, T) int64, padded with -1
    lengths: Tensor  #: (N) int64, the number of tokens
    scores: Tensor  #: (N) natural-log probability of the best path
    timesteps: Tensor  #: (N, T) int64, the first frame of each token's run, padded with -1

    def to_list(self) -> list[list[int]]:
        """The tokens as a list of ints for each sample (or one list, for a single sample)."""
        if self.lengths.dim() == 0:
            return self.tokens[: int(self.lengths)].tolist()
        rows, lengths = self.tokens.tolist(), self.lengths.tolist()
        return [row[:length] for row, length in zip(rows, lengths, strict=True)]


def greedy_decode(
    log_probs: Tensor,
    input_lengths: Lengths | None = None,
    *,
    blank: int = 0,
    time_major: bool = False,
    from_logits: bool = False,
) -> GreedyResult:
    """Greedy (best path) decoding: the best class of each frame, repeats merged, blanks dropped.

    Nothing waits for the device, so this can be captured in a CUDA graph. (Graves et al., ICML 2006, section 3.2.)

    Args:
        log_probs: (N, T, C), or (T, N, C) if ``time_major``, or (T, C) for a single sample; float16, bfloat16,
            float32 or float64; natural-log probabilities, or logits if ``from_logits``. Any strides.
        input_lengths: (N) frames of each sample; all T if None. A tensor on any device, a sequence or an int.
        blank: the index of the blank class.
        time_major: the first dimension is time.
        from_logits: score under the log-softmax of ``log_probs``.

    Returns:
        ``tokens`` (N, T) and ``timesteps`` (N, T), int64 and padded with -1, ``lengths`` (N) int64, and ``scores``
        (N), the natural-log probability of the best path (a lower bound of that of the tokens), in float64 for
        float64 input, else float32. Without the N dimension for a single sample. Ties go to the lowest class. A
        sample with a NaN in a frame that is used has no tokens and the score NaN.

    Raises:
        TypeError: log_probs is not floating-point, or input_lengths are not integers.
        ValueError: wrong dimensions; ``blank`` or (on the CPU) a length out of range.

    >>> import torch, fastctc
    >>> log_probs = torch.eye(3)[[1, 1, 0, 1, 2]].log_softmax(-1)
    >>> fastctc.greedy_decode(log_probs).to_list()
    [1, 1, 2]
    """
    check_scores(log_probs, blank)
    single = log_probs.dim() == 2
    if single:
        log_probs = log_probs.unsqueeze(0)
    elif time_major:
        log_probs = log_probs.transpose(0, 1)
    batch, frames, _ = log_probs.shape
    if input_lengths is None:
        lengths = torch.full((batch,), frames, dtype=torch.int64, device=log_probs.device)
    else:
        lengths = lengths_tensor(input_lengths, "input_lengths", batch, log_probs.device)
    result = GreedyResult(*ops.greedy_decode(log_probs.detach(), lengths, blank, from_logits))
    return GreedyResult(*(t.squeeze(0) for t in result)) if single else result
