"""Drawn floor plans: rooms between walls, one sign in each room, and the class of each pixel.

The class of a pixel is the sign of its room, wherever in the room the sign is. To label a pixel, a network must
carry the sign to the farthest corner, and stop at the walls.
"""

import random

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

CLASSES = ("wall", "solid", "rows", "columns")
SIDE = 48  # pixels
_LEAST = 12  # pixels from wall to wall
_NOISE = 0.15

_Room = tuple[int, int, int, int]
"""Left, top, right and bottom, the walls included."""


def floor_plans(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw floor plans.

    Args:
        count: how many.
        seed: which series of them.

    Returns:
        images (count, SIDE, SIDE) float32, near 0 for paper and near 1 for ink; labels (count, SIDE, SIDE) int64,
        indices of CLASSES.
    """
    drawn = [_floor_plan(random.Random(f"{seed}/{i}")) for i in range(count)]
    images = torch.from_numpy(np.stack([ink for ink, _ in drawn])).float() / 255
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    return images + _NOISE * noise, torch.from_numpy(np.stack([labels for _, labels in drawn])).long()


def _floor_plan(rng: random.Random) -> tuple[np.ndarray, np.ndarray]:
    """Return ink and labels, (SIDE, SIDE) uint8."""
    ink, labels = Image.new("L", (SIDE, SIDE)), Image.new("L", (SIDE, SIDE))
    draw = ImageDraw.Draw(ink)
    for left, top, right, bottom in _rooms((0, 0, SIDE - 1, SIDE - 1), rng, splits=3):
        name = rng.choice(CLASSES[1:])
        ImageDraw.Draw(labels).rectangle((left + 1, top + 1, right - 1, bottom - 1), CLASSES.index(name))
        draw.rectangle((left, top, right, bottom), outline=255)
        _sign(draw, name, rng.randint(left + 5, right - 5), rng.randint(top + 5, bottom - 5))
    return np.asarray(ink), np.asarray(labels)


def _rooms(room: _Room, rng: random.Random, splits: int) -> list[_Room]:
    """Split a room at random, mostly across its longer side."""
    left, top, right, bottom = room
    across = rng.random() * (right - left) > rng.random() * (bottom - top)
    low, high = (left, right) if across else (top, bottom)
    if splits == 0 or high - low < 2 * _LEAST or rng.random() < 0.15:
        return [room]
    cut = rng.randint(low + _LEAST, high - _LEAST)
    first = (left, top, cut, bottom) if across else (left, top, right, cut)
    second = (cut, top, right, bottom) if across else (left, cut, right, bottom)
    return _rooms(first, rng, splits - 1) + _rooms(second, rng, splits - 1)


def _sign(draw: ImageDraw.ImageDraw, name: str, x: int, y: int) -> None:
    """Draw a sign of 7 x 7 pixels around (x, y): solid, or stripes."""
    for step in range(-3, 4, 1 if name == "solid" else 2):
        if name == "columns":
            draw.line((x + step, y - 3, x + step, y + 3), 255)
        else:
            draw.line((x - 3, y + step, x + 3, y + step), 255)
