"""From any image to the model's input: the one path that training and reading share."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

ImageLike = str | Path | bytes | Image.Image | npt.NDArray[np.uint8]


class ImageError(ValueError):
    """An image that cannot be read, or that is too large to be one line of text."""


@dataclass(frozen=True)
class PreprocessConfig:
    """What happens to an image before the model sees it. Stored in the checkpoint.

    Attributes:
        height: rows of the model's input; the width follows from the aspect ratio, never stretched.
        max_width: columns after resizing, above which an image is refused.
        max_pixels: pixels of the original image, above which it is refused undecoded.
        tone: exponent of the tone curve on an image's difference from its background; below 1 it lifts faint
            ink, which dark specks would otherwise leave without contrast.
        tone_floor: grey levels of difference that the curve takes as full at least, so that an empty image
            stays empty instead of becoming amplified noise.
        contrast_floor: grey levels added to the standard deviation an image is divided by.
    """

    height: int = 32
    max_width: int = 2048
    max_pixels: int = 25_000_000
    tone: float = 0.5
    tone_floor: int = 16
    contrast_floor: float = 8.0


def load_grey(image: ImageLike, config: PreprocessConfig) -> npt.NDArray[np.uint8]:
    """Reads an image of any kind as grey levels at the model's height.

    Grey, dark ink on a white background whatever it was before, then resized to ``config.height`` keeping the
    aspect ratio. Transparent parts become white; of an animation the first frame counts; 16-bit and float
    images are scaled to 8 bits; a rotation noted by a camera is applied.

    Args:
        image: path of a file, its bytes, a PIL image of any mode, or a uint8 array (H, W) or (H, W, 3 or 4).
        config: target height and the limits.

    Returns:
        (config.height, W) uint8.

    Raises:
        ImageError: missing, unreadable, truncated, empty or too large; the message names the reason.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # config.max_pixels is the limit
            opened = _open(image)
            _check_size(opened.size, config)
            grey = _to_grey(opened)
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError("no such file") from error
    except UnidentifiedImageError as error:  # its message holds an address in memory
        raise ImageError("not a readable image: of no known format") from error
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise ImageError(f"not a readable image: {error}") from error
    width, height = grey.size
    resized_width = max(1, round(width * config.height / height))
    grey = grey.point(_tone_curve(grey.histogram(), config))
    if grey.size != (resized_width, config.height):
        grey = grey.resize((resized_width, config.height), Image.Resampling.BILINEAR)
    return np.asarray(grey, dtype=np.uint8)


def _open(image: ImageLike) -> Image.Image:
    """Any accepted kind of image as a PIL image, files still undecoded."""
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3):
            raise ImageError(
                f"array of {image.dtype} and shape {image.shape}, expected uint8 (H, W) or (H, W, 3)"
            )
        return Image.fromarray(image)
    if isinstance(image, bytes):
        return Image.open(io.BytesIO(image))
    return Image.open(image)


def _check_size(size: tuple[int, int], config: PreprocessConfig) -> None:
    """Refuses what no single line of text looks like, before any pixel is decoded."""
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"image of {width}x{height} pixels is empty")
    if width * height > config.max_pixels:
        raise ImageError(f"image of {width}x{height} pixels is over the limit of {config.max_pixels} pixels")
    resized = round(width * config.height / height)
    if resized > config.max_width:
        raise ImageError(
            f"image of {width}x{height} pixels would be {resized} wide at height {config.height},"
            f" the limit is {config.max_width}"
        )


def _to_grey(image: Image.Image) -> Image.Image:
    """The first frame of an image as 8-bit grey on white."""
    if getattr(image, "is_animated", False):
        image.seek(0)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        return _scale_to_8_bits(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode not in ("L", "1", "RGB"):
        image = image.convert("RGB")
    return image.convert("L")


def _scale_to_8_bits(image: Image.Image) -> Image.Image:
    """A deep grey image (16 or 32 bits, or float) with its darkest value at 0 and its lightest at 255."""
    deep = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
    low, high = float(deep.min()), float(deep.max())
    scaled = (deep - low) * (255.0 / (high - low)) if high > low else np.full_like(deep, 255.0)
    return Image.fromarray(np.rint(scaled).astype(np.uint8))


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
    if bool((widths == width).all()):
        deviation, mean = torch.std_mean(levels, (2, 3), correction=0, keepdim=True)
        return (mean - levels) / (deviation + config.contrast_floor)
    inside = (torch.arange(width, device=images.device) < widths[:, None])[:, None, None, :]  # (N, 1, 1, W)
    pixels = (widths * height).view(-1, 1, 1, 1)
    mean = (levels * inside).sum((2, 3), keepdim=True) / pixels
    centred = (mean - levels) * inside
    deviation = (centred.square().sum((2, 3), keepdim=True) / pixels).sqrt()
    return centred / (deviation + config.contrast_floor)
