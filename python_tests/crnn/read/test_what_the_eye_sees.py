"""The shipped models read pictures that people can read, or a warning names the reason."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastctc.crnn import Recognizer
from fastctc.crnn.data import PreprocessConfig
from fastctc.crnn.formulas import FormulaSource
from fastctc.crnn.model import CRNN, Checkpoint, CRNNConfig
from fastctc.crnn.read import edit_distance, infer
from fastctc.text import Alphabet

COUNT = 25


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer.load("formula")


@pytest.fixture(scope="module")
def drawn() -> list[tuple[np.ndarray, str]]:
    """Return coverages, 1 where ink is, of drawn formulas."""
    source = FormulaSource(look="contest", renderer="glyphs", seed=4242, gray=True)
    found = []
    for index in range(COUNT):
        pixels, text = source(index)
        ground, ink = np.median(pixels), pixels.min()
        found.append((np.clip((ground - pixels.astype(float)) / max(ground - ink, 1), 0, 1), text))
    return found


def gray(levels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8))


def white_on_transparency(ink: np.ndarray) -> Image.Image:
    return Image.fromarray(np.dstack([np.full((*ink.shape, 3), 255), 255 * ink]).astype(np.uint8))


def equally_bright(ink: np.ndarray) -> Image.Image:
    ground, color = np.array([0.0, 130.0, 0.0]), np.array([255.0, 0.0, 0.0])
    return Image.fromarray(np.rint(ground + (color - ground) * ink[..., None]).astype(np.uint8))


def one_hot_pixel(ink: np.ndarray) -> Image.Image:
    deep = np.rint(1000 - 200 * ink).astype(np.uint16)
    deep[7, 11] = 65535
    return Image.fromarray(deep)


def dithered(ink: np.ndarray) -> Image.Image:
    return gray((180 - 150 * ink).repeat(2, 0).repeat(2, 1)).convert("1")


KINDS = {
    "plain": lambda ink: gray(230 - 180 * ink),
    "white ink on transparency": white_on_transparency,
    "ink as bright as its ground": equally_bright,
    "16 bits with one hot pixel": one_hot_pixel,
    "dithered to 1 bit": dithered,
    "gradient": lambda ink: gray(np.linspace(80, 255, ink.shape[1]) - 60 * ink),
    "inverted": lambda ink: gray(20 + 220 * ink),
    "inverted in a frame": lambda ink: gray(np.pad(20 + 220 * ink, 4, constant_values=255)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_shipped_model_reads(kind, recognizer, drawn):
    readings = recognizer.read([KINDS[kind](ink) for ink, _ in drawn])
    right = sum(reading.text == text for reading, (_, text) in zip(readings, drawn, strict=True))
    assert right >= (0.95 if kind in ("plain", "inverted") else 0.8) * COUNT


@pytest.mark.parametrize("more", [1, 2, 3, 4])
def test_the_shipped_model_reads_images_of_any_width(more, recognizer, drawn):
    images = [gray(np.pad(230 - 180 * ink, ((0, 0), (0, more)), constant_values=230)) for ink, _ in drawn]
    readings = recognizer.read(images)
    assert sum(reading.text == text for reading, (_, text) in zip(readings, drawn, strict=True)) >= 24


def test_a_very_long_line_is_read(recognizer, drawn):
    """16 formulas beside each other, 2,880 x 60 pixels: 3,072 columns at the model's height."""
    line = gray(230 - 180 * np.concatenate([ink for ink, _ in drawn[:16]], axis=1))
    text = "".join(text for _, text in drawn[:16])
    reading = recognizer.read(line)
    assert reading.error is None and edit_distance(text, reading.text) <= 0.1 * len(text)
    assert 2600 < reading.spans[-1].end <= 2880


def test_tiles_give_what_one_piece_gives(recognizer):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (64, 3001), dtype=np.uint8)
    preprocess = recognizer.checkpoint.preprocess
    assert image.shape[1] > preprocess.max_width
    tiled, lengths = infer(recognizer.model, [image, image[:, :90]], preprocess)
    whole, _ = infer(recognizer.model, [image], dataclasses.replace(preprocess, max_width=4000))
    assert lengths.tolist() == [whole.shape[1], recognizer.model.config.frames(90)]
    torch.testing.assert_close(tiled[:1], whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", ["bilstm", "vgg-bilstm"])
def test_recurrent_models_read_in_tiles(architecture):
    torch.manual_seed(0)
    model = CRNN(CRNNConfig(4, architecture, channels=4, hidden=8, height=32)).eval()
    checkpoint = Checkpoint(model, Alphabet("abc"), PreprocessConfig(height=32, max_width=256))
    image = np.random.default_rng(0).integers(0, 255, (32, 901), dtype=np.uint8)
    reading = Recognizer(checkpoint).read(image)
    assert reading.error is None and len(reading.evidence.log_probs) == model.config.frames(901)


def test_large_scans_are_read(recognizer, drawn):
    ink, text = drawn[0]
    preprocess = dataclasses.replace(recognizer.checkpoint.preprocess, max_pixels=100_000)
    small = Recognizer(dataclasses.replace(recognizer.checkpoint, preprocess=preprocess))
    reading = small.read(gray(230 - 180 * ink.repeat(7, 0).repeat(7, 1)))
    assert reading.text == text and 1000 < reading.spans[-1].end <= 1260


def test_an_image_wider_than_all_tiles_is_refused(recognizer):
    error = recognizer.read(np.zeros((10, 30_000), np.uint8)).error
    assert error == (
        "image of 30000x10 pixels would be 192000 wide at height 64, the limit is max_width, 65536"
    )


def unreadable(kind: str) -> np.ndarray:
    image = np.full((60, 180), 255, np.uint8)
    if kind == "specks":
        image[5:9, 5:9] = image[50:54, 100:104] = 0
    elif kind == "lines":
        for top in (3, 18, 33, 48):
            image[top : top + 7, 10:90] = 0
    elif kind == "low":
        image[28:32, 40:120] = 0
    return image


REASONS = {
    "specks": "ink is not like the text",
    "lines": "4 lines: cut it into lines",
    "low": "rows high: cut it to the line",
}


@pytest.fixture(scope="module")
def mute() -> Recognizer:
    """Return a model that reads nothing."""
    model = CRNN(CRNNConfig(4, channels=4, hidden=8)).eval()
    with torch.no_grad():
        model.classify.bias[0] = 1000
    return Recognizer(Checkpoint(model, Alphabet("abc"), PreprocessConfig()))


@pytest.mark.parametrize("kind", REASONS)
def test_an_empty_reading_of_ink_is_a_warning(kind, mute):
    reading = mute.read(unreadable(kind))
    assert reading.text == "" and reading.error is None
    assert reading.warning.startswith("nothing was read, but ") and REASONS[kind] in reading.warning


def test_an_empty_reading_of_an_empty_page_is_no_warning(mute, recognizer):
    for each in (mute, recognizer):
        for level in (0, 77, 255):
            assert each.read(np.full((60, 180), level, np.uint8)).warning is None


@pytest.mark.parametrize("kind", [str, Path, bytes, np.asarray, Image.open])
def test_one_image_gives_one_reading_and_a_list_gives_a_list(kind, recognizer, drawn, tmp_path):
    """``Recognizer.read('a.png')`` takes one path."""
    path, (ink, text) = tmp_path / "a.png", drawn[0]
    gray(230 - 180 * ink).save(path)
    if kind is bytes:
        image = path.read_bytes()
    else:
        image = np.asarray(Image.open(path)) if kind is np.asarray else kind(path)
    reading = recognizer.read(image)
    assert reading.text == text
    for several in ([image], (image,), iter([image])):
        (only,) = recognizer.read(several)
        assert only == reading


def test_one_missing_path_gives_one_reading(recognizer, tmp_path):
    assert recognizer.read(str(tmp_path / "none.png")).error.startswith("no such file")
    assert recognizer.read([]) == []
    for wrong in (None, 5, 2.5, True):
        with pytest.raises(TypeError, match=r"images is .*, expected an image, or an iterable of images"):
            recognizer.read(wrong)
