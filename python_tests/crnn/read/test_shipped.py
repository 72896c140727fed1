"""The checkpoint that comes with the package reads pictures that it was not trained on."""

import pytest

from fastctc.crnn.data import shipped_checkpoints
from fastctc.crnn.formulas import FormulaSource
from fastctc.crnn.read import Recognizer


@pytest.mark.parametrize("checkpoint", shipped_checkpoints())
@pytest.mark.parametrize("look", ["contest", pytest.param("default", marks=pytest.mark.slow)])
def test_shipped_checkpoints_read_unseen_formulas(look: str, checkpoint: str) -> None:
    source = FormulaSource(look=look, renderer="captcha", seed=31337)
    samples = [source(i) for i in range(200)]
    readings = Recognizer.load(checkpoint).read([image for image, _ in samples])
    right = sum(reading.text == text for reading, (_, text) in zip(readings, samples, strict=True))
    assert right >= 196  # of 10,000 and of 5,000 it is 99.4% at least: fewer would be a chance of 1 in 150
    assert {"=" in text for _, text in samples} == {False, True}
