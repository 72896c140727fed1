"""The shape of a written text: glyphs on a line, then the line as a camera sees it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

STRIPS = 8  # number of parts that a line is cut into for bending
ROWS = 3  # number of parts at least that a strip is cut into where letters turn or are out of shape
_MARGIN = 6


class Lettering(NamedTuple):
    """Where the ink of a text is: coverage (0-255) of each pixel, one size.

    Attributes:
        fill: of the letters.
        outline: of the letters made bolder by the outline; None: there is none.
    """

    fill: Image.Image
    outline: Image.Image | None


class Bend(NamedTuple):
    """The place and shape of a line of text in a picture.

    Attributes:
        turn: radians, anticlockwise.
        slant: columns by which a row is shifted for each row that it is higher.
        tilt: change of scale over the picture, along the line and across it.
        circle: radians of the part of a circle that the line is written on, with upright letters in its middle:
            above 0 on the upper part, below 0 on the lower part, 0 on a straight line.
        arc: rows by which the middle of the line is above its ends, as a share of the height; letters stay upright.
        wave: rows of a whole wave of the line, as a share of the height.
        stretch: width as a share of the width before.
        wobble: standard deviation of the distance by which each part of a letter is out of place, as a share of
            the height, as in writing by hand.
    """

    turn: float = 0.0
    slant: float = 0.0
    tilt: tuple[float, float] = (0.0, 0.0)
    circle: float = 0.0
    arc: float = 0.0
    wave: float = 0.0
    stretch: float = 1.0
    wobble: float = 0.0


def straight(text: str, font: ImageFont.FreeTypeFont, stroke: int, outline: int) -> Lettering:
    """Write a text on a straight line.

    Args:
        text: of one line.
        font: its size is the size of the text.
        stroke: pixels by which the letters are made bolder.
        outline: pixels of an outline; 0: none.
    """
    size = int(font.size)
    room = math.ceil(font.getlength(text)) + 2 * size

    def drawn(width: int) -> Image.Image:
        image = Image.new("L", (room, 3 * size))
        place = size // 2, 2 * size
        ImageDraw.Draw(image).text(place, text, font=font, fill=255, stroke_width=width, anchor="ls")
        return image

    return _on_page(drawn, stroke, outline)


def spaced(
    text: str,
    font: ImageFont.FreeTypeFont,
    stroke: int,
    outline: int,
    spacing: float,
    jitter: float,
    rng: random.Random,
) -> Lettering:
    """Write a text letter by letter.

    Args:
        text: of one line.
        font: its size is the size of the text.
        stroke: pixels by which the letters are made bolder.
        outline: pixels of an outline; 0: none.
        spacing: pixels between the letters, more or less than the font has.
        jitter: pixels by which a letter is above or below the line at most.
        rng: of the heights of the letters.
    """
    size, places, x = int(font.size), [], 0.0
    for character in text:
        places.append((round(x), round(rng.uniform(-jitter, jitter))))
        x += max(2.0, font.getlength(character) + spacing)
    room = math.ceil(x) + 2 * size

    def drawn(width: int) -> Image.Image:
        image = Image.new("L", (room, 3 * size))
        draw = ImageDraw.Draw(image)
        for character, (px, py) in zip(text, places, strict=True):
            place = size // 2 + px, 2 * size + py
            draw.text(place, character, font=font, fill=255, stroke_width=width, anchor="ls")
        return image

    return _on_page(drawn, stroke, outline)


def _on_page(drawn: Callable[[int], Image.Image], stroke: int, outline: int) -> Lettering:
    """Return what ``drawn`` draws with a stroke and an outline, with a margin around it."""
    page = drawn(stroke + outline)
    box = page.getbbox()
    if box is not None:
        box = box[0] - _MARGIN, box[1] - _MARGIN, box[2] + _MARGIN, box[3] + _MARGIN
    return Lettering(drawn(stroke).crop(box), page.crop(box)) if outline else Lettering(page.crop(box), None)


def bent(lettering: Lettering, bend: Bend, rng: random.Random) -> Lettering:
    """Return a lettering that is turned, slanted, in perspective and on a curve, cropped to its ink.

    Args:
        lettering: with a margin around its ink.
        bend: how it is bent.
        rng: decides which parts of the letters are out of place.
    """
    width, height = lettering.fill.size
    cos, sin = abs(math.cos(bend.turn)), abs(math.sin(bend.turn))
    wide, high = width * bend.stretch, height * (1 + 2 * (abs(bend.arc) + abs(bend.wave)))
    if bend.circle:
        radius, half = wide / abs(bend.circle), abs(bend.circle) / 2
        wide = 2 * (radius + high / 2) * math.sin(min(half, math.pi / 2))
        high += radius * (1 - math.cos(half))
    wide += 2 * abs(bend.slant) * height
    lean = 1 + abs(bend.tilt[0]) + abs(bend.tilt[1])
    size = math.ceil((wide * cos + high * sin) * lean), math.ceil((high * cos + wide * sin) * lean)
    mesh = _mesh(bend, (width, height), size, rng)

    def moved(image: Image.Image) -> Image.Image:
        return image.transform(size, Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)

    return cropped(Lettering(moved(lettering.fill), moved(lettering.outline) if lettering.outline else None))


def cropped(lettering: Lettering) -> Lettering:
    """Return a lettering without the margins around its ink."""
    box = (lettering.outline or lettering.fill).getbbox()
    if box is None:
        return lettering
    return Lettering(lettering.fill.crop(box), lettering.outline.crop(box) if lettering.outline else None)


_Quad = tuple[float, float, float, float, float, float, float, float]
_Box = tuple[int, int, int, int]


def _mesh(
    bend: Bend, source: tuple[int, int], size: tuple[int, int], rng: random.Random
) -> list[tuple[_Box, _Quad]]:
    """Return for each cell of the new picture the corners of its place in the source."""
    width, height = source
    new_width, new_height = size
    cos, sin = math.cos(bend.turn), math.sin(bend.turn)

    def origin(x: float, y: float) -> tuple[float, float]:
        u, v = x - new_width / 2, y - new_height / 2
        u, v = u * cos - v * sin, u * sin + v * cos
        depth = 1 + bend.tilt[0] * u / new_width + bend.tilt[1] * v / new_height
        u, v = u / depth, v / depth
        if bend.circle:
            # The middle of the line is height / 2 from the edge, and the center of the circle a radius farther.
            upper = math.copysign(1.0, bend.circle)
            radius = width * bend.stretch / abs(bend.circle)
            below = radius - radius * (1 - math.cos(bend.circle / 2)) / 2 - upper * v
            u, v = radius * math.atan2(u, below), upper * (radius - math.hypot(u, below))
        along = max(-1.0, min(1.0, 2 * u / max(1.0, width * bend.stretch)))
        rise = bend.arc * (1 - along * along) + bend.wave * math.sin(math.pi * along)
        v += height * (rise - bend.arc / 2)
        if bend.wobble:
            u, v = u + rng.gauss(0, bend.wobble * height), v + rng.gauss(0, bend.wobble * height)
        return (u + bend.slant * v) / bend.stretch + width / 2, v + height / 2

    strips, parts = STRIPS, 1
    if bend.wobble or bend.circle:
        strips, parts = max(STRIPS, round(2 * new_width / height)), max(ROWS, round(2 * new_height / height))
    columns = [round(i * new_width / strips) for i in range(strips + 1)]
    rows = [round(i * new_height / parts) for i in range(parts + 1)]
    origins = {(x, y): origin(x, y) for x in columns for y in rows}
    return [
        (
            (west, north, east, south),
            (*origins[west, north], *origins[west, south], *origins[east, south], *origins[east, north]),
        )
        for west, east in pairwise(columns)
        for north, south in pairwise(rows)
        if west < east and north < south
    ]
