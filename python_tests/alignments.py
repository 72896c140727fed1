"""Inputs for the tests of the alignment, and the reference on them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastctc.reference import forced_align_reference


def random_scores(*shape: int, seed: int = 0, levels: int = 0) -> Tensor:
    """Return (N, T, C) normally distributed scores, or small integers, with which many paths tie exactly."""
    generator = torch.Generator().manual_seed(seed)
    if levels:
        return -torch.randint(0, levels, shape, generator=generator).float()
    scores = torch.randn(shape, generator=generator)
    # Ops take log-probabilities just above 0 for rounded zeros, and the reference does not.
    return torch.where((scores > 0) & (scores < 0.011), -scores, scores)


def random_targets(num_samples: int, length: int, num_classes: int, blank: int = 0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, num_classes - 1, (num_samples, length), generator=generator)
    return targets + (targets >= blank)


def of_reference(x: Tensor, *arguments: Any, **options: Any) -> tuple[Tensor, Tensor]:
    """Return the result of the reference for (N, T, C)."""
    return forced_align_reference(x.cpu().transpose(0, 1), *arguments, **options)
