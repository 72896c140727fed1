"""Training data with too few usable samples, and images for evaluation alone."""

from dataclasses import replace

import pytest
from recipes import tiny

from fastctc.crnn.data import LabelError, write_folder
from fastctc.crnn.formulas import FormulaSource
from fastctc.crnn.model import load_checkpoint
from fastctc.crnn.training import train


def test_data_of_which_little_can_be_used_is_refused(tmp_path):
    """Settings are wrong then: an alphabet without half of the characters, or a pattern that fits few names."""
    write_folder(FormulaSource(renderer="captcha", seed=3), tmp_path / "data", 40)
    config = tiny(tmp_path / "data", steps=2, characters="0123456789+-*=")
    message = r"only 14 of 40 samples can be used, less than min_usable, 0\.5; the first of the others: 00"
    with pytest.raises(LabelError, match=message):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run" / "state.pt").exists()
    few = train(replace(config, min_usable=0.0), tmp_path / "run", show_progress=False)
    assert len(few.problems) == 26 and few.steps == 2


def test_accuracy_is_measured_on_given_images(tmp_path):
    """All images of data are trained on; a label with characters that the model lacks counts as a mistake."""
    for name, seed, count in (("data", 3, 10), ("val", 4, 6)):
        write_folder(FormulaSource(renderer="captcha", seed=seed), tmp_path / name, count)
    labels = tmp_path / "val" / "labels.tsv"
    labels.write_text(labels.read_text() + "000000.png\tß\nnone.png\t1\n")
    config = tiny(tmp_path / "data", steps=2, val=str(tmp_path / "val"))
    result = train(config, tmp_path / "run", show_progress=False)
    assert result.evaluation.count == 7 and len(result.problems) == 1
    assert result.evaluation.outcomes[-1].right == "ß" and result.evaluation.outcomes[-1].edits
    assert load_checkpoint(result.checkpoint).training["training_images"] == 10
    few = replace(config, schedule=replace(config.schedule, eval_images=3))
    assert train(few, tmp_path / "few", show_progress=False).evaluation.count == 3
    with pytest.raises(LabelError, match="nowhere"):
        train(replace(config, val=str(tmp_path / "nowhere")), tmp_path / "other", show_progress=False)
