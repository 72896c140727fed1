"""Augmentation: small changes to a training image that leave its text as it is.

A change is one function and one field of :class:`AugmentConfig`. The order of the fields is the order in which
the changes are made. There is no flip and no large rotation: a 6 turned round is a 9.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from fastctc.crnn.data.images import Pixels
from fastctc.crnn.data.settings import at_least, check_settings, setting, settings_of

MAX_ROTATION = 15
_WHITE = 255

Draw = dict[str, Any]
"""The random numbers of one image: the name of each change, with a number from -1 to 1 or a tuple of such numbers.

``"seed"`` is the seed of the noise. A missing number counts as 0.
"""


def _move(image: Pixels, draw: Draw, config: AugmentConfig) -> Pixels:
    """Shift and stretch an image, by one choice of pixels."""
    (dx, dy), (sx, sy) = draw.get("shift", (0.0, 0.0)), draw.get("stretch", (0.0, 0.0))
    return moved(
        image,
        (config.shift * dx, config.shift / 2 * dy),
        (1 + config.stretch * sx, 1 + config.stretch * sy),
    )


def _rotate(image: Pixels, draw: Draw, config: AugmentConfig) -> Pixels:
    """Turn an image anticlockwise about its middle, on white."""
    angle = bounded_angle(image.shape, config.rotate * draw.get("rotate", 0.0))
    turned = Image.fromarray(image).rotate(angle, Image.Resampling.BILINEAR, fillcolor=_WHITE)
    return np.asarray(turned, dtype=np.uint8)


def _blur(image: Pixels, draw: Draw, config: AugmentConfig) -> Pixels:
    blur = ImageFilter.GaussianBlur(config.blur * abs(draw.get("blur", 0.0)))
    return np.asarray(Image.fromarray(image).filter(blur), dtype=np.uint8)


def _contrast(image: Pixels, draw: Draw, config: AugmentConfig) -> Pixels:
    """Raise ink, as a share of black, to a power."""
    share = (_WHITE - np.arange(256)) / _WHITE
    power = (1 + config.contrast) ** draw.get("contrast", 0.0)
    curve: Pixels = np.rint(_WHITE * (1 - share**power)).astype(np.uint8)
    return curve.take(image)


def _noise(image: Pixels, draw: Draw, config: AugmentConfig) -> Pixels:
    noise = np.random.default_rng(draw.get("seed", (0,))).standard_normal(image.shape, dtype=np.float32)
    noise *= config.noise * abs(draw.get("noise", 0.0))
    noise += image
    return np.clip(np.rint(noise, out=noise), 0, _WHITE, out=noise).astype(np.uint8)


def _said_of_shift(draw: Draw, config: AugmentConfig, shape: tuple[int, ...]) -> str:
    (dx, dy), rows = draw["shift"], config.shift / 2
    if dx:
        return f"{abs(config.shift * dx):g} px {'right' if dx > 0 else 'left'}"
    return f"{abs(rows * dy):g} px {'down' if dy > 0 else 'up'}"


def _said_of_stretch(draw: Draw, config: AugmentConfig, shape: tuple[int, ...]) -> str:
    side = "width" if draw["stretch"][0] else "height"
    return f"{side} {100 * config.stretch * sum(draw['stretch']):+.0f}%"


_BOTH_WAYS = (-1.0, -0.5, 0.5, 1.0)
_FROM_ZERO = (0.25, 0.5, 0.75, 1.0)
_BOTH_AXES = ((-1.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.0, 1.0))


def _change(
    default: float,
    apply: Callable[[Pixels, Draw, AugmentConfig], Pixels],
    *,
    stream: tuple[int, ...],
    draws: tuple[Any, ...],
    shown: float,
    said: Callable[[Draw, AugmentConfig, tuple[int, ...]], str],
    **more: Any,
) -> Any:
    """Return the field of a change.

    Args:
        default: the largest change of an image; 0: none.
        apply: returns the changed image of an image, its random numbers and a configuration.
        stream: follows the seed and the step in the seed of its random numbers. A new change has its own stream, so
            the numbers of the others stay.
        draws: random numbers at which pictures show the change: one number each, or two.
        shown: the value at which pictures show the change while it is off.
        said: returns a title of what random numbers do to an image, for pictures.
        more: the other arguments of :func:`setting`.
    """
    return setting(default, apply=apply, stream=stream, draws=draws, shown=shown, said=said, **more)


@dataclass(frozen=True)
class AugmentConfig:
    """The largest random changes of training images, in the order of the fields; 0 leaves a change out.

    Attributes:
        shift: columns an image moves to either side, and half as many rows up or down. Its edge is repeated.
        stretch: share by which it is stretched or squeezed about its middle, in each direction.
        rotate: degrees it turns about its middle to either side, on white, 15 at most. The angle is less in
            a wide image, so that the ends of its line rise or sink by an eighth of its height at most.
        blur: standard deviation in pixels of a Gaussian filter, drawn from 0 up.
        contrast: share by which faint ink gains or loses against strong ink. An image's ink, as a share of
            black, is raised to a power drawn between 1 / (1 + contrast) and 1 + contrast. One factor
            would change nothing, since :func:`fastctc.crnn.data.normalize` divides by it.
        noise: standard deviation in gray levels of Gaussian noise, drawn from 0 up.
    """

    shift: float = _change(
        4, _move, stream=(), draws=_BOTH_AXES, shown=4.0, said=_said_of_shift, metavar="PIXELS", **at_least(0)
    )
    stretch: float = _change(
        0.08, _move, stream=(), draws=_BOTH_AXES, shown=0.08, said=_said_of_stretch, metavar="SHARE",
        check=lambda value: 0 <= value < 1, expected="a share of at least 0 and less than 1",
    )  # fmt: skip
    rotate: float = _change(
        0.0, _rotate, stream=(1,), draws=_BOTH_WAYS, shown=5.0, metavar="DEGREES",
        said=lambda draw, config, shape: f"{bounded_angle(shape, config.rotate * draw['rotate']):+.1f}°",
        check=lambda value: 0 <= value <= MAX_ROTATION,
        expected=f"0 to {MAX_ROTATION} degrees: turned further, characters become others, as 6 becomes 9",
    )  # fmt: skip
    blur: float = _change(
        0.0, _blur, stream=(1,), draws=_FROM_ZERO, shown=1.0, metavar="PIXELS",
        said=lambda draw, config, shape: f"{config.blur * draw['blur']:.2g} px", **at_least(0),
    )  # fmt: skip
    contrast: float = _change(
        0.0, _contrast, stream=(1,), draws=_BOTH_WAYS, shown=0.5, metavar="SHARE",
        said=lambda draw, config, shape: f"power {(1 + config.contrast) ** draw['contrast']:.2f}", **at_least(0),
    )  # fmt: skip
    noise: float = _change(
        0.0, _noise, stream=(1,), draws=_FROM_ZERO, shown=20.0, metavar="LEVELS",
        said=lambda draw, config, shape: f"{config.noise * draw['noise']:.2g} levels", **at_least(0),
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_settings(self)


CHANGES = settings_of(AugmentConfig, "apply")
_MADE = [
    (apply, [change.name for change in changes])
    for apply, changes in groupby(CHANGES, lambda change: change.metadata["apply"])
]


def draws(seed: int, step: int, count: int) -> list[Draw]:
    """Return the random numbers of the images of a step's batch, by their places in it.

    They depend on the seed, the step and the place alone.
    """
    drawn: list[Draw] = [{"seed": (seed, 1, step, 2, place)} for place in range(count)]
    for stream, changes in groupby(CHANGES, lambda change: change.metadata["stream"]):
        sizes = [(change.name, np.size(change.metadata["draws"][0])) for change in changes]
        rng = np.random.default_rng([seed, 1, step, *stream])
        numbers_of_all = rng.uniform(-1, 1, (count, sum(size for _, size in sizes))).tolist()
        for draw, numbers in zip(drawn, numbers_of_all, strict=True):
            for name, size in sizes:
                draw[name] = numbers.pop(0) if size == 1 else (numbers.pop(0), numbers.pop(0))
    return drawn


def augmented(image: Pixels, draw: Draw, config: AugmentConfig) -> Pixels:
    """Return a preprocessed image with random changes.

    Args:
        image: (H, W) uint8, dark ink on white; stays as it is.
        draw: its random numbers.
        config: the largest changes.

    Returns:
        (H, W) uint8.
    """
    for apply, names in _MADE:
        if any(getattr(config, name) for name in names):
            image = apply(image, draw, config)
    return image


def moved(image: Pixels, shift: tuple[float, float], scale: tuple[float, float]) -> Pixels:
    """Return an image shifted right and down, and magnified about its middle, by nearest pixels.

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
    """Return an angle in degrees, or the largest by which the ends of the line of an image (H, W) stay in it."""
    height, width = shape
    most = math.degrees(math.atan(height / 4 / width))  # an eighth of the height at either end
    return max(-most, min(most, degrees))
