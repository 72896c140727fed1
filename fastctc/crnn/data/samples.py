"""Samples in memory: prepared images with their texts, and which of them a model can learn from."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from fastctc.crnn.data.images import Pixels
from fastctc.text import Alphabet


class LabelError(ValueError):
    """Labels that cannot be read, or a data set in which no sample is usable."""


@dataclass(frozen=True)
class Problem:
    """A sample that was left out: its name and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass
class Samples:
    """Preprocessed images, (H, W) uint8 each, with their texts and their names in reports.

    ``contrasts`` are measured by :func:`fastctc.crnn.data.prepare`, or empty. ``numbers`` are the places of the
    samples in their data set, or empty.
    """

    images: list[Pixels] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    contrasts: list[float] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.images)

    def fingerprint(self) -> int:
        """Return a number that changes, almost surely, with any text or pixel."""
        value = zlib.crc32("\n".join(self.texts).encode())
        for image in self.images:
            value = zlib.crc32(image.tobytes(), value)
        return value

    def subset(self, indices: list[int]) -> Samples:
        """Return the samples at these indices, in this order; the images are shared."""
        return Samples(
            [self.images[i] for i in indices],
            [self.texts[i] for i in indices],
            [self.names[i] for i in indices],
            [self.contrasts[i] for i in indices] if self.contrasts else [],
            [self.numbers[i] for i in indices] if self.numbers else [],
        )

    def sampled(self, most: int, seed: int) -> Samples:
        """Return at most as many samples, in their order, chosen by a seed."""
        if len(self) <= most:
            return self
        order = np.random.default_rng([seed, 2]).permutation(len(self)).tolist()
        return self.subset(sorted(order[:most]))


def frames_needed(tokens: list[int]) -> int:
    """Return the frames that CTC needs: one per label, and a blank between equal neighbors."""
    return len(tokens) + sum(a == b for a, b in pairwise(tokens))


def check_samples(
    samples: Samples, alphabet: Alphabet, frames: Callable[[int], int]
) -> tuple[Samples, list[Problem]]:
    """Return the samples that a model can learn from, and the problems of the others.

    Args:
        samples: what to check.
        alphabet: characters of the model.
        frames: frames the model makes of an image, by its width in pixels.

    Returns:
        The usable samples, and a problem for each other one.

    Raises:
        LabelError: no sample is usable.
    """
    usable, problems = [], []
    for i, (image, text, name) in enumerate(zip(samples.images, samples.texts, samples.names, strict=True)):
        try:
            tokens = alphabet.encode(text)
        except ValueError as error:
            problems.append(Problem(name, str(error)))
            continue
        available, needed = frames(image.shape[1]), frames_needed(tokens)
        if needed > available:
            reason = f"label {text!r} needs {needed} frames, an image {image.shape[1]} wide has {available}"
            problems.append(Problem(name, reason))
            continue
        usable.append(i)
    if not usable:
        first = f"; the first: {problems[0]}" if problems else ""
        raise LabelError(f"none of {len(samples)} samples can be used{first}")
    return (samples.subset(usable) if problems else samples), problems


def split_holdout(samples: Samples, seed: int, limit: int = 1000) -> tuple[Samples, Samples]:
    """Split samples into training and evaluation.

    A twentieth is held out for evaluation, at most ``limit``, at least one, chosen by ``seed``.

    Raises:
        LabelError: fewer than two samples.
    """
    if len(samples) < 2:
        raise LabelError(f"{len(samples)} samples, expected at least 2: one to train on, one to evaluate on")
    held = min(limit, max(1, len(samples) // 20))
    order = np.random.default_rng([seed, 2]).permutation(len(samples)).tolist()
    return samples.subset(sorted(order[held:])), samples.subset(sorted(order[:held]))
