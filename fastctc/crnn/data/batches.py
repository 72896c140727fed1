"""Batches by a pure rule.

Which samples form the batch of a step, and how they are augmented, depends on the seed and the step alone. So no
state of a sampler is saved, and a resumed run sees what an uninterrupted run would have seen.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fastctc.crnn.data.augment import AugmentConfig, augmented, draws
from fastctc.crnn.data.samples import Samples
from fastctc.crnn.data.tensors import pad_batch
from fastctc.text import Alphabet


class Batch(NamedTuple):
    """The tensors of a step: images (N, 1, H, W) uint8, widths (N,), targets (sum S,), target lengths (N,)."""

    images: Tensor
    widths: Tensor
    targets: Tensor
    target_lengths: Tensor


class BatchMaker:
    """Give the batch of any step, as a pure function of the seed and the step.

    Sample positions run through an endless chain of epochs. An epoch is a permutation of all samples, drawn from
    the seed and the epoch's number. Step k takes positions ``k * batch_size`` up to ``(k + 1) * batch_size``.

    Where widths differ, little of a batch is padding. Within each window of ``buckets`` batches of an epoch, the
    permutation is sorted by width and cut into batches, whose order is drawn anew. Only the batch in which
    one epoch ends and the next begins stays unsorted, so that no width is bound to the ends::

        epoch      ... tail | head  window     window     window  tail | head ...
        batches         [   |   ]  [][][][]   [][][][]   [][]    [    |    ]

    Args:
        samples: all with texts in the alphabet.
        alphabet: for the targets.
        batch_size: images a step.
        seed: decides order and augmentation.
        augment: how much images are changed at random; None: not at all.
        buckets: batches in a window; 1 leaves the permutation as drawn, as do images of equal width.
    """

    def __init__(
        self,
        samples: Samples,
        alphabet: Alphabet,
        batch_size: int,
        *,
        seed: int = 0,
        augment: AugmentConfig | None = None,
        buckets: int = 32,
    ) -> None:
        self.samples, self.batch_size, self.seed = samples, batch_size, seed
        self.augment = augment
        self._widths = np.array([image.shape[1] for image in samples.images], dtype=np.int64)
        self._buckets = 1 if len(np.unique(self._widths)) < 2 else buckets
        self._targets = [torch.tensor(alphabet.encode(text), dtype=torch.int64) for text in samples.texts]
        self._epoch = -1
        self._order: npt.NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def indices(self, step: int) -> list[int]:
        """Return which samples form the batch of a step."""
        positions = range(step * self.batch_size, (step + 1) * self.batch_size)
        return [int(self._permutation(p // len(self.samples))[p % len(self.samples)]) for p in positions]

    def batch(self, step: int, part: tuple[int, int] = (0, 1)) -> Batch:
        """Return the batch of a step, its images augmented.

        Args:
            step: which batch.
            part: (r, n) gives the rth of n equal parts of its rows.

        Raises:
            ValueError: the batch cannot be parted evenly.
        """
        indices = self.indices(step)
        number, parts = part
        if self.batch_size % parts:
            raise ValueError(f"batch_size is {self.batch_size}, expected a multiple of {parts} parts")
        rows = slice(number * self.batch_size // parts, (number + 1) * self.batch_size // parts)
        images = [self.samples.images[i] for i in indices[rows]]
        if self.augment is not None:
            changes = draws(self.seed, step, len(indices))[rows]
            images = [augmented(*each, self.augment) for each in zip(images, changes, strict=True)]
        indices = indices[rows]
        pixels, widths = pad_batch(images)
        targets = [self._targets[i] for i in indices]
        return Batch(pixels, widths, torch.cat(targets), torch.tensor([len(target) for target in targets]))

    def _permutation(self, epoch: int) -> npt.NDArray[np.int64]:
        if epoch != self._epoch:
            self._epoch = epoch
            rng = np.random.default_rng([self.seed, 0, epoch])
            order = rng.permutation(len(self.samples))
            if self._buckets > 1:
                head = -epoch * len(order) % self.batch_size  # completes the last epoch's last batch
                window = self._buckets * self.batch_size
                whole = max(head, len(order) - (len(order) - head) % self.batch_size)
                for start in range(head, whole, window):
                    part = order[start : min(start + window, whole)]  # a view
                    by_width = part[np.argsort(self._widths[part], kind="stable")]
                    part[:] = rng.permutation(by_width.reshape(-1, self.batch_size)).ravel()
            self._order = order
        return self._order
