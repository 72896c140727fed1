"""The checkpoints that come with the package read pictures that they were not trained on."""

from pathlib import Path

import pytest

from fastctc.crnn import WordDraw, formulas
from fastctc.crnn.data import Drawn, shipped_checkpoint, shipped_checkpoints
from fastctc.crnn.formulas import FormulaSource
from fastctc.crnn.read import Recognizer, evaluate


@pytest.mark.parametrize("checkpoint", formulas.DOMAIN.checkpoints)
@pytest.mark.parametrize("look", ["contest", pytest.param("default", marks=pytest.mark.slow)])
def test_shipped_checkpoints_read_unseen_formulas(look: str, checkpoint: str) -> None:
    source = FormulaSource(look=look, renderer="captcha", seed=31337)
    samples = [source(i) for i in range(200)]
    readings = Recognizer.load(checkpoint).read([image for image, _ in samples])
    right = sum(reading.text == text for reading, (_, text) in zip(readings, samples, strict=True))
    assert right >= 196  # of 10,000 and of 5,000 it is 99.4% at least: fewer would be a chance of 1 in 150
    assert {"=" in text for _, text in samples} == {False, True}


def test_the_model_of_words_reads_print(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    words = [
        "harbor",
        "Station",
        "winter",
        "bridge",
        "Coffee",
        "Library",
        "quickly",
        "jumping",
        "vexed",
        "Zebra",
    ]
    (tmp_path / "words.txt").write_text("\n".join(words))
    draw = WordDraw(words=str(tmp_path / "words.txt"), look="clean", texts="words")
    data = Drawn(draw.source(31337, color=True), 100)
    assert evaluate(Recognizer.load("words"), data).exact_match >= 0.88
    assert evaluate(Recognizer.load("words", ignore_case=True), data).exact_match >= 0.9


@pytest.mark.parametrize("former", ["shipped", "wide"])
def test_former_names_load_the_model_of_formulas(former: str) -> None:
    assert shipped_checkpoint(former) == shipped_checkpoint("formula") == shipped_checkpoints()["formula"]
    assert former not in shipped_checkpoints() and shipped_checkpoint("none") is None
    assert Recognizer.load(former).checkpoint.alphabet == Recognizer.load("formula").checkpoint.alphabet
