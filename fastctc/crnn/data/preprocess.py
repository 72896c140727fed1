"""From any image to the model's input: the one path that training and reading share."""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageFilter, ImageOps, UnidentifiedImageError
from torch import Tensor

ImageLike = str | Path | bytes | Image.Image | npt.NDArray[np.uint8]

LARGEST_FILTER = 31
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")


class ImageError(ValueError):
    """An image that cannot be read, or that is too large to be one line of text."""


@dataclass(frozen=True)
class PreprocessConfig:
    """What happens to an image before the model sees it. Stored in the checkpoint.

    The steps, in this order: grey; ``median``; ``gaussian``; the tone curve; ``equalize``; ``binarize``;
    ``opening``; ``closing``; resized to ``height``. Filters count in pixels of the original image. Those that
    take specks away come before the tone curve, so that it is the ink that decides what is full black; after
    it ink is dark on white whatever it was, which opening and closing rely on.

    Attributes:
        height: rows of the model's input; the width follows from the aspect ratio, never stretched.
        max_width: columns after resizing, above which an image is refused.
        max_pixels: pixels of the original image, above which it is refused undecoded.
        tone: exponent of the tone curve on an image's difference from its background; below 1 it lifts faint
            ink, which dark specks would otherwise leave without contrast.
        tone_floor: grey levels of difference that the curve takes as full at least, so that an empty image
            stays empty instead of becoming amplified noise.
        contrast_floor: grey levels added to the standard deviation an image is divided by.
        median: side of the window of a median filter, which removes specks; odd, 0: none.
        gaussian: standard deviation of a Gaussian filter, which removes fine noise; 0: none.
        equalize: whether the levels of ink are made equally frequent (histogram equalisation). The tone curve
            shows faint ink too, and lets noise grow less.
        binarize: whether all becomes black or white, by the threshold of Otsu (1979) of each image.
        opening: side of the window by which ink is eroded, then dilated, which removes specks; odd, 0: none.
        closing: side of the window by which ink is dilated, then eroded, which fills gaps; odd, 0: none.
    """

    height: int = 32
    max_width: int = 2048
    max_pixels: int = 25_000_000
    tone: float = 0.5
    tone_floor: int = 16
    contrast_floor: float = 8.0
    median: int = 0
    gaussian: float = 0.0
    equalize: bool = False
    binarize: bool = False
    opening: int = 0
    closing: int = 0

    def __post_init__(self) -> None:
        for name in ("height", "max_width", "max_pixels", "tone_floor"):
            if not getattr(self, name) >= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")
        for name in ("tone", "contrast_floor"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}, expected a number more than 0")
        for name in ("median", "opening", "closing"):
            size = getattr(self, name)
            if size != 0 and not (size % 2 == 1 and 3 <= size <= LARGEST_FILTER):
                raise ValueError(f"{name} is {size}, expected 0 or an odd number from 3 to {LARGEST_FILTER}")
        if not 0 <= self.gaussian <= LARGEST_FILTER:
            raise ValueError(f"gaussian is {self.gaussian}, expected 0 to {LARGEST_FILTER} pixels")
        for name in ("equalize", "binarize"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} is {getattr(self, name)!r}, expected true or false")


class Prepared(NamedTuple):
    """An image as the model takes it, and what was measured before.

    Attributes:
        pixels: (H, W) uint8.
        contrast: standard deviation of the grey levels of the original image, as a share of 255: 0 to 0.5.
        size: width and height of the original image in pixels, upright.
    """

    pixels: npt.NDArray[np.uint8]
    contrast: float
    size: tuple[int, int]


def load_grey(image: ImageLike, config: PreprocessConfig) -> npt.NDArray[np.uint8]:
    """The pixels of :func:`prepare`."""
    return prepare(image, config).pixels


def prepare(image: ImageLike, config: PreprocessConfig) -> Prepared:
    """Reads an image of any kind as grey levels at the model's height.

    Grey, dark ink on a white background whatever it was before, filtered as configured, then resized to
    ``config.height`` keeping the aspect ratio. Transparent parts become white; of an animation the first
    frame counts; 16-bit and float images are scaled to 8 bits; a rotation noted by a camera is applied.

    Args:
        image: path of a file, its bytes, a PIL image of any mode, or a uint8 array (H, W) or (H, W, 3 or 4).
            Files may be AVIF, BMP, GIF, JPEG, JPEG 2000, PNG, PPM, TIFF or WebP.
        config: target height, limits and filters.

    Returns:
        The pixels, (config.height, W), and what was measured.

    Raises:
        ImageError: missing, unreadable, truncated, empty or too large; the message names the reason.
    """
    contrast, size = 0.0, (0, 0)
    for name, picture in _steps(image, config):
        if name == "grey":
            contrast, size = _contrast(picture.histogram()), picture.size
    return Prepared(np.asarray(picture, dtype=np.uint8), contrast, size)


def steps(image: ImageLike, config: PreprocessConfig) -> list[tuple[str, npt.NDArray[np.uint8]]]:
    """The image after each step of :func:`prepare`, for pictures.

    Returns:
        (name of the step, uint8 array) pairs: ``"original"``, (H, W) or (H, W, 3), then ``"grey"`` and what
        else was done, (H, W), the last of them what :func:`load_grey` returns.

    Raises:
        ImageError: as :func:`prepare`.
    """
    return [
        (name, np.asarray(picture.convert("L") if picture.mode == "1" else picture, dtype=np.uint8))
        for name, picture in _steps(image, config)
    ]


def _steps(image: ImageLike, config: PreprocessConfig) -> Iterator[tuple[str, Image.Image]]:
    """The pictures on the way from an image to the model's input, each made when asked for."""
    original = _decoded(image, config)
    yield "original", original
    grey = original.convert("L")
    yield "grey", grey
    if config.median:
        grey = grey.filter(ImageFilter.MedianFilter(config.median))
        yield f"median {config.median}", grey
    if config.gaussian:
        grey = grey.filter(ImageFilter.GaussianBlur(config.gaussian))
        yield f"gaussian {config.gaussian:g}", grey
    grey = grey.point(_tone_curve(grey.histogram(), config))
    yield "tone curve", grey
    if config.equalize:
        grey = grey.point(_equalizing_curve(grey.histogram()))
        yield "equalized", grey
    if config.binarize:
        threshold = _otsu_threshold(grey.histogram())
        grey = grey.point([0] * (threshold + 1) + [255] * (255 - threshold))
        yield "binarized", grey
    lighter, darker = ImageFilter.MaxFilter, ImageFilter.MinFilter
    if config.opening:
        grey = grey.filter(lighter(config.opening)).filter(darker(config.opening))
        yield f"opening {config.opening}", grey
    if config.closing:
        grey = grey.filter(darker(config.closing)).filter(lighter(config.closing))
        yield f"closing {config.closing}", grey
    width, height = grey.size
    resized = (max(1, round(width * config.height / height)), config.height)
    yield f"height {config.height}", grey.resize(resized, Image.Resampling.BILINEAR)


def _decoded(image: ImageLike, config: PreprocessConfig) -> Image.Image:
    """The first frame of any accepted kind of image: upright, on white, in mode 1, L or RGB."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # config.max_pixels is the limit; odd metadata does no harm
            if isinstance(image, str | Path):
                with _file(Path(image)) as file:
                    return _upright(Image.open(file, formats=_formats()), config)
            if isinstance(image, bytes):
                return _upright(Image.open(io.BytesIO(image), formats=_formats()), config)
            return _upright(image if isinstance(image, Image.Image) else _from_array(image), config)
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError("no such file") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"not a readable image: none of {', '.join(_formats())}") from error
    except Exception as error:  # decoders raise almost anything: OSError, SyntaxError, struct.error, KeyError
        raise ImageError(f"not a readable image: {str(error) or type(error).__name__}") from error


@cache
def _formats() -> tuple[str, ...]:
    """The formats this Pillow has, of the rasters of scanners, cameras and the web.

    Of the rest some start other programs (EPS) or change their size while being decoded (ICNS).
    """
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def image_suffixes() -> set[str]:
    """The endings of file names that stand for a format which can be read, in lower case with their dot."""
    return {suffix for suffix, name in Image.registered_extensions().items() if name in _formats()}


def _file(path: Path) -> io.BufferedReader:
    """A file opened, unless it is a folder, a pipe or a device."""
    if path.exists() and not path.is_file():
        raise ImageError(f"not a readable image: {'a folder' if path.is_dir() else 'not a regular file'}")
    return path.open("rb")


def _from_array(image: object) -> Image.Image:
    if not isinstance(image, np.ndarray):
        raise ImageError(
            f"{type(image).__name__} is not an image: expected a path, bytes, a PIL image or an array"
        )
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4))):
        raise ImageError(
            f"array of {image.dtype} and shape {image.shape}, expected uint8 (H, W) or (H, W, 3 or 4)"
        )
    _check_size((image.shape[1], image.shape[0]))
    return Image.fromarray(image)


def _upright(image: Image.Image, config: PreprocessConfig) -> Image.Image:
    """An opened image decoded, turned as its camera noted, and laid on white."""
    _check_size(image.size, config.max_pixels)
    if image.tell():
        image.seek(0)
    image.load()
    with contextlib.suppress(Exception):  # damaged metadata, of which Pillow raises almost anything
        image = ImageOps.exif_transpose(image)
    _check_size(image.size, config.max_pixels)
    width = round(image.width * config.height / image.height)
    if width > config.max_width:
        raise ImageError(
            f"image of {image.width}x{image.height} pixels would be {width} wide at height {config.height},"
            f" the limit is {config.max_width}"
        )
    return _on_white(image)


def _check_size(size: tuple[int, int], max_pixels: float = math.inf) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"image of {width}x{height} pixels is empty")
    if width * height > max_pixels:
        raise ImageError(f"image of {width}x{height} pixels is over the limit of {max_pixels} pixels")


def _on_white(image: Image.Image) -> Image.Image:
    """An image in mode 1, L or RGB, whatever was transparent white."""
    if image.mode.startswith("I") or image.mode == "F":
        return _scale_to_8_bits(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode in ("L", "1", "RGB") else image.convert("RGB")


def _scale_to_8_bits(image: Image.Image) -> Image.Image:
    """A deep grey image (16 or 32 bits, or float) with its darkest value at 0 and its lightest at 255."""
    deep = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
    low, high = float(deep.min()), float(deep.max())
    scaled = (deep - low) * (255.0 / (high - low)) if high > low else np.full_like(deep, 255.0)
    return Image.fromarray(np.rint(scaled).astype(np.uint8))


def _contrast(histogram: list[int]) -> float:
    """The standard deviation of grey levels, as a share of 255."""
    counts, levels = np.asarray(histogram, dtype=np.float64), np.arange(256)
    mean = counts @ levels / counts.sum()
    return math.sqrt(counts @ (levels - mean) ** 2 / counts.sum()) / 255


def _tone_curve(histogram: list[int], config: PreprocessConfig) -> list[int]:
    """The grey level that each of 256 levels becomes: background white, the strongest ink black.

    The background is the median level, ink what differs from it on the side that differs more: so light text
    on a dark ground comes out dark on white too.
    """
    total = np.cumsum(histogram)
    background = int(np.searchsorted(total, total[-1] / 2))
    present = np.flatnonzero(histogram)
    darker, lighter = background - int(present[0]), int(present[-1]) - background
    difference = np.arange(256) - background
    ink = -difference if darker >= lighter else difference
    share = np.clip(ink / max(darker, lighter, config.tone_floor), 0, 1)
    curve: list[int] = np.rint(255 * (1 - share**config.tone)).astype(int).tolist()
    return curve


def _equalizing_curve(histogram: list[int]) -> list[int]:
    """The curve that spreads the levels of ink evenly from black to white, and leaves white as it is."""
    below = np.concatenate(([0], np.cumsum(histogram[:255])))  # darker pixels than each level
    curve: list[int] = np.rint(255 * below / max(1, below[-1])).astype(int).tolist()
    return curve[:255] + [255]


def _otsu_threshold(histogram: list[int]) -> int:
    """The highest level of ink, by which levels fall into the two groups whose means differ most.

    Otsu, A Threshold Selection Method from Gray-Level Histograms, 1979, equation 18; 0 for a single level.
    """
    counts = np.asarray(histogram, dtype=np.float64)
    below, mass = np.cumsum(counts), np.cumsum(counts * np.arange(256))
    pairs = below * (below[-1] - below)
    return int(np.argmax((mass[-1] * below - mass * below[-1]) ** 2 / np.where(pairs > 0, pairs, np.inf)))


def pad_batch(images: list[npt.NDArray[np.uint8]], multiple: int = 4) -> tuple[Tensor, Tensor]:
    """Stacks images of one height into a batch, padded on the right.

    Args:
        images: N arrays (H, W_n) uint8.
        multiple: the batch's width is rounded up to a multiple of this.

    Returns:
        images (N, 1, H, W) uint8, padded with zeros, and widths (N,) int64.
    """
    widths = [image.shape[1] for image in images]
    full = -(-max(widths) // multiple) * multiple
    batch = np.zeros((len(images), 1, images[0].shape[0], full), dtype=np.uint8)
    for n, image in enumerate(images):
        batch[n, 0, :, : widths[n]] = image
    return torch.from_numpy(batch), torch.tensor(widths)


def normalize(images: Tensor, widths: Tensor, config: PreprocessConfig) -> Tensor:
    """Centres each image on its own mean and scales it by its own contrast; ink becomes positive.

    Args:
        images: (N, 1, H, W) uint8.
        widths: (N,) int64, columns of each image that are not padding.
        config: ``contrast_floor`` is used.

    Returns:
        (N, 1, H, W) float32, exactly zero in the padding, which does not influence the rest.
    """
    levels = images.float()
    height, width = levels.shape[-2:]
    if not torch.compiler.is_exporting() and bool((widths == width).all()):
        deviation, mean = torch.std_mean(levels, (2, 3), correction=0, keepdim=True)
        return (mean - levels) / (deviation + config.contrast_floor)
    inside = (torch.arange(width, device=images.device) < widths[:, None])[:, None, None, :]  # (N, 1, 1, W)
    pixels = (widths * height).view(-1, 1, 1, 1)
    mean = (levels * inside).sum((2, 3), keepdim=True) / pixels
    centred = (mean - levels) * inside
    deviation = (centred.square().sum((2, 3), keepdim=True) / pixels).sqrt()
    return centred / (deviation + config.contrast_floor)
