"""From a decoded picture to gray levels in which ink differs from its ground.

Gray levels alone show no ink in some pictures that people can read:

- ink and ground are equally bright;
- the ground is dithered, framed or uneven;
- a few stray pixels span the range.

Each function below recognizes one such kind by its pixels and returns gray levels that show the ink. It returns
None for any other picture, so an ordinary picture keeps the bits of a plain conversion to gray.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from fastctc.crnn.data.images import Pixels, robust_range

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

COLOR_RATIO = 8.0  # spread of colors over the spread of gray levels, from which color shows the ink
GRAY_SPREAD = 12.0  # of gray levels, up to which ink may be missing in them
EVEN = 0.5  # share of pixels near one level from which a ground is even
FLAT_GAIN = 1.4  # how many times more pixels lie on an uneven ground than on an even one
SPECKLED = 0.02  # share of lone pixels from which a picture of two levels is dithered
ROWS = 64  # rows on which an uneven ground is estimated


class Levels(NamedTuple):
    """The gray levels of a picture.

    Attributes:
        counts: pixels of each level, (256,).
        low: the darkest level.
        high: the lightest level.
        median: the lowest level that at least half of the pixels do not exceed.
    """

    counts: Counts
    low: int
    high: int
    median: int

    @classmethod
    def of(cls, gray: Image.Image) -> Levels:
        """Count the levels of a picture of mode L."""
        counts = np.array(gray.histogram())
        present = np.flatnonzero(counts)
        return cls(counts, int(present[0]), int(present[-1]), _median(counts))

    @property
    def spread(self) -> float:
        """Return the standard deviation."""
        levels, pixels = np.arange(256), self.counts.sum()
        mean = self.counts @ levels / pixels
        return math.sqrt(self.counts @ (levels - mean) ** 2 / pixels)


def gray_steps(image: Image.Image, *, find: bool = True) -> Iterator[tuple[str, Image.Image, Levels]]:
    """Yield the gray levels of a picture, then what else was needed to see its ink.

    Args:
        image: mode 1, L or RGB.
        find: whether ink is looked for in gray levels too; False: only in colors where gray levels show nothing.

    Yields:
        (name of the step, picture of mode L, its levels), the first of them ``"gray"``.
    """
    gray = image.convert("L")
    levels = Levels.of(gray)
    yield "gray", gray, levels
    if image.mode == "RGB" and (found := by_color(image, levels)) is not None:
        gray, levels = found, Levels.of(found)
        yield "color", gray, levels
    for name, step in _STEPS if find else ():
        if (found := step(gray, levels)) is not None:
            gray, levels = found, Levels.of(found)
            yield name, gray, levels


def by_color(image: Image.Image, levels: Levels) -> Image.Image | None:
    """Return ink by its distance from the ground in color, where ink and ground are about equally bright."""
    spread = levels.spread
    if spread > GRAY_SPREAD:
        return None
    colors = np.asarray(image, dtype=np.float64)
    distance = np.sqrt(((colors - np.median(colors, axis=(0, 1))) ** 2).sum(-1))
    if math.sqrt(float((distance**2).mean())) < max(2.0, COLOR_RATIO * spread):
        return None
    return _as_ink(np.maximum(0, distance - 2 * float(np.median(distance))))


def without_stray_pixels(gray: Image.Image, levels: Levels) -> Image.Image | None:
    """Return a picture cut to the levels of nearly all pixels, where a few others span most of the range."""
    low, high = robust_range(np.arange(256), levels.counts)
    if (low, high) == (levels.low, levels.high):
        return None
    return gray.point(np.clip(np.arange(256), low, high).tolist())


def without_dither(gray: Image.Image, levels: Levels) -> Image.Image | None:
    """Return a picture of two levels smoothed to the gray levels that its dots stand for."""
    counts, low, high, _ = levels
    edge = max(1, (high - low) // 5)
    if high - low < 8 or counts[low : low + edge].sum() + counts[high - edge + 1 : high + 1].sum() < (
        0.85 * counts.sum()
    ):
        return None
    black = np.asarray(gray) > (low + high) / 2
    if min(black.shape) < 3:
        return None
    middle = black[1:-1, 1:-1]
    unlike = sum(
        (middle != each).astype(np.uint8)
        for each in (black[:-2, 1:-1], black[2:, 1:-1], black[1:-1, :-2], black[1:-1, 2:])
    )
    if float((unlike >= 3).mean()) < SPECKLED:
        return None
    sigma = max(1.3, gray.height / 60)
    margin = math.ceil(3 * sigma)
    wide = Image.fromarray(np.pad(np.asarray(gray), margin, mode="reflect"))
    smooth = wide.filter(ImageFilter.GaussianBlur(sigma))
    smooth = smooth.crop((margin, margin, margin + gray.width, margin + gray.height))
    noise = (high - low) / (12 * sigma)  # about what sums of random dots differ by
    smooth_levels = Levels.of(smooth)
    even = on_even_ground(smooth, smooth_levels, noise)
    if even is not None:
        return even
    return _two_sided(np.asarray(smooth, dtype=np.float64) - smooth_levels.median, noise)


def without_frame(gray: Image.Image, levels: Levels) -> Image.Image | None:
    """Return a picture whose frame, in another level than the ground, has the level of the ground."""
    pixels = np.asarray(gray)
    ground = levels.median
    most = max(ground - levels.low, levels.high - ground)
    if most < 16 or min(pixels.shape) < 16:
        return None
    top, bottom = _frame(pixels, ground, most / 2), _frame(pixels[::-1], ground, most / 2)
    middle = pixels[top : len(pixels) - bottom].T
    left, right = _frame(middle, ground, most / 2), _frame(middle[::-1], ground, most / 2)
    if sum(side > 0 for side in (top, bottom, left, right)) < 2:
        return None
    inside = pixels[top : pixels.shape[0] - bottom, left : pixels.shape[1] - right]
    result = np.full_like(pixels, int(np.median(inside)))
    result[top : pixels.shape[0] - bottom, left : pixels.shape[1] - right] = inside
    return Image.fromarray(result)


def _frame(lines: Pixels, ground: int, far: float) -> int:
    """Return how many of the first lines of pixels are a frame: one level, far from the ground, to a sharp edge."""
    first = lines[0, :: max(1, lines.shape[1] // 8)].tolist()
    if 2 * sum(abs(pixel - ground) > far / 2 for pixel in first) < len(first):  # most lines are ground
        return 0
    level, count = float(np.median(lines[0])), 0
    most = len(lines) // 4

    def share_within(line: Pixels, distance: float) -> float:
        return float((np.abs(line - level) <= distance).mean())

    if abs(level - ground) <= far:
        return 0
    while count < most and share_within(lines[count], far / 4) >= 0.95:
        count += 1
    if count in (0, most):
        return 0
    return next((count + n for n in range(4) if share_within(lines[count + n], far) < 0.25), 0)


def on_even_ground(gray: Image.Image, levels: Levels, noise: float = 0.0) -> Image.Image | None:
    """Return ink by its difference from an uneven ground, as dark on white, if it is more than ``noise``.

    The ground is what fits most pixels: a surface of second degree, alone or with a curve of running medians along
    the line, or the lighter or darker levels of each column. It counts if far more pixels lie on it than on any
    single level.
    """
    near, pixels = max(2, (levels.high - levels.low) // 14), levels.counts.sum()
    below = np.concatenate([np.zeros(near + 1), np.cumsum(levels.counts), np.full(near, pixels)])
    even = float((below[2 * near + 1 :] - below[: -2 * near - 1]).max()) / pixels
    if even > EVEN or min(gray.size) < 8:
        return None
    scale = -(-gray.height // ROWS)
    small = np.asarray(gray.reduce(scale) if scale > 1 else gray, dtype=np.float64)

    def share_on(ground: Floats) -> float:
        return float((np.abs(small - ground) <= near).mean())

    def fit(ground: Floats) -> tuple[float, float]:
        return round(share_on(ground), 1), -float(np.ptp(ground))

    ground = max(_surfaces(small), key=fit)
    if share_on(ground) < 0.6:
        curve = ground + _running_median(small - ground)
        ground = max([ground, curve, _columns(small, 0.2), _columns(small, 0.8)], key=fit)
    if share_on(ground) < max(0.4, FLAT_GAIN * even) or np.ptp(ground) < max(8, 2 * near):
        return None
    full = Image.fromarray(ground.astype(np.float32)).resize(gray.size, Image.Resampling.BILINEAR)
    return _two_sided(np.asarray(gray, dtype=np.float64) - np.asarray(full, dtype=np.float64), noise)


def either_side(gray: Image.Image, levels: Levels) -> Image.Image | None:
    """Return ink that is lighter and darker than the ground, or lighter beside a few darker specks."""
    darker, lighter = levels.median - levels.low, levels.high - levels.median
    if min(darker, lighter) < max(16, max(darker, lighter) / 3):
        return None
    off = np.arange(256) - levels.median
    noise = 1.5 * _median(np.bincount(np.abs(off), weights=levels.counts))
    far = max(min(darker, lighter) / 2, 4 * noise)
    dark, light = int(levels.counts[off < -far].sum()), int(levels.counts[off > far].sum())
    first, second = (dark, light) if darker >= lighter else (light, dark)
    if 4 * second < first or second == 0:  # the tone curve takes the right side
        return None
    if 8 * first > second:
        shown = 255 - np.minimum(255, np.abs(off))
    else:
        shown = 255 - np.clip(off if darker >= lighter else -off, 0, 255)
    return gray.point(shown.tolist())


def _surfaces(pixels: Floats) -> list[Floats]:
    """Return surfaces of second degree near to many gray levels (H, W): of all, of lighter and of darker ones."""
    height, width = pixels.shape
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None]
    basis = np.stack([(x**i * y**j).ravel() for i in range(3) for j in range(3 - i)], axis=1)
    step = max(1, len(basis) // 2_000)
    sampled, levels = basis[::step], pixels.ravel()[::step]

    def fit(weights: Floats) -> Floats:
        weighted = sampled * weights[:, None]
        powers: Floats = np.linalg.lstsq(weighted.T @ sampled, weighted.T @ levels, rcond=None)[0]
        return powers

    found: list[Floats] = []
    first = levels - sampled @ fit(np.ones(len(levels)))
    starts = [np.ones(len(levels)), *((side > 0).astype(np.float64) for side in (first, -first))]
    for weights in starts:
        for _ in range(8):  # Tukey's biweight: pixels of ink lose their weight
            surface = fit(weights)
            off = np.abs(levels - sampled @ surface)
            scale = 4 * max(1.0, 1.5 * float(np.median(off[weights > 0])))
            weights = np.clip(1 - (off / scale) ** 2, 0, None) ** 2
        found.append((basis @ surface).reshape(height, width))
    return found


def _columns(pixels: Floats, share: float) -> Floats:
    """Return the level in each column that a share of its gray levels (H, W) are below."""
    levels = np.quantile(pixels, share, axis=0)
    smooth: Floats = np.median(np.stack([np.roll(levels, shift) for shift in range(-2, 3)]), axis=0)
    smooth[:2], smooth[-2:] = levels[:2], levels[-2:]
    return smooth + np.zeros_like(pixels)


def _running_median(pixels: Floats) -> Floats:
    """Return for each column the median of a square window about it."""
    height, width = pixels.shape
    half, stride = max(2, height // 2), max(1, height // 16)
    centers = range(0, width, stride)
    medians = [float(np.median(pixels[:, max(0, center - half) : center + half + 1])) for center in centers]
    curve: Floats = np.interp(np.arange(width), centers, medians)
    return curve


def _two_sided(difference: Floats, noise: float = 0.0) -> Image.Image:
    """Return differences from the ground as dark ink on white: of one side, or of both where both have ink.

    Differences of no more than ``noise``, or 1.5 times their median, are white.
    """
    noise = max(noise, 1.5 * float(np.median(np.abs(difference))))
    darker, lighter = (np.maximum(0, each - noise) for each in (-difference, difference))
    dark, light = float((darker**2).sum()), float((lighter**2).sum())
    if min(dark, light) > 0.1 * max(dark, light):
        return _as_ink(darker + lighter)
    return _as_ink(darker if dark >= light else lighter)


def _as_ink(strength: Floats) -> Image.Image:
    """Return amounts of ink from 0 up as a picture, black where nearly all ink is weaker."""
    most = float(np.quantile(strength, 0.9995)) or float(strength.max()) or 1.0
    return Image.fromarray(np.rint(255 - 255 * np.minimum(1, strength / most)).astype(np.uint8))


def _median(counts: npt.ArrayLike) -> int:
    """Return the lowest level that at least half of the pixels do not exceed."""
    below = np.cumsum(counts)
    return int(np.searchsorted(below, below[-1] / 2))


_STEPS = (
    ("stray pixels", without_stray_pixels),
    ("dither", without_dither),
    ("frame", without_frame),
    ("even ground", on_even_ground),
    ("both sides", either_side),
)
