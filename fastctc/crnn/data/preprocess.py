"""From any image to the model's input: the one path that training and reading share.

A filter is one function and one field of :class:`PreprocessConfig`. The order of the fields is the order in which
the filters are applied.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from fastctc.crnn.data.images import ImageError, ImageLike, Pixels, decode
from fastctc.crnn.data.ink import Levels, gray_steps
from fastctc.crnn.data.settings import (
    at_least,
    between,
    check_settings,
    setting,
    settings_of,
)

LARGEST_FILTER = 31
HEIGHT = 32


def _median(image: Image.Image, config: PreprocessConfig) -> Image.Image:
    return image.filter(ImageFilter.MedianFilter(config.median))


def _gaussian(image: Image.Image, config: PreprocessConfig) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(config.gaussian))


def _tone(image: Image.Image, config: PreprocessConfig) -> Image.Image:
    """Make the background white and the strongest ink black.

    The background is the median level. Ink is what differs from it, on the side of the larger sum of squared
    differences: light text on a dark ground becomes dark on white too, and single dark pixels of a textured ground
    are not taken for ink.
    """
    levels = Levels.of(image)
    difference = np.arange(256) - levels.median
    sides = np.maximum(0, -difference), np.maximum(0, difference)
    ink = max(sides, key=lambda side: int(levels.counts @ side**2))  # the darker one of two equal ones
    strongest = int(max(ink[levels.low], ink[levels.high]))
    share = np.clip(ink / max(strongest, config.tone_floor), 0, 1)
    return image.point(np.rint(255 * (1 - share**config.tone)).astype(int).tolist())


def _equalize(image: Image.Image, config: PreprocessConfig) -> Image.Image:
    """Spread the levels of ink evenly from black to white, and leave white as it is."""
    below = np.concatenate(([0], np.cumsum(image.histogram()[:255])))  # darker pixels than each level
    curve: list[int] = np.rint(255 * below / max(1, below[-1])).astype(int).tolist()
    return image.point(curve[:255] + [255])


def _binarize(image: Image.Image, config: PreprocessConfig) -> Image.Image:
    threshold = otsu_threshold(image.histogram())
    return image.point([0] * (threshold + 1) + [255] * (255 - threshold))


def _opening(image: Image.Image, config: PreprocessConfig) -> Image.Image:
    size = config.opening
    return image.filter(ImageFilter.MaxFilter(size)).filter(ImageFilter.MinFilter(size))


def _closing(image: Image.Image, config: PreprocessConfig) -> Image.Image:
    size = config.closing
    return image.filter(ImageFilter.MinFilter(size)).filter(ImageFilter.MaxFilter(size))


def _crop(image: Image.Image, config: PreprocessConfig) -> Image.Image:
    """Return the rows of the text: without the empty ones above and below, in which neighboring pixels are alike.

    A sixteenth of the height above and below the text stays. So do a quarter of all rows, or more if the image is
    short, where the place of a lone sign such as a comma tells what it is.
    """
    scale = -(-image.height // _CROP_ROWS)
    pixels = np.asarray(image.reduce(scale) if scale > 1 else image, dtype=np.int16)
    height, width = pixels.shape
    if min(pixels.shape) < 8:
        return image
    edges = np.abs(pixels[:, 2:] - pixels[:, :-2])
    strongest = min(edges.shape[1], max(2, height // 16))
    strength = np.partition(edges, -strongest, axis=1)[:, -strongest:].mean(1)
    text = np.flatnonzero(strength >= max(0.3 * np.quantile(strength, 0.9), _FAINTEST))
    if not len(text):
        return image
    top, bottom = int(text[0]), int(text[-1]) + 1
    fewest = max(height / 4, height * height / width, width * config.rows / config.max_width + 1)
    rows = max((bottom - top) * 1.16 + 2, fewest)
    if rows > 0.9 * height:
        return image
    top = min(max(0, (top + bottom - rows) / 2), height - rows)
    bottom = min(image.height, math.ceil(scale * (top + rows)))
    return image.crop((0, int(scale * top), image.width, bottom))


_CROP_ROWS = 128  # rows at most in which rows of text are looked for
_FAINTEST = 4.0  # gray levels between neighboring pixels of text at least
_WINDOW = {
    "check": lambda size: size == 0 or (size % 2 == 1 and 3 <= size <= LARGEST_FILTER),
    "expected": f"0 or an odd number from 3 to {LARGEST_FILTER}",
    "metavar": "SIZE",
}


def _filter(off: Any, apply: Callable[..., Image.Image], *, shown: Any, **more: Any) -> Any:
    """Return the field of a filter.

    Args:
        off: 0 or False, which leaves the filter out.
        apply: returns the filtered image of an image and a configuration.
        shown: the value at which pictures show a filter that is off.
        more: the other arguments of :func:`setting`.
    """
    return setting(off, apply=apply, shown=shown, **more)


@dataclass(frozen=True)
class PreprocessConfig:
    """What happens to an image before the model sees it. Stored in the checkpoint.

    An image becomes gray, then passes the filters in the order of their fields, and is resized to ``height``.
    Filters count in pixels of the original image. ``median`` and ``gaussian`` remove specks, so they precede the
    tone curve, where the strongest ink decides what is full black. After the tone curve ink is dark on white,
    which ``opening`` and ``closing`` rely on.

    Attributes:
        height: rows of the model's input. The width follows from the aspect ratio, never stretched. None: 32,
            or in a training recipe what suits the network.
        max_width: columns after resizing, above which training refuses an image, and reading reads it in tiles.
        max_pixels: pixels of the original image, above which it is reduced by a whole factor. An image of 7 times
            as many is refused undecoded.
        ink: ``"found"``: each image is searched for its ink, which becomes dark on an even ground; ``"gray"``: the
            network sees gray levels as they are, for models that are trained on many kinds of grounds. The latter
            needs a ``tone`` of 0.
        contrast_floor: gray levels added to the standard deviation an image is divided by.
        tone_floor: gray levels of difference that the tone curve takes as full at least, so that an empty image
            stays empty instead of becoming amplified noise.
        median: side of the square window of a median filter, odd: removes specks. 0: none.
        gaussian: standard deviation in pixels of a Gaussian filter: removes fine noise. 0: none.
        tone: exponent of the tone curve on an image's difference from its background. Below 1 it lifts faint
            ink, which dark specks would otherwise leave without contrast. 0: none.
        equalize: makes the levels of ink equally frequent (histogram equalization). The tone curve shows faint
            ink too, and lets noise grow less.
        binarize: makes all black or white, by the threshold of Otsu (1979) of each image.
        opening: side of the square window by which ink is eroded, then dilated, odd: removes specks. 0: none.
        closing: side of the square window by which ink is dilated, then eroded, odd: fills gaps. 0: none.
        crop: cuts off empty rows above and below the text, so that the model sees small text in a tall image at its
            full height.
    """

    height: int | None = setting(None, **at_least(1))
    max_width: int = setting(2048, **at_least(1))
    max_pixels: int = setting(25_000_000, **at_least(1))
    ink: Literal["found", "gray"] = setting("found")
    contrast_floor: float = setting(8.0, lambda value: 0 < value < math.inf, "a number more than 0")
    tone_floor: int = setting(16, **at_least(1))
    median: int = _filter(0, _median, shown=3, **_WINDOW)
    gaussian: float = _filter(
        0.0, _gaussian, shown=0.8, metavar="PIXELS", **between(0, LARGEST_FILTER, "pixels")
    )
    tone: float = setting(0.5, apply=_tone, title="tone curve", **at_least(0))
    equalize: bool = _filter(False, _equalize, shown=True)
    binarize: bool = _filter(False, _binarize, shown=True)
    opening: int = _filter(0, _opening, shown=3, **_WINDOW)
    closing: int = _filter(0, _closing, shown=3, **_WINDOW)
    crop: bool = _filter(False, _crop, shown=True)

    def __post_init__(self) -> None:
        check_settings(self)
        if self.ink == "gray" and self.tone:
            raise ValueError(
                f"tone is {self.tone:g}, expected 0 with ink 'gray': the tone curve shows found ink"
            )

    @property
    def rows(self) -> int:
        """Return the rows of the model's input."""
        return self.height or HEIGHT

    def filters(self) -> dict[str, Any]:
        """Return the filters that are on, by name, in their order; the tone curve is not among them."""
        on = {each.name: getattr(self, each.name) for each in settings_of(type(self), "shown")}
        return {name: value for name, value in on.items() if value}


_APPLIED = settings_of(PreprocessConfig, "apply")


class Prepared(NamedTuple):
    """An image as the model takes it, and what was measured before.

    Attributes:
        pixels: (H, W) uint8.
        contrast: standard deviation of the gray levels of the original image, as a share of 255: 0 to 0.5.
        size: width and height of the original image in pixels, upright.
        warning: what of the original is not in the pixels; None if all is.
    """

    pixels: Pixels
    contrast: float
    size: tuple[int, int]
    warning: str | None = None


def prepare(image: ImageLike, config: PreprocessConfig) -> Prepared:
    """Read an image of any kind as gray levels at the model's height.

    Ink is found as people see it:

    - on transparency, light on dark, and in another color than an equally bright ground;
    - on a dithered or uneven ground, in a frame, and beside stray pixels.

    Of an animation the first frame counts;
    16-bit and float images are scaled to 8 bits; a rotation noted by a camera is applied.

    Args:
        image: path of a file, its bytes, a PIL image of any mode, or an array: (H, W) of uint8, or of other
            integers, floats or bools, which are scaled, or (H, W, 3 or 4) of uint8. Files may be AVIF, BMP, GIF,
            JPEG, JPEG 2000, PNG, PPM, TIFF or WebP.
        config: target height, limits and filters.

    Returns:
        The pixels, (config.rows, W), and what was measured.

    Raises:
        ImageError: missing, unreadable, truncated, empty or too large; the message names the reason.
    """
    decoded = decode(image, config.max_pixels)
    contrast = 0.0
    for name, picture, levels in _steps(decoded.picture, config):
        last = picture
        if name == "gray" and levels is not None:
            contrast = levels.spread / 255
    return Prepared(np.asarray(last, dtype=np.uint8), contrast, decoded.size, decoded.warning)


def steps(image: ImageLike, config: PreprocessConfig) -> list[tuple[str, Pixels]]:
    """Return the image after each step of :func:`prepare`, for pictures.

    Returns:
        (name of the step, uint8 array) pairs: ``"original"``, (H, W) or (H, W, 3), then ``"gray"`` and what
        else was done, (H, W), the last of them the pixels of :func:`prepare`.

    Raises:
        ImageError: as :func:`prepare`.
    """
    return [
        (name, np.asarray(picture.convert("L") if picture.mode == "1" else picture, dtype=np.uint8))
        for name, picture, _ in _steps(decode(image, config.max_pixels).picture, config)
    ]


def _steps(
    original: Image.Image, config: PreprocessConfig
) -> Iterator[tuple[str, Image.Image, Levels | None]]:
    """Yield the pictures from an image to the model's input, with their levels if they were counted.

    Each is made on demand.
    """
    (width, height), rows = original.size, config.rows
    columns = max(1, round(width * rows / height))
    if columns > config.max_width:
        raise ImageError(
            f"image of {width}x{height} pixels would be {columns} wide at height {rows},"
            f" the limit is max_width, {config.max_width}"
        )
    yield "original", original, None
    for name, gray, levels in gray_steps(original, find=config.ink == "found"):
        yield name, gray, levels
    for each in _APPLIED:
        value = getattr(config, each.name)
        if value:
            gray = each.metadata["apply"](gray, config)
            yield (
                each.metadata.get("title") or (each.name if value is True else f"{each.name} {value:g}"),
                gray,
                None,
            )
    columns = max(1, round(gray.width * rows / gray.height))
    yield f"height {rows}", gray.resize((columns, rows), Image.Resampling.BILINEAR), None


def otsu_threshold(histogram: list[int]) -> int:
    """Return the highest level of ink, by which levels fall into the two groups whose means differ most.

    Otsu, A Threshold Selection Method from Gray-Level Histograms, 1979, equation 18; 0 for a single level.
    """
    counts = np.asarray(histogram, dtype=np.float64)
    below, mass = np.cumsum(counts), np.cumsum(counts * np.arange(256))
    pairs = below * (below[-1] - below)
    return int(np.argmax((mass[-1] * below - mass * below[-1]) ** 2 / np.where(pairs > 0, pairs, np.inf)))
