"""How far gradients are off on long inputs with confident logits, where log-space in float32 loses digits.

Both sides and the reference get the same float32 logits; the reference is PyTorch's loss behind PyTorch's
log-softmax, all in float64. What counts is the largest error of the gradient of the logits, in absolute terms:
the entries are differences of probabilities, so 1 would be as wrong as can be.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch

from cases import Shape, draw, reference
from peers import in_torch

SIDES = ["fastctc", "torch"]
DEVIATION = 10.0  # of the logits


def errors(shape: Shape, seed: int, device: torch.device) -> dict[str, float]:
    """Return the largest error of each side for one seed."""
    case, logits = draw(shape, seed=seed, deviation=DEVIATION)
    _, expected = reference(logits, case)
    scores = logits.to(device).requires_grad_()
    found = {}
    for side in SIDES:
        peer = in_torch(case, scores, from_logits=True)[side]
        _, gradient = peer.result(*peer(scores))
        found[side] = float((gradient - expected).abs().max())
    return found


def rows(shapes: list[Shape], seeds: int, device: torch.device) -> Iterator[dict[str, Any]]:
    """Return a row per shape: the errors of every seed, the largest of them, and the ratio of torch to fastctc."""
    for shape in shapes:
        each = [errors(shape, seed, device) for seed in range(seeds)]
        worst = {side: max(found[side] for found in each) for side in SIDES}
        times = worst["torch"] / worst["fastctc"]
        yield {**asdict(shape), "deviation": DEVIATION, "seeds": each, "worst": worst, "times_worse": times}
