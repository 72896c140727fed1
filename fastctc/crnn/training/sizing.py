"""Settings that follow from the number of labeled images."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

from fastctc.crnn.data import open_source
from fastctc.crnn.training.config import TrainConfig

MAX_STEPS = 20_000
_MIN_STEPS = 300
_STEPS_PER_ROOT = 25
_TUNING = 0.5  # share of the steps for a run that starts from a checkpoint
_EVALUATIONS = 5

log = logging.getLogger(__name__)


def steps_for(images: int, tuning: bool = False) -> int:
    """Return the number of training steps for a number of labeled images.

    It grows with the square root: a few hundred images are seen a hundred times each, and a million a few times.

    Args:
        images: to train on.
        tuning: the run starts from a checkpoint, and half of the steps are enough.

    >>> [steps_for(images) for images in (50, 300, 1_000, 10_000, 1_000_000)]
    [300, 433, 791, 2500, 20000]
    """
    steps = min(MAX_STEPS, max(_MIN_STEPS, round(_STEPS_PER_ROOT * math.sqrt(images))))
    return round(_TUNING * steps) if tuning else steps


def sized(config: TrainConfig) -> TrainConfig:
    """Return a recipe with steps that follow from the number of its images, if it has neither steps nor minutes.

    It evaluates five times, or more often if the recipe does.

    Raises:
        fastctc.crnn.LabelError: the labels cannot be read.
    """
    schedule = config.schedule
    if config.data is None or schedule.steps is not None or schedule.minutes is not None:
        return config
    images = len(open_source(config.data, config.labels))
    steps = steps_for(images, config.start_from is not None)
    log.info(
        "%d images: %d steps of %d images, so that each is seen about %d times; steps or minutes change this",
        images, steps, schedule.batch_size, round(steps * schedule.batch_size / max(1, images)),
    )  # fmt: skip
    every = min(schedule.eval_every, -(-steps // _EVALUATIONS))
    return replace(config, schedule=replace(schedule, steps=steps, eval_every=every))
