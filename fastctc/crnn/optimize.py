"""One training step: learning rate, forward, loss, backward, update, average."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from fastctc.crnn import distributed
from fastctc.crnn.batches import Batch
from fastctc.crnn.model import CRNN
from fastctc.crnn.optimizers import Optimizer, make_optimizer, set_rate
from fastctc.crnn.preprocess import PreprocessConfig, normalize
from fastctc.crnn.recipe import TrainConfig
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


class Learner:
    """A model in training, with its optimizer and the moving average of its weights.

    Args:
        model: on its device; trained in place.
        config: the recipe, its steps settled or, to measure their speed, not yet.
        preprocess: the model's.
        alphabet: the model's.
    """

    def __init__(
        self, model: CRNN, config: TrainConfig, preprocess: PreprocessConfig, alphabet: Alphabet
    ) -> None:
        self.model, self.config = model.train(), config
        self.preprocess, self.alphabet = preprocess, alphabet
        self.optimizer = make_optimizer(model, config.optimizer, config.weight_decay)
        self.average = moving_average(model, config.ema) if config.ema else None
        self._logits = _shared_logits(model)

    @property
    def result(self) -> CRNN:
        """The model to evaluate and to keep: the averaged one if there is one."""
        if self.average is None:
            return self.model
        return cast(CRNN, self.average.module)

    def step(self, batch: Batch, number: int) -> StepReport:
        """One update by this process's rows of the batch of a step."""
        config = self.config
        lr, momentum = one_cycle(number, config.steps or 1, config.max_lr, config.warmup)
        set_rate(self.optimizer, lr, momentum)
        torch.manual_seed(config.seed * 1_000_003 + number)  # dropout
        report = training_step(
            self.model, self.optimizer, batch, self.preprocess, self.alphabet,
            clip=config.clip, bf16=config.precision == "bf16", compute_logits=self._logits,
        )  # fmt: skip
        if self.average is not None and not report.skipped:
            self.average.update_parameters(self.model)
        return report

    def state(self) -> dict[str, Any]:
        """What ``restore`` takes to go on with the same bits."""
        average = None if self.average is None else self.average.state_dict()
        return {
            "model": self.model.state_dict(),
            "average": average,
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up what ``state`` gave."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])


def moving_average(model: CRNN, decay: float) -> AveragedModel:
    """An exponential moving average of a model's weights and of its running statistics.

    The statistics are averaged as the weights are: those of the last few steps would be of other weights. Over
    the first steps the average is shorter, lest it remember the weights of the beginning: step k keeps at most
    (1 + k) / (10 + k).
    """

    @torch.no_grad()
    def update(averaged: Any, current: Any, count: Any) -> None:
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + int(count)) / (10 + int(count))))
        else:  # a count
            torch._foreach_copy_(averaged, current)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)


class _Logits(nn.Module):
    """``model.logits`` as the forward of a module, which is what DistributedDataParallel calls."""

    def __init__(self, model: CRNN) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, widths: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.logits(images, widths)


def _shared_logits(model: CRNN) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """What computes logits such that gradients become means over the processes that share a batch."""
    if not distributed.is_shared():
        return model.logits
    return nn.parallel.DistributedDataParallel(_Logits(model), forward_sync_buffers=False)  # they stay equal


def training_step(
    model: CRNN, optimizer: Optimizer, batch: Batch, preprocess: PreprocessConfig,
    alphabet: Alphabet, *, clip: float, bf16: bool,
    compute_logits: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
) -> StepReport:  # fmt: skip
    """One update of the weights; a batch whose loss or gradient is not finite changes nothing."""
    device = next(model.parameters()).device
    pixels, widths, targets, target_lengths = (tensor.to(device) for tensor in batch)
    images = normalize(pixels, widths, preprocess).contiguous(memory_format=torch.channels_last)
    statistics = [buffer.clone() for buffer in model.buffers()]
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        logits, lengths = (compute_logits or model.logits)(images, widths)
    loss = ctc_loss(
        logits.transpose(0, 1), targets, lengths, target_lengths,
        blank=alphabet.blank, zero_infinity=True, from_logits=True,
    )  # fmt: skip
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
    figures = torch.stack([loss.detach().float(), *_blanks(logits.detach(), lengths, alphabet.blank)])
    if distributed.is_shared():
        figures = distributed.total(figures)
    loss_sum, blanks, frames = figures.tolist()
    mean_loss = loss_sum / distributed.count()
    finite = bool(torch.isfinite(norm)) and math.isfinite(mean_loss)
    if finite:
        optimizer.step()
    else:
        for buffer, before in zip(model.buffers(), statistics, strict=True):
            buffer.copy_(before)
    return StepReport(mean_loss, blanks / frames, not finite)


def _blanks(logits: Tensor, lengths: Tensor, blank: int) -> tuple[Tensor, Tensor]:
    """How many of the frames have the blank as their most probable class, and how many there are."""
    inside = torch.arange(logits.shape[1], device=logits.device) < lengths[:, None]
    return ((logits.argmax(-1) == blank) & inside).sum().float(), inside.sum().float()
