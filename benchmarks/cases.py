"""What the CTC benchmarks compute: shapes, and lengths, targets and logits drawn from a seed; the exact result."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

INPUTS = ["logits", "log-probs"]
LENGTHS = ["fixed", "varied"]


@dataclass(frozen=True)
class Shape:
    T: int
    N: int
    C: int
    S: int

    def quick(self) -> Shape:
        return Shape(min(self.T, 50), min(self.N, 2), min(self.C, 100), min(self.S, 10))


SHAPES = {
    "A": Shape(36, 256, 18, 12),
    "B": Shape(100, 64, 37, 20),
    "C": Shape(150, 32, 100, 40),
    "D": Shape(500, 16, 32, 100),
    "E": Shape(1000, 8, 5000, 100),
    "F": Shape(250, 32, 5000, 60),
    "G": Shape(2000, 4, 32, 400),
}
BASE = Shape(256, 16, 64, 32)  # one of its sizes at a time is swept
SWEEPS = {
    "T": [64, 128, 256, 512, 1024, 2048, 4096],
    "S": [4, 8, 16, 32, 64, 120],
    "C": [8, 32, 128, 512, 2048, 8192],
    "N": [1, 4, 16, 64, 256],
}
LONG = [Shape(4000, 4, 32, 800), Shape(16000, 2, 32, 1000)]  # where log-space in float32 becomes inexact


@dataclass(frozen=True)
class Case:
    """A batch of targets and lengths; every target can be aligned."""

    shape: Shape
    targets: Tensor  # (N, S), int64
    input_lengths: tuple[int, ...]  # (N)
    target_lengths: tuple[int, ...]  # (N)

    def concatenated(self) -> Tensor:
        """Return the targets without their padding."""
        return torch.cat([row[:length] for row, length in zip(self.targets, self.target_lengths)])


def sweep(base: Any, sizes: dict[str, list[int]], variable: str, quick: bool = False) -> list[Any]:
    """Return the shape `base` with each size of one variable; quick: a small base, two sizes."""
    if quick:
        base = base.quick()
    tried = [getattr(base, variable) * factor for factor in (1, 2)] if quick else sizes[variable]
    return [replace(base, **{variable: size}) for size in tried]


def draw(shape: Shape, lengths: str = "fixed", seed: int = 0, deviation: float = 1.0) -> tuple[Case, Tensor]:
    """Return targets, lengths and normally distributed logits (T, N, C).

    Lengths that vary are uniform in [T/2, T] and [S/2, S]; the first sample has both at their largest.
    """
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(1, shape.C, (shape.N, shape.S), generator=generator)
    logits = torch.randn(shape.T, shape.N, shape.C, generator=generator) * deviation
    frames, labels = [shape.T] * shape.N, [shape.S] * shape.N
    if lengths == "varied":
        frames = torch.randint((shape.T + 1) // 2, shape.T + 1, (shape.N,), generator=generator).tolist()
        labels = torch.randint((shape.S + 1) // 2, shape.S + 1, (shape.N,), generator=generator).tolist()
        frames[0], labels[0] = shape.T, shape.S
    for n, row in enumerate(targets):
        needed = labels[n] + int(
            (row[1 : labels[n]] == row[: labels[n] - 1]).sum()
        )  # blanks part the repeats
        if needed > shape.T:
            raise ValueError(f"{shape}: sample {n} needs {needed} frames")
        frames[n] = max(frames[n], needed)
    return Case(shape, targets, tuple(frames), tuple(labels)), logits


def scores_of(logits: Tensor, kind: str) -> Tensor:
    """Return the logits or their log-probabilities, rounded once."""
    return logits if kind == "logits" else logits.double().log_softmax(-1).float()


def reference(logits: Tensor, case: Case) -> tuple[float, Tensor]:
    """Return PyTorch's loss (summed) and gradient of the logits in float64 on the CPU."""
    exact = logits.detach().double().cpu().requires_grad_()
    lengths = case.input_lengths, case.target_lengths
    loss = F.ctc_loss(exact.log_softmax(-1), case.targets, *lengths, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, exact)
    return float(loss.detach()), gradient
