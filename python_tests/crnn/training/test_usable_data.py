"""Data of which too little can be used."""

from dataclasses import replace

import pytest
from recipes import recipe

from fastctc.crnn.data import LabelError, write_folder
from fastctc.crnn.formulas import FormulaSource
from fastctc.crnn.training import train

SMALL = {
    "steps": 2,
    "batch_size": 8,
    "height": 32,
    "channels": 4,
    "hidden": 8,
    "threads": 1,
    "precision": "fp32",
}


def test_data_of_which_little_can_be_used_is_refused(tmp_path):
    """Settings are wrong then: an alphabet without half of the characters, or a pattern that fits few names."""
    write_folder(FormulaSource(renderer="captcha", seed=3), tmp_path / "data", 40)
    config = recipe(data=str(tmp_path / "data"), **SMALL, characters="0123456789+-*=")
    message = r"only 14 of 40 samples can be used, less than min_usable, 0\.5; the first of the others: 00"
    with pytest.raises(LabelError, match=message):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run" / "state.pt").exists()
    few = train(replace(config, min_usable=0.0), tmp_path / "run", show_progress=False)
    assert len(few.problems) == 26 and few.steps == 2
