"""The second look: views of a doubtful image vote for its text."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from fastctc import cli
from fastctc.crnn import Recognizer, evaluate
from fastctc.crnn.data import Drawn, Inputs, PreprocessConfig, prepare, shipped_checkpoints
from fastctc.crnn.read.decoding import Hypothesis
from fastctc.crnn.read.looking import Look, look_twice, views
from fastctc.crnn.read.stream import read_entries
from fastctc.crnn.words.source import WordDraw

IMAGE = np.zeros((64, 300), np.uint8)  # no arc: it has four forms
GRAY = PreprocessConfig(height=64, max_width=12_000, ink="gray", tone=0.0)


def seen(text: str | None, confidence: float, width: int = 100) -> Look:
    hypotheses = [] if text is None else [Hypothesis(text, math.log(confidence))]
    return Look(hypotheses, torch.zeros(3, 2), width)


def twice(first: list[Look], later: list[Look], second_look: float, temperature: float = 1.0):
    """Return the looks at images, seen first and later in views of the last one, and the images of each call."""
    calls: list[int] = []
    left = list(later)

    def see(images):
        calls.append(len(images))
        return list(first) if len(calls) == 1 else [left.pop(0) for _ in images]

    images = [IMAGE] * len(first)
    return look_twice(images, see, images.__getitem__, GRAY, second_look, temperature), calls


def test_doubtful_images_are_seen_in_views_which_vote():
    sure, doubtful = seen("sure", 0.9), seen("a", 0.4)
    later = [seen("b", 0.3, 130), seen("b", 0.35, 140), seen("c", 0.6), seen(None, 0.0)]
    (first, second), calls = twice([sure, doubtful], later, 0.5)
    assert calls == [2, 2, 2] and first is sure
    assert (second.hypotheses[0].text, second.width) == ("b", 140)


def test_what_was_seen_first_stays_if_the_views_disagree():
    later = [seen("b", 0.3), seen("c", 0.3), seen("a", 0.05), seen("d", 0.3)]
    (look,), _ = twice([seen("a", 0.4)], later, 0.5)
    assert look.hypotheses == [Hypothesis("a", math.log(0.4))]


def test_a_view_that_shows_nothing_has_no_vote():
    (look,), _ = twice([seen("a", 0.4)], [seen("", 0.9)] * 4, 0.5)
    assert look.hypotheses[0].text == "a"
    (look,), _ = twice([seen("", 0.4)], [seen("", 0.9)] * 3 + [seen("b", 0.3)], 0.5)
    assert look.hypotheses[0].text == ""


def test_a_word_has_a_vote_for_each_of_its_letters():
    (look,), _ = twice(
        [seen("e", 0.3)], [seen("e", 0.3), seen("e", 0.3), seen("word", 0.25), seen("", 0.9)], 0.5
    )
    assert look.hypotheses[0].text == "word"


def test_an_image_in_which_nothing_is_seen_is_looked_at_again():
    (look,), calls = twice(
        [seen("", 0.9)], [seen("b", 0.5), seen("b", 0.5), seen("c", 0.1), seen("", 0.9)], 0.5
    )
    assert calls == [1, 1, 1, 1, 1] and look.hypotheses[0].text == "b"
    assert twice([seen("", 0.9)], [], 0.0)[1] == [1]


@pytest.mark.parametrize("first", [seen("a", 0.5), seen(None, 0.0)])
def test_nothing_is_seen_again_without_doubt_or_without_numbers(first):
    assert twice([first], [], 0.5) == ([first], [1])


def test_doubt_counts_by_calibrated_confidence():
    assert twice([seen("a", 0.6)], [seen("a", 0.6)] * 4, 0.5, temperature=0.5)[1] == [1, 1, 1, 1, 1]
    assert twice([seen("a", 0.4)], [seen("a", 0.4)] * 4, 0.5, temperature=2.0)[1] == [1]


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
@pytest.mark.parametrize("size", [(1, 64), (7, 1), (100, 64), (8_000, 64), (90, 900), (2_000, 1_000)])
def test_views_have_the_rows_of_the_model_and_bounded_columns(mode, size):
    levels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3)).astype(np.uint8)
    picture = Image.fromarray(levels).convert(mode)
    found = views(picture, GRAY)
    lying, arc = size[1] > 1.5 * size[0], size[0] / 4 <= size[1] <= size[0]
    assert [each.shape[0] for each in found] == [64] * (14 if lying else 6 if arc else 4)
    assert max(each.shape[1] for each in found) <= 1.3 * max(size) * 64 / min(size) + 129
    assert all(np.array_equal(a, b) for a, b in zip(found, views(picture, GRAY), strict=True))


def test_what_gray_levels_hide_is_seen_by_its_color():
    ground, ink = (180, 80, 100), (60, 139, 112)  # equally bright
    assert len({Image.new("RGB", (1, 1), each).convert("L").getpixel((0, 0)) for each in (ground, ink)}) == 1
    picture = Image.new("RGB", (200, 64), ground)
    picture.paste(Image.new("RGB", (40, 30), ink), (80, 17))
    picture.paste(Image.new("RGB", (40, 64)), (160, 0))

    def contrast(pixels):
        row = pixels[32].astype(int)
        return abs(row[len(row) // 2] - row[len(row) // 5])

    *stretched, saturation, red_over_blue = views(picture, GRAY)[:4]
    assert [contrast(each) for each in (prepare(picture, GRAY).pixels, *stretched)] == [0, 0, 0]
    assert contrast(saturation) >= 20 and contrast(red_over_blue) >= 50


def test_an_image_without_color_is_turned():
    line = np.full((64, 200, 3), 255, np.uint8)
    line[30:34, 20:180] = 0
    left, right = views(line, GRAY)[2:4]
    rows = [np.flatnonzero(each[:, each.shape[1] // 4] < 128).mean() for each in (left, right)]
    assert rows[0] + 2 < 32 < rows[1] - 2 or rows[1] + 2 < 32 < rows[0] - 2


def test_an_image_that_is_gone_has_no_views(tmp_path):
    assert views(tmp_path / "gone.png", GRAY) == []


def test_forms_that_are_too_wide_are_left_out():
    assert len(views(np.zeros((64, 10_000), np.uint8), GRAY)) == 3
    assert len(views(np.zeros((10_000, 10), np.uint8), GRAY)) == 4


def drawn(folder, look):
    words = "harbor Station winter bridge Coffee Library quickly jumping vexed Zebra Orange museum ticket"
    (folder / "words.txt").write_text(words.replace(" ", "\n"))
    return WordDraw(words=str(folder / "words.txt"), look=look, texts="words").source(5, color=True)


def test_a_second_look_reads_more_of_drawn_scenes(tmp_path):
    data = Drawn(drawn(tmp_path, "scene"), 60)
    once, again = (evaluate(Recognizer.load("words", second_look=each), data) for each in (0.0, 0.5))
    assert again.count == 60 and again.correct >= once.correct
    reads = [[one.read for one in each.outcomes] for each in (once, again)]
    assert reads[0] != reads[1]
    recognizer = Recognizer.load("words", second_look=0.5)
    images = [data.source(n)[0] for n in range(60)]
    readings = recognizer.read(images)
    assert [each.text for each in readings] == reads[1]
    for image, reading in zip(images, readings, strict=True):
        assert all(0 <= span.start <= span.end <= image.width for span in reading.spans)


def test_the_original_of_each_image_is_looked_at_again(tmp_path):
    source = drawn(tmp_path, "scene")
    (tmp_path / "images").mkdir()
    paths = [tmp_path / "images" / f"{n:02d}.png" for n in range(24)]
    for n, path in enumerate(paths):
        path.write_bytes(b"") if n % 7 == 0 else source(n)[0].save(path)
    recognizer = Recognizer.load("words", second_look=0.9)
    alone = [recognizer.read(path) for path in paths]
    texts = [each.text for each in alone]
    assert [each.text for each in Recognizer.load("words", second_look=0.0).read(paths)] != texts
    together = read_entries(
        recognizer, Inputs([tmp_path / "images"]).entries(), recognizer.decoder(), batch_size=5, batches=2
    )
    assert [reading.text for _, reading in together] == texts
    (tmp_path / "images" / "labels.tsv").write_text("".join(f"{path.name}\ta\n" for path in paths))
    evaluation = evaluate(recognizer, tmp_path / "images", batch_size=5)
    assert [each.read for each in evaluation.outcomes] == [each.text for each in alone if not each.error]


@pytest.mark.parametrize("side", [Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270])
def test_a_second_look_reads_a_word_that_stands_on_its_side(tmp_path, side):
    source = drawn(tmp_path, "clean")
    samples = [source(n) for n in range(12)]
    images = [image.transpose(side) for image, _ in samples]
    once, again = (Recognizer.load("words", second_look=each).read(images) for each in (0.0, 0.5))
    right = [
        sum(read.text == text for read, (_, text) in zip(each, samples, strict=True))
        for each in (once, again)
    ]
    assert right[0] <= 1 and right[1] >= 8


def test_what_is_no_confidence_is_refused(capsys):
    with pytest.raises(ValueError, match=r"second_look is 1\.5, expected a confidence from 0 to 1"):
        Recognizer.load(second_look=1.5)
    with pytest.raises(SystemExit):
        cli.main(["read", "--second-look", "2", "a.png"])
    assert "--second-look: 2 is not from 0 to 1" in capsys.readouterr().err


def test_models_of_the_package_have_their_own_second_look():
    assert Recognizer.load("words").second_look == 0.5 and Recognizer.load("formula").second_look == 0
    assert Recognizer.load("words", second_look=0.0).second_look == 0
    assert (
        Recognizer.load(shipped_checkpoints()["words"]).second_look == 0
    )  # by its path, it is like any other
