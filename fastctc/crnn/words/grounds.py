"""Grounds for words: plain, shaded and textured grounds, and parts of photographs."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Color = tuple[int, int, int]
_LARGEST = 640  # pixels of the longer side of a photograph in memory
_PACKAGED = (("matplotlib", "mpl-data/sample_data"), ("sklearn", "datasets/images"), ("skimage", "data"))
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


@cache
def photographs(folder: str | None) -> tuple[Path, ...]:
    """Return the photographs to write on, always in the same order.

    Args:
        folder: searched for images, with the folders in it; None: those that installed packages bring along.

    Raises:
        ValueError: the folder has no image.
    """
    if folder is not None:
        found = _images(Path(folder))
        if not found:
            raise ValueError(f"grounds is {folder!r}, expected a folder with images, got none")
        return found
    folders = []
    for name, inside in _PACKAGED:
        spec = find_spec(name)
        if spec is not None and spec.submodule_search_locations:
            folders.append(Path(spec.submodule_search_locations[0]) / inside)
    return tuple(path for each in folders for path in _images(each) if path.stat().st_size > 50_000)


def _images(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES))


@cache
def _photograph(path: Path) -> Image.Image:
    with Image.open(path) as opened:
        opened.draft("RGB", (_LARGEST, _LARGEST))
        image: Image.Image = opened.convert("RGB")
    image.thumbnail((_LARGEST, _LARGEST))
    return image


def random_color(rng: random.Random) -> Color:
    """Return a color: a gray for a third of all."""
    if rng.random() < 0.35:
        level = rng.randrange(256)
        return level, level, level
    return rng.randrange(256), rng.randrange(256), rng.randrange(256)


def lightness(color: Color) -> float:
    """Return the gray level of a color."""
    return 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]


def random_ground(size: tuple[int, int], photos: Sequence[Path], rng: random.Random) -> Image.Image:
    """Return a ground of a size in RGB."""
    draw = rng.random()
    if draw < 0.3 or min(size) < 3:
        return Image.new("RGB", size, random_color(rng))
    if draw < 0.45:
        return _shaded(size, random_color(rng), random_color(rng), rng)
    if draw < 0.75 and photos:
        return _part_of(_photograph(rng.choice(photos)), size, rng)
    if draw < 0.9:
        return _textured(size, rng)
    return _patterned(size, rng)


def _shaded(size: tuple[int, int], one: Color, other: Color, rng: random.Random) -> Image.Image:
    strength = rng.uniform(0.1, 0.6)
    corners = bytearray()
    for _ in range(4):
        share = rng.random() * strength
        corners += bytes(round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return Image.frombytes("RGB", (2, 2), bytes(corners)).resize(size, Image.Resampling.BILINEAR)


def _part_of(photo: Image.Image, size: tuple[int, int], rng: random.Random) -> Image.Image:
    """Return a part of a photograph, at random in place, size, direction, contrast and lightness."""
    share = rng.uniform(0.1, 1.0)
    width = max(8.0, photo.width * share)
    height = max(4.0, min(photo.height, width * size[1] / size[0] * rng.uniform(0.7, 1.4)))
    x, y = rng.random() * (photo.width - width), rng.random() * (photo.height - height)
    part = photo.resize(size, Image.Resampling.BILINEAR, (x, y, x + width, y + height), reducing_gap=1.5)
    if rng.random() < 0.5:
        part = part.transpose(rng.choice((Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180)))
    curve = []
    for _ in range(3):
        gain, base = rng.uniform(0.2, 1.0), rng.random()
        curve += [round(255 * base * (1 - gain) + level * gain) for level in range(256)]
    return part.point(curve)


def _textured(size: tuple[int, int], rng: random.Random) -> Image.Image:
    """Return noise of two grain sizes on a color."""
    numbers = np.random.default_rng(rng.getrandbits(64))
    level = np.zeros((size[1], size[0]), dtype=np.float32)
    for _ in range(2):
        grain = rng.choice((1, 2, 4, 8, 16))
        cells = max(1, size[1] // grain), max(1, size[0] // grain)
        noise = numbers.standard_normal(cells, dtype=np.float32)
        level += np.asarray(Image.fromarray(noise).resize(size, Image.Resampling.BILINEAR)) * rng.uniform(
            2, 22
        )
    color = np.asarray(random_color(rng), dtype=np.float32)
    pixels: npt.NDArray[np.uint8] = np.clip(color + level[..., None], 0, 255).astype(np.uint8)
    return Image.fromarray(pixels)


def _patterned(size: tuple[int, int], rng: random.Random) -> Image.Image:
    """Return lines at even distances, or tiles, on a color."""
    color = random_color(rng)
    image = Image.new("RGB", size, color)
    draw = ImageDraw.Draw(image)
    line = tuple(max(0, min(255, c + rng.choice((-1, 1)) * rng.randint(15, 70))) for c in color)
    step, thickness = rng.randint(5, max(6, size[1])), rng.randint(1, 3)
    first = rng.randrange(step)
    if rng.random() < 0.7:
        for y in range(first, size[1], step):
            draw.line((0, y, size[0], y), line, thickness)
    if rng.random() < 0.5:
        slope = rng.choice((0, 0, size[1], -size[1]))
        for x in range(first - size[1], size[0] + size[1], step):
            draw.line((x, 0, x + slope, size[1]), line, thickness)
    return image
