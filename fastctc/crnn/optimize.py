"""One training step: learning rate, forward, loss, backward, update."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastctc.crnn.batches import Batch
from fastctc.crnn.model import CRNN
from fastctc.crnn.preprocess import PreprocessConfig, normalize
from fastctc.loss import ctc_loss
from fastctc.text import Alphabet


def one_cycle(step: int, steps: int, max_lr: float, warmup: float) -> tuple[float, float]:
    """Learning rate and momentum (AdamW's first beta) of a step: the one-cycle policy with cosine slopes.

    Smith and Topin, Super-Convergence, arXiv:1708.07120: the rate rises from a 25th of ``max_lr`` and falls
    to nearly zero, the momentum goes from 0.95 to 0.85 and back.
    """
    rising = max(1.0, warmup * steps)
    if step < rising:
        share = 0.5 - 0.5 * math.cos(math.pi * step / rising)
        return max_lr * (1 / 25 + (1 - 1 / 25) * share), 0.95 - 0.1 * share
    share = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (step - rising) / max(1.0, steps - 1 - rising)))
    return max_lr * (1 - share) + max_lr * 4e-6 * share, 0.85 + 0.1 * share


class StepReport(NamedTuple):
    """How a step went.

    Attributes:
        loss: mean over the batch of the loss per character, in nats.
        blank_rate: share of the frames read as blank.
        skipped: the loss or its gradient was not finite and the weights stayed.
    """

    loss: float
    blank_rate: float
    skipped: bool


def training_step(
    model: CRNN, optimizer: torch.optim.Optimizer, batch: Batch, preprocess: PreprocessConfig,
    alphabet: Alphabet, *, clip: float, bf16: bool,
) -> StepReport:  # fmt: skip
    """One update of the weights; a batch whose loss or gradient is not finite changes nothing."""
    device = next(model.parameters()).device
    pixels, widths, targets, target_lengths = (tensor.to(device) for tensor in batch)
    images = normalize(pixels, widths, preprocess).contiguous(memory_format=torch.channels_last)
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        logits, lengths = model.logits(images, widths)
    loss = ctc_loss(
        logits.transpose(0, 1), targets, lengths, target_lengths,
        blank=alphabet.blank, zero_infinity=True, from_logits=True,
    )  # fmt: skip
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
    finite = bool(torch.isfinite(norm)) and math.isfinite(loss.item())
    if finite:
        optimizer.step()
    return StepReport(loss.item(), _blank_rate(logits.detach(), lengths, alphabet.blank), not finite)


def _blank_rate(logits: Tensor, lengths: Tensor, blank: int) -> float:
    """Share of the frames whose most probable class is the blank: 1 means the model has not begun to read."""
    inside = torch.arange(logits.shape[1], device=logits.device) < lengths[:, None]
    return float(((logits.argmax(-1) == blank) & inside).sum() / inside.sum())


def make_optimizer(model: CRNN, weight_decay: float) -> torch.optim.AdamW:
    """AdamW without decay on biases and normalisation; rate and momentum are set at every step."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=1e-3, betas=(0.95, 0.98))
