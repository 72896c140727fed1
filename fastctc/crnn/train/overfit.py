"""A check of a training set-up in less than a minute: one batch must be learnt by heart."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch
from tqdm import tqdm

from fastctc.crnn.data.batches import Batch, BatchMaker, check_samples
from fastctc.crnn.data.collect import Samples, collect
from fastctc.crnn.data.readers import open_source
from fastctc.crnn.model.network import CRNN
from fastctc.crnn.read.evaluate import evaluate
from fastctc.crnn.train.config import TrainConfig, model_config, settled
from fastctc.crnn.train.data import formula_source
from fastctc.crnn.train.step import Learner
from fastctc.text import Alphabet

STEPS, SECONDS, IMAGES = 400, 50.0, 8  # at most
SMALL_LOSS = 0.05  # nats a character
ALL_BLANK = 0.98  # blank rate from which nothing is read


@dataclass(frozen=True)
class Overfit:
    """How the attempt went.

    Attributes:
        steps: taken.
        seconds: they took.
        images: in the batch.
        exact: of these read exactly at the end.
        loss: per character, in nats, at the last step.
        blank_rate: share of frames read as blank at the last step.
        finite: whether the last step's loss and gradient were finite.
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
        """Whether the loss became small and every image is read exactly."""
        return self.finite and self.loss < SMALL_LOSS and self.exact == self.images

    def summary(self) -> str:
        """The result for people; of a failure, the likely reason."""
        figures = (
            f"{self.exact} of {self.images} images read exactly after {self.steps} steps"
            f" ({self.seconds:.0f} s), loss {self.loss:.4f}, blank rate {100 * self.blank_rate:.0f}%"
        )
        if self.succeeded:
            return f"one batch was learnt by heart: {figures}"
        if not self.finite:
            reason = "loss or gradient is not finite: lower --max-lr, or use --precision fp32"
        elif self.blank_rate > ALL_BLANK:
            reason = (
                "every frame is read as blank, the plateau on which training with CTC begins, and it was not left:"
                " try another --max-lr"
            )
        elif self.steps < STEPS:
            reason = "the time ran out: a smaller --batch-size, more --threads or a smaller network may do"
        elif self.loss < SMALL_LOSS:
            reason = "the loss is small, yet not all is read: labels may be wrong, or images the same"
        else:
            reason = "the loss is still falling or stuck: try another --max-lr, and look at images and labels"
        return f"one batch was NOT learnt by heart: {figures}; {reason}"


def overfit_one_batch(config: TrainConfig, *, show_progress: bool = True) -> Overfit:
    """Trains on one fixed batch until it is read without a mistake; writes nothing.

    The network, the learning rate, the clipping, the precision and the first images are the recipe's; what
    works against learning by heart is off: random changes of the images, dropout, weight decay and averaging.

    Args:
        config: the recipe. At most 8 images are used.
        show_progress: a progress bar on stderr, if that is a terminal.

    Returns:
        How it went, after 400 steps or 50 seconds at the latest.

    Raises:
        fastctc.crnn.data.readers.LabelError: no image can be used.
    """
    config = replace(settled(config), weight_decay=0.0, ema=0.0, steps=STEPS)
    samples, alphabet = _few_samples(config)
    threads_before = torch.get_num_threads()
    torch.set_num_threads(config.threads or threads_before)
    try:
        return _learn(config, samples, alphabet, show_progress)
    finally:
        torch.set_num_threads(threads_before)


def _few_samples(config: TrainConfig) -> tuple[Samples, Alphabet]:
    """The first usable images, a batch of them at most."""
    count = min(IMAGES, config.batch_size)
    preprocess = config.preprocess()
    if config.data is None:
        from fastctc.crnn.formulas.grammar import CHARACTERS

        alphabet = Alphabet(config.characters or CHARACTERS)
        samples, _ = collect(formula_source(config), range(count), preprocess)
    else:
        source = open_source(config.data)
        few = range(min(4 * count, len(source)))  # some may be unusable
        samples, _ = collect(source, few, preprocess, name=source.name)
        alphabet = Alphabet(config.characters or "".join(sorted(set("".join(samples.texts)))) or "?")
    usable, _ = check_samples(samples, alphabet, model_config(config, alphabet).frames)
    return usable.subset(list(range(min(count, len(usable))))), alphabet


def _learn(config: TrainConfig, samples: Samples, alphabet: Alphabet, show_progress: bool) -> Overfit:
    preprocess = config.preprocess()
    torch.manual_seed(config.seed)
    model: CRNN = CRNN(replace(model_config(config, alphabet), dropout=0.0)).to(config.device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    learner = Learner(model, config, preprocess, alphabet)
    batch: Batch = BatchMaker(samples, alphabet, len(samples), seed=config.seed).batch(0)
    began, exact = time.monotonic(), 0
    with tqdm(total=STEPS, desc="one batch", unit="step", disable=None if show_progress else True) as bar:
        for step in range(1, STEPS + 1):
            report = learner.step([batch], step - 1)
            bar.update()
            over = report.skipped or step == STEPS or time.monotonic() - began > SECONDS
            if over or (report.loss < SMALL_LOSS and step % 5 == 0):
                exact = evaluate(model, samples, alphabet, preprocess, device=config.device).correct
            if over or exact == len(samples):
                break
            if step % 20 == 0:
                bar.set_postfix_str(f"loss {report.loss:.3f}, blank {100 * report.blank_rate:.0f}%")
    return Overfit(
        step,
        time.monotonic() - began,
        len(samples),
        exact,
        report.loss,
        report.blank_rate,
        not report.skipped,
    )
