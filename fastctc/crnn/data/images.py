"""From any image to pixels: files, bytes, pictures and arrays, decoded, upright, and on white."""

from __future__ import annotations

import io
import math
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from fastctc.files import no_such_file

Pixels = npt.NDArray[np.uint8]
ImageLike = str | Path | bytes | Image.Image | npt.NDArray[Any]

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")


class ImageError(ValueError):
    """An image that cannot be read, or that is too large to be one line of text."""


class Decoded(NamedTuple):
    """A decoded image.

    Attributes:
        picture: upright and opaque, in mode 1, L or RGB.
        size: width and height of the original in pixels, upright.
        warning: what of the original the picture does not show; None if it shows all.
    """

    picture: Image.Image
    size: tuple[int, int]
    warning: str | None = None


def decode(image: ImageLike, max_pixels: int) -> Decoded:
    """Return the first frame of any accepted kind of image.

    Args:
        image: path of a file, its bytes, a PIL image of any mode, or an array: (H, W), or uint8 (H, W, 3 or 4).
        max_pixels: a larger image is reduced by a whole factor to at most as many pixels; an image 7 times as
            large is refused before it is decoded.

    Raises:
        ImageError: missing, unreadable, truncated, empty or too large; the message names the reason.
    """
    try:
        with _no_warnings():  # max_pixels is the limit; odd metadata does no harm
            if isinstance(image, str | Path):
                with _file(Path(image)) as file:
                    return _upright(Image.open(file, formats=_formats()), max_pixels)
            if isinstance(image, bytes):
                return _upright(Image.open(io.BytesIO(image), formats=_formats()), max_pixels)
            return _upright(image if isinstance(image, Image.Image) else _from_array(image), max_pixels)
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(no_such_file(image) if isinstance(image, str | Path) else "no such file") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"not a readable image: none of {', '.join(_formats())}") from error
    except Image.DecompressionBombError as error:
        limit = f"PIL.Image.MAX_IMAGE_PIXELS is {Image.MAX_IMAGE_PIXELS}"
        raise ImageError(f"image is over the limit of Pillow, where {limit}: {error}") from error
    except Exception as error:  # decoders raise almost anything: OSError, SyntaxError, struct.error, KeyError
        raise ImageError(f"not a readable image: {str(error) or type(error).__name__}") from error


_silent = threading.Lock()
_silenced = ExitStack()
_silencers = 0


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Ignore warnings while any thread is in such a block, and put back the filters after the last one.

    ``warnings.catch_warnings`` alone, entered and left by several threads in turn, would leave its filter behind.
    """
    global _silencers
    with _silent:
        if _silencers == 0:
            _silenced.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
        _silencers += 1
    try:
        yield
    finally:
        with _silent:
            _silencers -= 1
            if _silencers == 0:
                _silenced.close()


@cache
def _formats() -> tuple[str, ...]:
    """Return the formats this Pillow has, of the rasters of scanners, cameras and the web.

    Some of the others start programs (EPS) or change their size while they are decoded (ICNS).
    """
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@cache
def _suffixes() -> frozenset[str]:
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in _formats())


def is_image_name(name: str) -> bool:
    """Return True if a file name ends as the name of an image does."""
    return os.path.splitext(name)[1].lower() in _suffixes()


def images_in(folder: Path, *, recursive: bool = False) -> list[Path]:
    """Return the image files in a folder, by name.

    Args:
        folder: where.
        recursive: also those in folders below it, see :func:`files_in`.

    Raises:
        OSError: the folder itself cannot be read.
    """
    return list(files_in(folder, is_image_name, recursive=recursive))


def files_in(folder: Path, accepted: Callable[[str], bool], *, recursive: bool = False) -> Iterator[Path]:
    """Yield the files in a folder, in the order of their paths; one folder at a time is in memory.

    Args:
        folder: where.
        accepted: returns whether a file is one of these, by its name.
        recursive: also those in folders below it. Folders that are hidden, links, or not readable are left out.

    Raises:
        OSError: the folder itself cannot be read.
    """
    with os.scandir(folder) as entries:
        found = sorted(
            (entry.name, is_folder)
            for entry in entries
            if (is_folder := _is(entry.is_dir, follow_symlinks=False)) or accepted(entry.name)
        )
    for name, is_folder in found:
        path = folder / name
        if not is_folder:
            if _is(path.is_file):
                yield path
        elif recursive and not name.startswith("."):
            with suppress(OSError):
                yield from files_in(path, accepted, recursive=True)


def _is(test: Callable[..., bool], **options: bool) -> bool:
    with suppress(OSError):
        return test(**options)
    return False


def _file(path: Path) -> io.BufferedReader:
    """Return a file opened, unless it is a folder, a pipe or a device."""
    if path.exists() and not path.is_file():
        raise ImageError(f"not a readable image: {'a folder' if path.is_dir() else 'not a regular file'}")
    return path.open("rb")


def _from_array(image: object) -> Image.Image:
    if not isinstance(image, np.ndarray):
        raise ImageError(
            f"{type(image).__name__} is not an image: expected a path, bytes, a PIL image or an array"
        )
    colored = image.ndim == 3 and image.shape[2] in (3, 4) and image.dtype == np.uint8
    if not colored and (image.ndim != 2 or image.dtype.kind not in "buif"):
        raise ImageError(
            f"array of {image.dtype} and shape {image.shape}, expected (H, W) numbers or uint8 (H, W, 3 or 4)"
        )
    _check_size((image.shape[1], image.shape[0]))
    array: npt.NDArray[Any] = image
    if array.dtype == np.bool_:
        array = array * np.uint8(255)
    return Image.fromarray(array if array.dtype == np.uint8 else array.astype(np.float32))


def _upright(image: Image.Image, max_pixels: int) -> Decoded:
    """Return an opened image decoded, turned as its camera noted, and without transparency."""
    _check_size(image.size, _LARGEST * max_pixels)
    pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
    warning = f"only the first of {pages} pages was read" if pages > 1 and image.tell() == 0 else None
    if image.tell():
        image.seek(0)
    size = image.size
    factor = math.ceil(math.sqrt(size[0] * size[1] / max_pixels))
    if factor > 1 and image.format == "JPEG":
        image.draft(None, (size[0] // factor, size[1] // factor))  # decodes fewer pixels
    image.load()
    exif = image.getexif().get(_ORIENTATION) if factor > 1 else None
    with suppress(Exception):  # Pillow raises almost anything for damaged metadata
        image = ImageOps.exif_transpose(image)
    _check_size(image.size, _LARGEST * max_pixels)
    if factor == 1:
        return Decoded(_on_ground(image), image.size, warning)
    factor = math.ceil(math.sqrt(image.width * image.height / max_pixels))
    return Decoded(_on_ground(_reduced(image, factor)), size[::-1] if exif in _TURNED else size, warning)


_LARGEST = 7
"""The largest size of an image, in multiples of ``max_pixels``."""

_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)


def _reduced(image: Image.Image, factor: int) -> Image.Image:
    """Return an image whose pixels are means of squares of pixels."""
    if factor < 2:
        return image
    if image.mode in ("P", "PA", "1"):
        image = image.convert("RGBA" if image.has_transparency_data else "L" if image.mode == "1" else "RGB")
    elif image.mode.startswith("I"):
        image = Image.fromarray(np.asarray(image, dtype=np.float32))
    return image.reduce(factor)


def _check_size(size: tuple[int, int], max_pixels: float = math.inf) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"image of {width}x{height} pixels is empty")
    if width * height > max_pixels:
        raise ImageError(
            f"image of {width}x{height} pixels is over the limit of {max_pixels} pixels,"
            f" {_LARGEST} times max_pixels"
        )


def _on_ground(image: Image.Image) -> Image.Image:
    """Return an image in mode 1, L or RGB, its transparent parts filled with a ground that shows the ink."""
    if image.mode.startswith("I") or image.mode == "F":
        return _scale_to_8_bits(image)
    if image.has_transparency_data:
        image = _opaque(image.convert("RGBA"))
    return image if image.mode in ("L", "1", "RGB") else image.convert("RGB")


def _opaque(image: Image.Image) -> Image.Image:
    """Return an RGBA image without transparency.

    The ground is white, as on paper. Where ink would not be seen on white, the ground is black, or the
    coverage itself becomes dark ink on white:

    ============================================ =======================================
    the opaque pixels                            ground
    ============================================ =======================================
    are a panel with ink of its own              white or black, as the panel
    differ from white in nearly all columns      white
    differ from black in nearly all columns      black
    have every lightness                         coverage as ink
    ============================================ =======================================
    """
    white, black = (
        Image.alpha_composite(Image.new("RGBA", image.size, ground), image).convert("RGB")
        for ground in ("white", "black")
    )
    coverage = np.asarray(image.getchannel("A"))
    opaque = coverage > int(coverage.max()) // 2
    if opaque.all() or not opaque.any():
        return white
    light, dark = (np.asarray(each.convert("L"), dtype=np.int16) for each in (white, black))
    levels = light[opaque]
    rows, columns = np.flatnonzero(opaque.any(1)), np.flatnonzero(opaque.any(0))
    box = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
    if levels.size > max(0.8 * box, opaque.size / 4) and np.ptp(levels) > _VISIBLE:
        return black if np.median(levels) < 128 else white
    for ground, shown, level in ((white, light, 255), (black, dark, 0)):
        seen = (np.abs(shown - level) > _VISIBLE) & opaque
        if np.ptp(shown) > _VISIBLE and (seen.any(0) | ~opaque.any(0)).mean() > 0.95:
            return ground
    return Image.fromarray(255 - coverage).convert("RGB")


_VISIBLE = 24
"""Gray levels by which ink differs from its ground at least."""


def robust_range(levels: npt.NDArray[Any], counts: npt.NDArray[Any]) -> tuple[float, float]:
    """Return the lowest and the highest level of an image without stray pixels.

    At most 1 of 2,000 pixels at either end are stray, if without them the range is less than a quarter.

    Args:
        levels: (L,) the levels that occur, ascending; others have a count of 0.
        counts: (L,) pixels of each level.
    """
    present = levels[counts > 0]
    low, high = float(present[0]), float(present[-1])
    total = np.cumsum(counts)
    if total[-1] < _STRAY:
        return low, high
    stray = int(total[-1]) // _STRAY
    inner_low = float(levels[np.searchsorted(total, stray, side="right")])
    inner_high = float(levels[np.searchsorted(total, total[-1] - stray)])
    return (inner_low, inner_high) if 0 < 4 * (inner_high - inner_low) < high - low else (low, high)


_STRAY = 2_000


def _scale_to_8_bits(image: Image.Image) -> Image.Image:
    """Return a deep gray image (16 or 32 bits, or float) with its darkest value at 0 and its lightest at 255.

    Values that are not finite and a few stray pixels do not count.
    """
    deep = np.asarray(image, dtype=np.float64)
    finite = np.isfinite(deep)
    if not finite.all():
        deep = np.where(finite, deep, np.median(deep[finite]) if finite.any() else 0.0)
    low, high = robust_range(*np.unique(deep, return_counts=True))
    scaled = (deep - low) * (255.0 / (high - low)) if high > low else np.full_like(deep, 255.0)
    return Image.fromarray(np.rint(np.clip(scaled, 0, 255)).astype(np.uint8))
