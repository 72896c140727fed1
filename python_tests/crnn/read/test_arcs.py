"""Arcs of text become straight lines."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image, ImageDraw

from fastctc.crnn.read.arcs import straightened


def arc(degrees, share, radius=200):
    """Return eleven lines on a circle, as high as letters that have this share of the height of their box."""
    half = math.radians(degrees) / 2
    letters = share * radius * (1 - math.cos(half)) / (1 - share * math.cos(half))
    size = 2 * radius + 20
    picture = Image.new("L", (size, size), 255)
    draw, middle = ImageDraw.Draw(picture), size / 2
    for n in range(11):
        angle = half * (n / 5 - 1)
        ends = [
            (middle + r * math.sin(angle), middle - r * math.cos(angle)) for r in (radius - letters, radius)
        ]
        draw.line([xy for end in ends for xy in end], fill=0, width=4)
    return picture.crop(picture.point(lambda level: 255 - level).getbbox())


@pytest.mark.parametrize("share", [0.5, 0.55, 0.65])
@pytest.mark.parametrize("degrees", [70, 100, 150])
@pytest.mark.parametrize("upward", [True, False])
def test_letters_on_an_arc_stand_side_by_side(degrees, share, upward):
    picture = arc(degrees, share)
    picture = picture if upward else picture.transpose(Image.Transpose.ROTATE_180)
    pixels = np.asarray(straightened(picture)[0 if upward else 1])
    height, width = pixels.shape
    row = np.flatnonzero(pixels[height // 2] < 160)
    places = row[np.flatnonzero(np.diff(row, prepend=-9) > 3)]
    assert len(places) == 11
    assert np.ptp(np.diff(places)) <= 0.35 * width / 10
    if share == 0.55:
        middle = pixels[height // 4 : 3 * height // 4, places[1] - 3 : places[-2] + 8] < 160
        columns = middle.mean(0)
        assert ((columns > 0.9) | (columns < 0.1)).mean() >= 0.8, "the lines lean"


@pytest.mark.parametrize("size", [(100, 24), (100, 101), (1, 1), (2, 1), (4, 3)])
def test_what_has_other_proportions_is_no_arc(size):
    found = straightened(Image.new("L", size))
    assert len(found) == (2 if size[0] / 4 <= size[1] <= size[0] else 0)
    assert all(min(each.size) >= 1 for each in found)
