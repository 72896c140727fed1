"""Random changes of training images: each as strong as drawn, and the same for the same seed."""

import zlib

import numpy as np
import pytest

from fastctc.crnn.data import CHANGES, AugmentConfig, BatchMaker, Draw, Samples, augmented, draws
from fastctc.crnn.data.augment import moved
from fastctc.text import Alphabet

OFF = {"shift": 0, "stretch": 0}
EVERYTHING = {"shift": 4, "stretch": 0.08, "rotate": 5, "blur": 1, "contrast": 0.5, "noise": 10}


def line(height: int = 64, width: int = 192) -> np.ndarray:
    """Return a dark line along the middle of a white image, with a fainter one above."""
    image = np.full((height, width), 255, np.uint8)
    image[height // 2 - 2 : height // 2 + 2] = 0
    image[height // 4] = 200
    return image


def test_images_are_moved_by_nearest_pixels():
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert (moved(image, (0, 0), (1, 1)) == image).all()
    assert moved(image, (1, 0), (1, 1)).tolist() == [[0, 0, 1, 2], [4, 4, 5, 6], [8, 8, 9, 10]]
    assert moved(image, (-2, 1), (1, 1)).tolist() == [[2, 3, 3, 3], [2, 3, 3, 3], [6, 7, 7, 7]]
    row = np.arange(9, dtype=np.uint8)[None]
    assert moved(row, (0, 0), (2, 1)).tolist() == [[2, 2, 3, 4, 4, 4, 5, 6, 6]]
    assert moved(row, (0, 0), (0.5, 1)).tolist() == [[0, 0, 0, 2, 4, 6, 8, 8, 8]]


def test_batches_of_earlier_versions_come_again():
    """Seed 7 gives the bits that it has always given. Shift and stretch use numpy alone, not Pillow."""
    image = np.random.default_rng(0).integers(0, 256, (32, 100), dtype=np.uint8)
    samples = Samples([image[:, :w] for w in (100, 90, 80)], ["a", "b", "a"], ["0", "1", "2"])
    batch = BatchMaker(samples, Alphabet("ab"), 3, seed=7, augment=AugmentConfig(), buckets=1).batch(5)
    assert zlib.crc32(batch.images[..., :100].numpy().tobytes()) == 2291020746  # beyond is padding


def test_one_change_does_not_alter_the_draws_of_another():
    for step in (0, 9):
        drawn = draws(3, step, 8)
        assert drawn == draws(3, step, 8) and drawn[:5] == draws(3, step, 5)
        numbers = np.array([np.hstack([d[each.name] for each in CHANGES]) for d in drawn])
        assert np.abs(numbers).max() <= 1 and len(np.unique(numbers)) == numbers.size
    assert draws(3, 0, 8) != draws(3, 9, 8) != draws(4, 9, 8)
    image, draw = line(), draws(3, 0, 8)[4]
    alone = augmented(image, draw, AugmentConfig())
    after = augmented(alone, draw, AugmentConfig(**OFF, contrast=0.5))
    assert (augmented(image, draw, AugmentConfig(contrast=0.5)) == after).all()


def test_an_image_that_is_not_to_change_does_not():
    image = np.random.default_rng(0).integers(0, 256, (32, 70), dtype=np.uint8)
    before = image.copy()
    assert (augmented(image, draws(0, 0, 1)[0], AugmentConfig(**OFF)) == image).all()
    assert (augmented(image, Draw(), AugmentConfig(**EVERYTHING)) == image).all()
    changed = augmented(image, draws(0, 0, 1)[0], AugmentConfig(**EVERYTHING))
    assert changed.dtype == np.uint8 and changed.shape == image.shape and (changed != image).any()
    assert (image == before).all()


def test_rotation_is_by_the_angle_and_keeps_the_ends_of_the_line():
    def rise(image: np.ndarray, column: int) -> float:
        ink = 255.0 - image[:, column]
        return image.shape[0] / 2 - 0.5 - (ink * np.arange(image.shape[0])).sum() / ink.sum()

    image = line()
    image[16] = 255
    turned = augmented(image, Draw(rotate=1), AugmentConfig(**OFF, rotate=4))
    assert rise(turned, 176) - rise(turned, 16) == pytest.approx(160 * np.tan(np.radians(4)), abs=0.3)
    assert turned[0, 0] == turned[-1, -1] == 255
    wide = np.full((32, 900), 255, np.uint8)
    wide[14:18] = 0
    for way in (1, -1):
        turned = augmented(wide, Draw(rotate=way), AugmentConfig(**OFF, rotate=15))
        assert way * rise(turned, 898) == pytest.approx(4, abs=0.2)
        assert way * rise(turned, 1) == pytest.approx(-4, abs=0.2)


def test_contrast_changes_faint_ink_against_strong_ink():
    image = line()
    for way, fainter in ((1, True), (-1, False)):
        changed = augmented(image, Draw(contrast=way), AugmentConfig(**OFF, contrast=0.5))
        assert set(changed[[0, 31], 0].tolist()) == {0, 255}
        assert (changed[16, 0] > 200) == fainter and changed[16, 0] != 200
    assert (
        augmented(image, Draw(contrast=1), AugmentConfig(**OFF, contrast=1))[16, 0] == 255 - 12
    )  # 255 (55/255)²


def test_noise_and_blur_are_as_strong_as_drawn():
    gray = np.full((200, 300), 128, np.uint8)
    for amount in (0.5, -1.0):
        noisy = augmented(gray, Draw(noise=amount, seed=(1, 2)), AugmentConfig(**OFF, noise=12))
        assert noisy.std() == pytest.approx(12 * abs(amount), rel=0.03)
        assert noisy.mean() == pytest.approx(128, abs=0.2)
    other = augmented(gray, Draw(noise=-1.0, seed=(1, 3)), AugmentConfig(**OFF, noise=12))
    assert (other != noisy).any()
    step = np.full((20, 60), 255, np.uint8)
    step[:, :30] = 0
    widths = []
    for amount in (0.25, 1.0):
        blurred = augmented(step, Draw(blur=amount), AugmentConfig(**OFF, blur=3))
        widths.append(((blurred[10] > 10) & (blurred[10] < 245)).sum())
    assert 0 < widths[0] < widths[1] < 16


def test_tiny_images_survive_everything():
    for shape in ((1, 1), (32, 1), (1, 40)):
        image = np.zeros(shape, np.uint8)
        for draw in draws(1, 0, 10):
            assert augmented(image, draw, AugmentConfig(**EVERYTHING)).shape == shape


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rotate": 16}, "rotate is 16, expected 0 to 15 degrees: .* 6 becomes 9"),
        ({"rotate": -1}, "rotate is -1"),
        ({"stretch": 1.0}, "stretch is 1.0, expected a share"),
        ({"shift": -1}, "shift is -1, expected at least 0"),
        ({"noise": float("nan")}, "noise is nan"),
        ({"blur": float("inf")}, "blur is inf"),
        ({"contrast": -0.1}, "contrast is -0.1"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        AugmentConfig(**settings)
