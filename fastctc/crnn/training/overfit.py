"""A check of a training set-up in less than a minute: it must memorize one batch."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch

from fastctc.crnn.data import (
    Batch,
    BatchMaker,
    PreprocessConfig,
    Samples,
    collect,
    normalize,
    open_source,
    own_torch_state,
    progress,
    usable_device,
)
from fastctc.crnn.model import CRNN, Checkpoint, MaskedBatchNorm
from fastctc.crnn.read import evaluate_samples
from fastctc.crnn.training.config import TrainConfig, max_rate, settled
from fastctc.crnn.training.data import usable_samples
from fastctc.crnn.training.errors import explain_out_of_memory
from fastctc.crnn.training.fine_tune import load_start, new_model, with_start
from fastctc.crnn.training.step import Learner, one_cycle
from fastctc.text import Alphabet

STEPS, SECONDS, IMAGES = 400, 50.0, 8  # at most
SMALL_LOSS = 0.05  # nats a character
ALL_BLANK = 0.98  # blank rate from which nothing is read


@dataclass(frozen=True)
class Overfit:
    """Figures of the attempt.

    Attributes:
        steps: training steps that were done.
        seconds: time of the attempt.
        images: images in the batch.
        exact: images read exactly at the end.
        loss: per character, in nats, at the last step.
        blank_rate: share of frames read as blank at the last step.
        finite: True if the last step's loss and gradient were finite.
    """

    steps: int
    seconds: float
    images: int
    exact: int
    loss: float
    blank_rate: float
    finite: bool

    @property
    def succeeded(self) -> bool:
        """Return True if the loss became small and every image is read exactly."""
        return self.finite and self.loss < SMALL_LOSS and self.exact == self.images

    def summary(self) -> str:
        """Return the result in words, with the likely reason for a failure."""
        figures = (
            f"{self.exact} of {self.images} images read exactly after {self.steps} steps"
            f" ({self.seconds:.0f} s), loss {self.loss:.4f}, blank rate {100 * self.blank_rate:.0f}%"
        )
        if self.succeeded:
            return f"one batch was learned by heart: {figures}"
        if not self.finite:
            reason = "loss or gradient is not finite: lower --max-lr, or use --precision fp32"
        elif self.blank_rate > ALL_BLANK:
            reason = (
                "every frame is read as blank, the plateau on which training with CTC begins:"
                " try another --max-lr"
            )
        elif self.steps < STEPS:
            reason = "the time ran out: a smaller --batch-size, more --threads or a smaller network may do"
        elif self.loss < SMALL_LOSS:
            reason = "the loss is small, yet not all is read: labels may be wrong, or images the same"
        else:
            reason = "the loss is still falling or stuck: try another --max-lr, and look at images and labels"
        return f"one batch was NOT learned by heart: {figures}; {reason}"


@own_torch_state(grad=True)
def overfit_one_batch(config: TrainConfig, *, show_progress: bool = True) -> Overfit:
    """Train on one fixed batch until it is read without a mistake; write nothing.

    Network, learning rate, clipping, precision and the first images follow the recipe. Random changes of the
    images, dropout, weight decay and averaging are off, because they work against memorizing.

    Args:
        config: the recipe. At most 8 images are used.
        show_progress: a progress bar on stderr, if that is a terminal.

    Returns:
        The figures, after 400 steps or 50 seconds at the latest.

    Raises:
        fastctc.crnn.LabelError: no image can be used.
        TrainError: memory ran out.
        ValueError: ``config.device`` cannot be used.
    """
    usable_device(config.device)
    start = load_start(config)
    config = settled(with_start(config, start))
    config = replace(config, optimizer=replace(config.optimizer, weight_decay=0.0, ema=0.0))
    samples, alphabet = _few_samples(config, start)
    threads_before = torch.get_num_threads()
    torch.set_num_threads(config.threads or threads_before)
    try:
        advice = (
            f"with a batch of {len(samples)} images: lower batch_size, max_width or the size of the network"
        )
        with explain_out_of_memory(lambda: advice):
            return _learn(config, samples, alphabet, start, show_progress)
    finally:
        torch.set_num_threads(threads_before)


def _few_samples(config: TrainConfig, start: Checkpoint | None) -> tuple[Samples, Alphabet]:
    """Return the first usable images, a batch of them at most."""
    count = min(IMAGES, config.schedule.batch_size)
    if config.draw is not None:
        samples, _ = collect(config.draw.source(config.seed), range(count), config.preprocess)
    else:
        source = open_source(config.data or "", config.labels)
        few = range(min(4 * count, len(source)))  # some may be unusable
        samples, _ = collect(source, few, config.preprocess, name=source.name)
    alphabet, usable, _ = usable_samples(config, samples, None if start is None else start.alphabet)
    return usable.subset(list(range(min(count, len(usable))))), alphabet


def _learn(
    config: TrainConfig, samples: Samples, alphabet: Alphabet, start: Checkpoint | None, show_progress: bool
) -> Overfit:
    preprocess, optimizer = config.preprocess, config.optimizer
    model = new_model(config, alphabet, start, dropout=0.0).to(config.device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    learner = Learner(model, config, alphabet)
    batch: Batch = BatchMaker(samples, alphabet, len(samples), seed=config.seed).batch(0)
    began, exact = time.monotonic(), 0
    with progress("one batch", "step", STEPS, show=show_progress) as bar:
        for step in range(1, STEPS + 1):
            report = learner.step(
                [batch], step - 1, one_cycle(step - 1, STEPS, max_rate(config), optimizer.warmup)
            )
            bar.update()
            over = report.skipped or step == STEPS or time.monotonic() - began > SECONDS
            if over or (report.loss < SMALL_LOSS and step % 5 == 0):
                _settle_statistics(model, batch, preprocess)
                exact = evaluate_samples(model, samples, alphabet, preprocess, device=config.device).correct
            if over or exact == len(samples):
                break
            if step % 20 == 0:
                bar.set_postfix_str(f"loss {report.loss:.3f}, blank {100 * report.blank_rate:.0f}%")
    seconds = time.monotonic() - began
    return Overfit(step, seconds, len(samples), exact, report.loss, report.blank_rate, not report.skipped)


@torch.no_grad()
def _settle_statistics(model: CRNN, batch: Batch, preprocess: PreprocessConfig) -> None:
    """Set the running statistics of the normalization to a batch: they lag behind a fast learner."""
    norms = [each for each in model.modules() if isinstance(each, MaskedBatchNorm)]
    momentum = [each.momentum for each in norms]
    for each in norms:
        each.momentum = 1.0
    device = next(model.parameters()).device
    pixels, widths = batch.images.to(device), batch.widths.to(device)
    model.logits(normalize(pixels, widths, preprocess).contiguous(memory_format=torch.channels_last), widths)
    for each, before in zip(norms, momentum, strict=True):
        each.momentum = before
