"""One training step: learning rate, forward, loss, backward, update, average.

A batch is computed in parts, one after the other or by several processes. Batch normalization and dropout treat
each part as a batch (ghost batch normalization: Hoffer, Hubara and Soudry, arXiv:1705.08741). Gradients, running
statistics and figures are means over the parts. The result does not depend on the process that computes a part::

    one process       part 0, part 1 ── mean ──> update
    two processes     part 0 ─┐
                      part 1 ─┴──────── mean ──> update
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from fastctc.crnn.data import Batch, normalize, own_torch_state, seeded
from fastctc.crnn.model import CRNN
from fastctc.crnn.training import distributed
from fastctc.crnn.training.config import TrainConfig
from fastctc.crnn.training.optimizers import make_optimizer, set_rate
from fastctc.loss import ctc_loss
from fastctc.text import Alphabet

_PART = 1_000_000_007  # between the seeds of the parts of a batch


class Rate(NamedTuple):
    """Learning rate and momentum (AdamW's first beta) of a step."""

    lr: float
    momentum: float


def one_cycle(position: float, steps: int, max_lr: float, warmup: float) -> Rate:
    """Return the rate at a position on a plan of steps: the one-cycle policy with cosine slopes.

    Smith and Topin, Super-Convergence, arXiv:1708.07120. The learning rate rises from a 25th of ``max_lr`` and
    falls to nearly zero. The momentum goes from 0.95 to 0.85 and back.
    """
    rising = max(1.0, warmup * steps)
    if position < rising:
        share = 0.5 - 0.5 * math.cos(math.pi * position / rising)
        return Rate(max_lr * (1 / 25 + (1 - 1 / 25) * share), 0.95 - 0.1 * share)
    share = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (position - rising) / max(1.0, steps - 1 - rising)))
    return Rate(max_lr * (1 - share) + max_lr * 4e-6 * share, 0.85 + 0.1 * share)


class StepReport(NamedTuple):
    """What a step reports.

    Attributes:
        loss: mean over the batch of the loss per character, in nats.
        blank_rate: share of the frames read as blank.
        skipped: the loss or its gradient was not finite and the weights stayed.
    """

    loss: float
    blank_rate: float
    skipped: bool


class Learner:
    """A model in training, with its optimizer and the moving average of its weights.

    Args:
        model: on its device; trained in place.
        config: the recipe.
        alphabet: the model's.
    """

    def __init__(self, model: CRNN, config: TrainConfig, alphabet: Alphabet) -> None:
        self.model, self.config, self.alphabet = model.train(), config, alphabet
        settings = config.optimizer
        self.optimizer = make_optimizer(model, settings.name, settings.weight_decay)
        self.average = moving_average(model, settings.ema) if settings.ema else None
        self._shared = _shared(model)

    @property
    def result(self) -> CRNN:
        """Return the model to evaluate and to keep: the averaged one if the recipe averages."""
        if self.average is None:
            return self.model
        return cast(CRNN, self.average.module)

    @own_torch_state(grad=True)
    def step(self, parts: Sequence[Batch], number: int, rate: Rate) -> StepReport:
        """Update the weights once; a batch whose loss or gradient is not finite changes nothing.

        Args:
            parts: the parts of the batch that this process computes; their number is equal in all processes.
            number: number of the step; it seeds the dropout.
            rate: learning rate and momentum of the step.

        Returns:
            The loss and the blank rate of the batch, and whether the step was skipped.
        """
        config, model = self.config, self.model
        set_rate(self.optimizer, rate.lr, rate.momentum)
        self.optimizer.zero_grad(set_to_none=True)
        buffers = list(model.buffers())
        before = [buffer.clone() for buffer in buffers]
        statistics = [buffer for buffer in buffers if buffer.is_floating_point()]
        sums = torch.zeros_like(_flat(statistics))
        figures = torch.zeros(3, dtype=torch.float64, device=sums.device)
        for i, part in enumerate(parts):
            seed = config.seed * 1_000_003 + number + _PART * (distributed.number() * len(parts) + i)
            torch._foreach_copy_(buffers, before)
            figures += self._backward(part, len(parts), seed, last=i == len(parts) - 1)
            sums += _flat(statistics)
        count = len(parts) * distributed.count()
        means = torch.split(distributed.total(sums) / count, [each.numel() for each in statistics])
        torch._foreach_copy_(statistics, [m.view_as(s) for m, s in zip(means, statistics, strict=True)])
        norm = nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.clip)
        loss, blanks, frames = distributed.total(figures).tolist()
        finite = bool(torch.isfinite(norm)) and math.isfinite(loss)
        if finite:
            self.optimizer.step()
            if self.average is not None:
                self.average.update_parameters(model)
        else:
            torch._foreach_copy_(buffers, before)
        return StepReport(loss / count, blanks / frames, not finite)

    def _backward(self, part: Batch, count: int, seed: int, last: bool) -> Tensor:
        """Add the gradients of one of ``count`` parts; return its loss, its blank frames and all its frames.

        The seed decides what is dropped out. With the last part, processes exchange their gradients.
        """
        device = next(self.model.parameters()).device
        pixels, widths, targets, target_lengths = (tensor.to(device) for tensor in part)
        images = normalize(pixels, widths, self.config.preprocess).contiguous(
            memory_format=torch.channels_last
        )
        shared = self._shared
        with nullcontext() if shared is None or last else shared.no_sync():
            bf16 = torch.autocast(device.type, torch.bfloat16, enabled=self.config.precision == "bf16")
            with seeded(seed, device), bf16:
                logits, lengths = (shared or self.model.logits)(images, widths)
            loss = ctc_loss(
                logits.transpose(0, 1), targets, lengths, target_lengths,
                blank=self.alphabet.blank, zero_infinity=True, from_logits=True,
            )  # fmt: skip
            smoothing = self.config.optimizer.label_smoothing
            total = loss
            if smoothing:
                total = (1 - smoothing) * loss + smoothing * uniform_divergence(logits, lengths)
            (total / count).backward()  # type: ignore[no-untyped-call]
        return torch.stack([loss.detach(), *_blanks(logits.detach(), lengths, self.alphabet.blank)]).double()

    def state(self) -> dict[str, Any]:
        """Return the state for ``restore``, which goes on with the same bits."""
        average = None if self.average is None else self.average.state_dict()
        return {
            "model": self.model.state_dict(),
            "average": average,
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a state that :meth:`state` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])


def moving_average(model: CRNN, decay: float) -> AveragedModel:
    """Return an exponential moving average of a model's weights and of its running statistics.

    The statistics are averaged like the weights, because the statistics of the last steps belong to other
    weights. The average of the first steps is shorter: step k keeps at most (1 + k) / (10 + k).
    """

    @torch.no_grad()
    def update(averaged: Any, current: Any, count: Any) -> None:
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + int(count)) / (10 + int(count))))
        else:  # a count
            torch._foreach_copy_(averaged, current)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)


class _Logits(nn.Module):
    """``model.logits`` as the forward of a module, which DistributedDataParallel calls."""

    def __init__(self, model: CRNN) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, widths: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.logits(images, widths)


def _shared(model: CRNN) -> nn.parallel.DistributedDataParallel | None:
    """Return the wrapper that averages gradients over the processes; None for one process."""
    if not distributed.is_shared():
        return None
    return nn.parallel.DistributedDataParallel(_Logits(model), forward_sync_buffers=False)  # they stay equal


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])


def uniform_divergence(logits: Tensor, lengths: Tensor) -> Tensor:
    """Return the mean over all frames of KL(uniform || softmax), which grows with the certainty of a frame.

    Label smoothing for CTC: Kim, Seltzer, Li and Zhao, Improved training for online end-to-end speech recognition
    systems, arXiv:1711.02212.

    Args:
        logits: (N, T, C).
        lengths: (N,), frames of each sample.

    Returns:
        A number in nats, from 0 up.
    """
    inside = torch.arange(logits.shape[1], device=logits.device) < lengths[:, None]
    divergence = logits.logsumexp(-1) - logits.mean(-1) - math.log(logits.shape[-1])
    return divergence.masked_fill(~inside, 0.0).sum() / inside.sum()


def _blanks(logits: Tensor, lengths: Tensor, blank: int) -> tuple[Tensor, Tensor]:
    """Return the number of frames whose most probable class is the blank, and the number of all frames."""
    inside = torch.arange(logits.shape[1], device=logits.device) < lengths[:, None]
    return ((logits.argmax(-1) == blank) & inside).sum().float(), inside.sum().float()
