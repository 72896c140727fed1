"""Sheets: figures of many images, each as large as fits, with a title above it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from fastctc.crnn.data import Pixels
from fastctc.crnn.report.visible import cut, visible
from fastctc.figures import FAINT, new_figure, styled, text_fonts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 11.0  # of a figure, in inches
_MARGIN = 1.45  # for the names of rows
_MOST_HIGH = 0.75  # of a picture in a grid
_HIGH = 0.55  # of a picture in a flow


class Titled(NamedTuple):
    """An image, (H, W) or (H, W, 3) uint8, and its title."""

    pixels: Pixels
    title: str = ""


class _Placed(NamedTuple):
    """A picture and its place: inches from the left and the top, and the room it has."""

    picture: Titled
    x: float
    top: float
    wide: float
    high: float


def thumbnail(pixels: Pixels) -> Pixels:
    """Return an image no larger than a sheet shows it."""
    image = Image.fromarray(pixels)
    image.thumbnail((1600, 320))
    return np.asarray(image, dtype=np.uint8)


def flow(pictures: Sequence[Titled]) -> Figure:
    """Draw pictures of one height, as many in a row as have room."""
    placed, x, top = [], 0.05, 0.3
    for picture in pictures:
        rows, columns = picture.pixels.shape[:2]
        wide = min(WIDTH - 0.1, max(1.0, _HIGH * columns / rows))
        if x > 0.05 and x + wide > WIDTH:
            x, top = 0.05, top + _HIGH + 0.35
        placed.append(_Placed(picture, x, top, wide, _HIGH))
        x += wide + 0.15
    return _canvas(placed, [], top + _HIGH + 0.05)


def columns_of_grid(pictures: Sequence[Pixels], most: int) -> int:
    """Return how many pictures of a grid fit beside each other a third of an inch high."""
    aspect = float(np.quantile([pixels.shape[1] / pixels.shape[0] for pixels in pictures], 0.75))
    return max(1, min(most, int((WIDTH - _MARGIN) / (0.33 * aspect))))


def grid(rows: Sequence[Sequence[Titled]], names: Sequence[str]) -> Figure:
    """Draw pictures in rows and columns, each scaled into its cell, and the rows' names on the left."""
    cell = (WIDTH - _MARGIN) / max(len(row) for row in rows)
    wide = cell - 0.15
    placed: list[_Placed] = []
    labels: list[tuple[str, float]] = []
    top = 0.05
    for row, name in zip(rows, names, strict=True):
        high = max(min(_MOST_HIGH, wide * p.pixels.shape[0] / p.pixels.shape[1]) for p in row)
        top += 0.24 if any(p.title for p in row) else 0.0
        labels.append((name, top + high / 2))
        placed += [_Placed(p, _MARGIN + column * cell, top, wide, high) for column, p in enumerate(row)]
        top += high + 0.12
    return _canvas(placed, labels, top)


@styled
def _canvas(placed: Sequence[_Placed], labels: Sequence[tuple[str, float]], height: float) -> Figure:
    """Draw pictures in their places, and labels on the left at their distance from the top."""
    figure = new_figure(WIDTH, height, layout="none")
    axes = figure.add_axes((0, 0, 1, 1))
    for label, y in labels:
        axes.text(0.05, y, label, va="center", linespacing=1.4)
    for each in placed:
        _draw_picture(axes, each)
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(height, 0)
    axes.set_axis_off()
    return figure


def _draw_picture(axes: Axes, placed: _Placed) -> None:
    """Draw a picture as large as fits, and as much of its title as fits."""
    (pixels, title), x, top, wide, high = placed
    rows, columns = pixels.shape[:2]
    scale = min(wide / columns, high / rows)
    right, bottom = x + scale * columns, top + scale * rows
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, extent=(x, right, bottom, top), aspect="auto")
    axes.plot([x, right, right, x, x], [bottom, bottom, top, top, bottom], color=FAINT, lw=0.6)
    title = cut(visible(title), max(4, int(wide / 0.07)))
    axes.text(x, top - 0.05, title, fontsize=8, va="baseline", family=text_fonts())
