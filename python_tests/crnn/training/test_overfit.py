"""The check that a recipe memorizes one batch."""

import pytest
import torch
from recipes import recipe

from fastctc import cli
from fastctc.crnn.data import write_folder
from fastctc.crnn.formulas import FormulaSource
from fastctc.crnn.training import Overfit, overfit, overfit_one_batch

SMALL = {"height": 32, "channels": 8, "hidden": 32, "threads": 1, "precision": "fp32", "batch_size": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("formulas")
    write_folder(FormulaSource(renderer="captcha", seed=3), path, 8)
    return path


def test_a_sound_set_up_learns_one_batch(folder):
    threads = torch.get_num_threads()
    outcome = overfit_one_batch(recipe(data=str(folder), **SMALL), show_progress=False)
    assert outcome.succeeded and outcome.exact == outcome.images == 4 and outcome.steps < 200, outcome
    assert outcome.summary().startswith("one batch was learned by heart: 4 of 4 images read exactly after")
    assert torch.get_num_threads() == threads


def test_one_that_is_not_sound_fails(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(overfit, "STEPS", 10)
    command = ["train", "--overfit-one-batch", "--data", str(folder), "--height", "32", "--batch-size", "2"]
    command += ["--threads", "1", "--precision", "fp32", "--out", str(tmp_path / "out")]
    assert cli.main([*command, "--max-lr", "1e-9"]) == 1
    assert "one batch was NOT learned by heart: 0 of 2 images" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"finite": False}, "not finite: lower --max-lr"),
        ({"blank_rate": 1.0}, "every frame is read as blank"),
        ({"steps": 90}, "the time ran out"),
        ({"loss": 0.01}, "the loss is small, yet not all is read"),
        ({}, "still falling or stuck"),
    ],
)
def test_a_failure_has_its_reason(changes, reason):
    settings = {"steps": 400, "seconds": 9.0, "images": 4, "exact": 0, "loss": 2.0, "blank_rate": 0.5}
    outcome = Overfit(**({"finite": True} | settings | changes))
    assert not outcome.succeeded and reason in outcome.summary()
