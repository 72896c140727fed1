"""What the beam search benchmark decodes: shapes, and log-probabilities drawn from a seed.

peaked   as of a trained network: the best class of a frame has probability 0.8 on average (u^(1/4), u uniform
         in [0, 1]), in 60% of the frames it is the blank, otherwise any token; the rest is spread by a softmax
         of normal variables with standard deviation 2
flat     the log-softmax of standard normal logits: nothing can be cut, every frame changes the beam
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BLANK = 0
INPUTS = ["peaked", "flat"]


@dataclass(frozen=True)
class Shape:
    N: int
    T: int
    C: int
    W: int  # prefixes in the beam

    def quick(self) -> Shape:
        return Shape(min(self.N, 3), min(self.T, 30), min(self.C, 200), min(self.W, 8))


SHAPES = {
    "a": Shape(32, 100, 20, 10),
    "b": Shape(16, 500, 32, 50),
    "c": Shape(8, 300, 5000, 10),
    "d": Shape(16, 200, 5000, 10),
}
BASE = Shape(8, 200, 64, 16)  # one of its sizes at a time is swept
SWEEPS = {
    "W": [1, 2, 4, 8, 16, 32, 64, 128, 256],
    "C": [16, 64, 256, 1024, 4096, 16384],
    "T": [50, 100, 200, 400, 800, 1600],
    "N": [1, 2, 4, 8, 16, 32],
}


def draw(shape: Shape, kind: str, seed: int = 0) -> Tensor:
    """Return log-probabilities (N, T, C), float32."""
    generator = torch.Generator().manual_seed(seed)
    frames = shape.N, shape.T, 1
    if kind == "flat":
        return torch.randn(shape.N, shape.T, shape.C, generator=generator).log_softmax(-1)
    highest = torch.rand(frames, generator=generator).double().clamp(1e-6, 1 - 1e-6) ** 0.25
    is_blank = torch.rand(frames, generator=generator) < 0.6
    best = torch.where(is_blank, BLANK, torch.randint(1, shape.C, frames, generator=generator))
    others = 2 * torch.randn(shape.N, shape.T, shape.C, generator=generator).double()
    others = others.scatter(2, best, -torch.inf).log_softmax(-1) + torch.log1p(-highest)
    return others.scatter(2, best, highest.log()).float()


def statistics(log_probs: Tensor) -> dict[str, float]:
    """Return measures of how peaked the log-probabilities are."""
    highest, best = log_probs.max(-1)
    return {
        "mean_max_p": float(highest.exp().mean()),
        "blank_share": float((best == BLANK).float().mean()),
    }
