"""Cropping cuts off empty rows above and below the text, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from fastctc.crnn.data import PreprocessConfig, prepare

PLAIN = PreprocessConfig(height=64, ink="gray", tone=0.0)
CROP = replace(PLAIN, crop=True)


def test_crop_shows_small_text_in_a_tall_image_at_full_height():
    gray = np.full((120, 360), 230, np.uint8)
    gray[50:70, 20:340:12] = 30
    gray[50:70, 21:340:12] = 30
    cropped = prepare(gray, CROP)
    assert cropped.pixels.shape == (64, round(360 * 64 / 40)) and cropped.size == (360, 120)
    ink = np.flatnonzero(cropped.pixels.min(1) < 130)
    assert 28 <= np.ptp(ink) <= 36
    steep = replace(CROP, max_width=400)
    assert prepare(gray, steep).pixels.shape[1] <= 400


@pytest.mark.parametrize("scale", [1, 3])
def test_crop_keeps_the_text_wherever_it_is(scale):
    for top in (0, 3, 31, 83, 86):
        gray = np.full((100, 500), 60, np.uint8)
        gray[top : top + 14, 40:460:9] = 200
        image = gray.repeat(scale, 0).repeat(scale, 1)
        pixels = prepare(image, CROP).pixels
        assert 1200 <= pixels.shape[1] <= 1280
        strokes = np.flatnonzero(pixels.max(1) > 90)
        assert len(strokes) >= 28


@pytest.mark.parametrize(
    "image",
    [
        np.full((40, 160), 200, np.uint8),
        np.random.default_rng(0).integers(0, 255, (40, 160)).astype(np.uint8),
        np.pad(np.full((20, 30), 20, np.uint8), ((30, 4), (5, 5)), constant_values=220),
        np.full((4, 100), 9, np.uint8),
        np.full((900, 3), 9, np.uint8),
    ],
    ids=["empty", "noise", "tall", "thin", "narrow"],
)
def test_crop_leaves_other_images_alone(image):
    assert (prepare(image, CROP).pixels == prepare(image, PLAIN).pixels).all()
