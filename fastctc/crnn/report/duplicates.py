"""Images that are in a data set twice, or in two data sets: equal ones, and nearly equal ones."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from fastctc.crnn.data import Pixels

_SIZE = (96, 16)  # of a thumbnail
_ALIKE = 0.96  # correlation of two thumbnails from which images are nearly equal
_WIDTHS = 1.05  # ratio of the widths of nearly equal images, at most
_BLOCK = 2_048  # images compared at once


@dataclass(frozen=True)
class Look:
    """The look of a prepared image, small enough to be kept for every sample.

    Attributes:
        digest: equal for equal pixels.
        width: columns of the prepared image.
        thumbnail: its pixels, reduced.
    """

    digest: bytes
    width: int
    thumbnail: bytes


def look_of(pixels: Pixels) -> Look:
    """Return the look of a prepared image (H, W) uint8."""
    digest = hashlib.blake2b(pixels.tobytes() + bytes(str(pixels.shape), "ascii"), digest_size=16).digest()
    small = Image.fromarray(pixels).resize(_SIZE, Image.Resampling.BOX)
    return Look(digest, pixels.shape[1], small.tobytes())


def pairs_within(looks: Sequence[Look]) -> list[tuple[int, int, bool]]:
    """Return the pairs of equal or nearly equal images; an image without ink is like no other.

    Returns:
        Positions of the first such image and of a later one, and whether their pixels are equal.
    """
    found: dict[int, tuple[int, int, bool]] = {}
    for later, earlier, equal in _alike(looks, looks):
        if earlier < later and later not in found:
            found[later] = (earlier, later, equal)
    return list(found.values())


def pairs_between(looks: Sequence[Look], others: Sequence[Look]) -> list[tuple[int, int, bool]]:
    """Return the pairs of an image and the first of the others that is equal or nearly equal."""
    found: dict[int, tuple[int, int, bool]] = {}
    for one, other, equal in _alike(looks, others):
        found.setdefault(one, (one, other, equal))
    return list(found.values())


def _alike(looks: Sequence[Look], others: Sequence[Look]) -> Iterator[tuple[int, int, bool]]:
    """Yield positions of like images, ascending, and whether their pixels are equal."""
    if not looks or not others:
        return
    rows, columns = _normalized(looks), _normalized(others)
    widths, other_widths = (np.array([each.width for each in side]) for side in (looks, others))
    for start in range(0, len(looks), _BLOCK):
        block = slice(start, start + _BLOCK)
        near = rows[block] @ columns.T >= _ALIKE
        ratio = widths[block, None] / other_widths
        near &= (ratio <= _WIDTHS) & (ratio >= 1 / _WIDTHS)
        for one, other in np.argwhere(near).tolist():
            equal = looks[start + one].digest == others[other].digest
            yield start + one, other, equal


def _normalized(looks: Sequence[Look]) -> npt.NDArray[np.float32]:
    """Return thumbnails (N, pixels) whose product is their correlation; zero for an image without ink."""
    pixels: npt.NDArray[np.float32] = np.stack(
        [np.frombuffer(each.thumbnail, np.uint8) for each in looks]
    ).astype(np.float32)
    pixels -= pixels.mean(1, keepdims=True)
    norm = np.linalg.norm(pixels, axis=1, keepdims=True)
    norm[norm == 0] = np.inf
    pixels /= norm
    return pixels
