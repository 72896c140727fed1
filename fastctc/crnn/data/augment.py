"""Augmentation: small changes to a training image that leave its text as it is.

There is no flip and no large rotation: a 6 turned round is a 9.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

Pixels = npt.NDArray[np.uint8]

MAX_ROTATION = 15
_WHITE = 255


@dataclass(frozen=True)
class AugmentConfig:
    """How much training images are changed at most, in this order; 0 leaves a change out.

    Attributes:
        shift: columns an image moves to either side, and half as many rows up or down, its edge repeated.
        stretch: share by which it is stretched or squeezed about its middle, in each direction.
        rotate: degrees it turns about its middle to either side, on white; less where the image is so wide
            that the ends of its line would rise or sink by more than an eighth of its height.
        blur: standard deviation in pixels of a Gaussian filter, drawn from 0 up.
        contrast: share by which faint ink gains or loses against strong ink: an image's ink, as a share of
            black, is raised to a power drawn between 1 / (1 + contrast) and 1 + contrast. One factor for all
            of it would change nothing, since :func:`fastctc.crnn.data.preprocess.normalize` divides by it.
        noise: standard deviation in grey levels of Gaussian noise, drawn from 0 up.
    """

    shift: float = 4
    stretch: float = 0.08
    rotate: float = 0.0
    blur: float = 0.0
    contrast: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        for name in ("shift", "blur", "contrast", "noise"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 0")
        if not 0 <= self.stretch < 1:
            raise ValueError(f"stretch is {self.stretch}, expected a share of at least 0 and less than 1")
        if not 0 <= self.rotate <= MAX_ROTATION:
            raise ValueError(
                f"rotate is {self.rotate}, expected 0 to {MAX_ROTATION} degrees: turned further, characters"
                " become others, as 6 becomes 9"
            )


class Draw(NamedTuple):
    """The random numbers of one image, each uniform from -1 to 1 where nothing else is said.

    Attributes:
        shift: of columns and of rows.
        stretch: of width and of height.
        rotate, blur, contrast, noise: how much of each; of blur and noise the absolute value counts.
        seed: of the noise's pixels.
    """

    shift: tuple[float, float] = (0.0, 0.0)
    stretch: tuple[float, float] = (0.0, 0.0)
    rotate: float = 0.0
    blur: float = 0.0
    contrast: float = 0.0
    noise: float = 0.0
    seed: tuple[int, ...] = (0,)


def draws(seed: int, step: int, count: int) -> list[Draw]:
    """The random numbers of the images of a step's batch, by their places in it.

    They depend on the seed, the step and the place alone: not on what is switched on, nor on the images.
    """
    moves = np.random.default_rng([seed, 1, step]).uniform(-1, 1, (count, 4)).tolist()
    others = np.random.default_rng([seed, 1, step, 1]).uniform(-1, 1, (count, 4)).tolist()
    return [
        Draw((dx, dy), (sx, sy), rotate, blur, contrast, noise, (seed, 1, step, 2, place))
        for place, ((dx, dy, sx, sy), (rotate, blur, contrast, noise)) in enumerate(
            zip(moves, others, strict=True)
        )
    ]


def augmented(image: Pixels, draw: Draw, config: AugmentConfig) -> Pixels:
    """A preprocessed image changed as drawn.

    Args:
        image: (H, W) uint8, dark ink on white; stays as it is.
        draw: its random numbers.
        config: how much they amount to.

    Returns:
        (H, W) uint8.
    """
    (dx, dy), (sx, sy) = draw.shift, draw.stretch
    if config.shift or config.stretch:
        image = moved(
            image,
            (config.shift * dx, config.shift / 2 * dy),
            (1 + config.stretch * sx, 1 + config.stretch * sy),
        )
    if config.rotate:
        image = _rotated(image, config.rotate * draw.rotate)
    if config.blur:
        blurred = Image.fromarray(image).filter(ImageFilter.GaussianBlur(config.blur * abs(draw.blur)))
        image = np.asarray(blurred, dtype=np.uint8)
    if config.contrast:
        image = _power_curve((1 + config.contrast) ** draw.contrast).take(image)
    if config.noise:
        noise = np.random.default_rng(draw.seed).standard_normal(image.shape, dtype=np.float32)
        noise *= config.noise * abs(draw.noise)
        noise += image
        image = np.clip(np.rint(noise, out=noise), 0, _WHITE, out=noise).astype(np.uint8)
    return image


def moved(image: Pixels, shift: tuple[float, float], scale: tuple[float, float]) -> Pixels:
    """An image shifted right and down, and magnified about its middle, by nearest pixels.

    Args:
        image: (H, W).
        shift: pixels to the right and down; what comes in repeats the edge.
        scale: magnification of width and height.

    Returns:
        (H, W) uint8.
    """
    for axis, by, times in ((0, shift[1], scale[1]), (1, shift[0], scale[0])):
        size = image.shape[axis]
        middle = (size - 1) / 2
        origin = np.rint((np.arange(size) - middle - by) / times + middle).astype(np.intp)
        image = image.take(np.clip(origin, 0, size - 1), axis=axis)
    return image


def bounded_angle(shape: tuple[int, ...], degrees: float) -> float:
    """An angle in degrees, or the largest by which the ends of the line of an image (H, W) stay in it."""
    height, width = shape
    most = math.degrees(math.atan(height / 4 / width))  # an eighth of the height at either end
    return max(-most, min(most, degrees))


def _rotated(image: Pixels, degrees: float) -> Pixels:
    """An image turned anticlockwise about its middle, on white."""
    angle = bounded_angle(image.shape, degrees)
    turned = Image.fromarray(image).rotate(angle, Image.Resampling.BILINEAR, fillcolor=_WHITE)
    return np.asarray(turned, dtype=np.uint8)


def _power_curve(power: float) -> Pixels:
    """The grey level that each of 256 levels becomes when ink, as a share of black, is raised to a power."""
    share = (_WHITE - np.arange(256)) / _WHITE
    curve: Pixels = np.rint(_WHITE * (1 - share**power)).astype(np.uint8)
    return curve
