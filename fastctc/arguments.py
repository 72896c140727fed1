"""Checks and normal forms of the arguments that the public functions share.

What can be told from types and shapes is checked here, in Python; values are checked by the ops.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

Lengths = Tensor | Sequence[int] | int

FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGER = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


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


def lengths_tensor(lengths: Lengths, name: str, batch: int, device: torch.device) -> Tensor:
    """Lengths in any accepted form as a contiguous int64 tensor of shape (N,) on `device`."""
    if isinstance(lengths, Tensor):
        if lengths.dtype not in INTEGER:
            raise TypeError(f"{name} must be an integer tensor, got {lengths.dtype}")
        if lengths.dim() > 1:
            raise ValueError(f"{name} must have one dimension, got shape {tuple(lengths.shape)}")
        tensor = lengths.reshape(-1).to(device=device, dtype=torch.int64).contiguous()
    else:
        values = [lengths] if isinstance(lengths, int) else list(lengths)
        for i, value in enumerate(values):
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name}[{i}] must be an int, got {type(value).__name__}")
        tensor = torch.tensor(values, dtype=torch.int64, device=device)
    if tensor.shape[0] != batch:
        raise ValueError(f"{name} has {tensor.shape[0]} values, but log_probs has a batch of {batch}")
    return tensor
