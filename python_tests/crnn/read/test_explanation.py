"""Where a recognizer saw each character."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fastctc.crnn.data import ImageError
from fastctc.crnn.formulas import FormulaSource
from fastctc.crnn.read import Recognizer, explain


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer.load()


def test_characters_are_where_they_are_drawn(recognizer: Recognizer) -> None:
    source = FormulaSource(look="default", renderer="captcha", seed=4, value="right")
    image, text = source(0)
    found = explain(recognizer, image)
    assert found.reading.text == text
    assert "".join(span.text for span in found.characters) == text
    assert found.image.shape[0] == recognizer.checkpoint.preprocess.height
    edges = [edge for span in found.characters for edge in (span.start, span.end)]
    assert edges == sorted(edges) and edges[-1] <= found.image.shape[1] + found.columns_per_frame
    assert all(0.5 < span.confidence <= 1 for span in found.characters)
    assert found.posteriors.shape == (math.ceil(found.image.shape[1] / found.columns_per_frame), len(text))
    frames = [int(span.start) // found.columns_per_frame for span in found.characters]
    assert (found.posteriors[frames, range(len(text))] > 0.5).all()
    assert len(found.plot().axes) == 3


def test_an_image_without_text(recognizer: Recognizer) -> None:
    found = explain(recognizer, np.full((60, 180), 255, np.uint8))
    assert found.characters == [] and found.reading.text == ""
    assert found.plot().axes[0].get_title("left") == "(no text)"


def test_what_is_no_image(recognizer: Recognizer) -> None:
    with pytest.raises(ImageError, match="not a readable image"):
        explain(recognizer, b"junk")
