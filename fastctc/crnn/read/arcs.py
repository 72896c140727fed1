"""Pictures of text on an arc, straightened: what rectification by a trained network does, by geometry alone.

The picture is taken for the smallest box around letters on a circle::

      . - ~ ~ - .        a: half of the angle of the arc, R: radius, s: height of the letters / height
    /   . - - .   \\      width = 2 R sin a
    \\ /         \\ /      height = R - (R - s height) cos a

With q = height / width and u = tan(a / 2) follows u^3 - 2 q (1 + s) u^2 + u - 2 q (1 - s) = 0.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from PIL import Image
from PIL.Image import Resampling, Transform, Transpose

_LETTERS = 0.55  # s
_PIECES = 24  # straight ones, that an arc is made of


def straightened(picture: Image.Image) -> list[Image.Image]:
    """Return a picture for an arc that is highest in its middle, and for one that is lowest; none if it is no arc.

    Args:
        picture: of mode L or RGB. An arc is between a quarter as high as wide and as high as wide.
    """
    if not picture.width / 4 <= picture.height <= picture.width:
        return []
    half_turn = Transpose.ROTATE_180
    return [_unrolled(picture), _unrolled(picture.transpose(half_turn)).transpose(half_turn)]


def _unrolled(picture: Image.Image) -> Image.Image:
    """Return the letters of an arc that is highest in its middle, side by side."""
    width, height = picture.size
    half = _half_angle(height / width)
    radius = width / (2 * math.sin(half))
    rows = min(_LETTERS * height, 0.8 * radius)  # the center of the circle is no letter
    columns = max(_PIECES, round(2 * half * (radius - rows / 2)))

    def place(column: int, row: float) -> tuple[float, float]:
        angle = half * (2 * column / columns - 1)
        return width / 2 + (radius - row) * math.sin(angle), radius - (radius - row) * math.cos(angle)

    edges = [round(columns * n / _PIECES) for n in range(_PIECES + 1)]
    size = columns, max(1, round(rows))
    pieces = [
        ((left, 0, right, size[1]), place(left, 0) + place(left, rows) + place(right, rows) + place(right, 0))
        for left, right in pairwise(edges)
    ]
    return picture.transform(size, Transform.MESH, pieces, Resampling.BICUBIC)


def _half_angle(q: float) -> float:
    """Return half of the angle of an arc by its height over its width; a right one at most."""
    roots = np.roots([1, -2 * q * (1 + _LETTERS), 1, -2 * q * (1 - _LETTERS)])
    real = roots[np.abs(roots.imag) < 1e-9].real
    return 2 * math.atan(min([1.0, *real[real > 0].tolist()]))
