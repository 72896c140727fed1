"""The second look: views of a doubtful image vote for its text."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fastctc import cli
from fastctc.crnn import Recognizer, evaluate
from fastctc.crnn.data import Drawn
from fastctc.crnn.read.decoding import Hypothesis
from fastctc.crnn.read.looking import Look, look_twice, views
from fastctc.crnn.words.source import WordDraw

IMAGE = np.zeros((64, 100), np.uint8)


def seen(text: str | None, confidence: float, width: int = 100) -> Look:
    hypotheses = [] if text is None else [Hypothesis(text, math.log(confidence))]
    return Look(hypotheses, torch.zeros(3, 2), width)


def twice(first: list[Look], later: list[Look], second_look: float, temperature: float = 1.0):
    """Return the looks at images, seen first and later in views of the last one, and the images of each call."""
    calls: list[int] = []

    def see(images):
        calls.append(len(images))
        return list(first) if len(calls) == 1 else [later[len(calls) - 2]]

    return look_twice([IMAGE] * len(first), see, False, second_look, temperature), calls


def test_doubtful_images_are_seen_in_views_which_vote():
    sure, doubtful = seen("sure", 0.9), seen("a", 0.4)
    later = [seen("b", 0.3, 130), seen("b", 0.35, 140), seen("c", 0.6), seen(None, 0.0)]
    (first, second), calls = twice([sure, doubtful], later, 0.5)
    assert calls == [2, 1, 1, 1, 1] and first is sure
    assert (second.hypotheses[0].text, second.width) == ("b", 140)


def test_what_was_seen_first_stays_if_the_views_disagree():
    later = [seen("b", 0.3), seen("c", 0.3), seen("a", 0.05), seen("d", 0.3)]
    (look,), _ = twice([seen("a", 0.4)], later, 0.5)
    assert look.hypotheses == [Hypothesis("a", math.log(0.4))]


@pytest.mark.parametrize("first", [seen("a", 0.5), seen(None, 0.0)])
def test_nothing_is_seen_again_without_doubt_or_without_numbers(first):
    assert twice([first], [], 0.5) == ([first], [1])


def test_doubt_counts_by_calibrated_confidence():
    assert twice([seen("a", 0.6)], [seen("a", 0.6)] * 4, 0.5, temperature=0.5)[1] == [1, 1, 1, 1, 1]
    assert twice([seen("a", 0.4)], [seen("a", 0.4)] * 4, 0.5, temperature=2.0)[1] == [1]


@pytest.mark.parametrize("width", [1, 7, 100, 8_000])
@pytest.mark.parametrize("crop", [False, True])
def test_views_keep_the_rows_and_bound_the_columns(width, crop):
    pixels = np.random.default_rng(0).integers(0, 255, (64, width)).astype(np.uint8)
    shapes = [each.shape for each in views(pixels, crop)]
    assert [rows for rows, _ in shapes] == [64] * 4
    assert max(columns for _, columns in shapes) <= 2 * width + 128
    assert all(np.array_equal(a, b) for a, b in zip(views(pixels, crop), views(pixels, crop), strict=True))


def test_a_slanted_line_stands_upright_in_a_view():
    pixels = np.full((64, 120), 255, np.uint8)
    for row in range(64):
        pixels[row, 80 - int(0.4 * row) : 84 - int(0.4 * row)] = 0
    upright = views(pixels, False)[1]
    columns = [np.flatnonzero(row < 128).mean() for row in upright[4:60]]
    assert np.ptp(columns) <= 1.5


def test_a_second_look_reads_more_of_drawn_scenes(tmp_path):
    words = "harbor Station winter bridge Coffee Library quickly jumping vexed Zebra Orange museum ticket"
    (tmp_path / "words.txt").write_text(words.replace(" ", "\n"))
    draw = WordDraw(words=str(tmp_path / "words.txt"), look="scene", texts="words")
    data = Drawn(draw.source(5, color=True), 60)
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


def test_what_is_no_confidence_is_refused(capsys):
    with pytest.raises(ValueError, match=r"second_look is 1\.5, expected a confidence from 0 to 1"):
        Recognizer.load(second_look=1.5)
    with pytest.raises(SystemExit):
        cli.main(["read", "--second-look", "2", "a.png"])
    assert "--second-look: 2 is not from 0 to 1" in capsys.readouterr().err
