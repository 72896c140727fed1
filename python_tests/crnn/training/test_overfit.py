"""The check that a recipe memorizes one batch."""

import pytest
import torch
from recipes import recipe

from fastctc import cli
from fastctc.crnn.data import write_folder
from fastctc.crnn.formulas import FormulaSource
from fastctc.crnn.model import MaskedBatchNorm
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


def test_statistics_that_lag_behind_are_settled(folder, monkeypatch):
    """A batch that is learned in a few steps is read with its own statistics, which lag behind otherwise."""
    monkeypatch.setattr(MaskedBatchNorm, "__init__", slow_norm(MaskedBatchNorm.__init__))
    outcome = overfit_one_batch(recipe(data=str(folder), **SMALL), show_progress=False)
    assert outcome.succeeded, outcome


def slow_norm(init):
    def with_small_momentum(self, *arguments, **more):
        init(self, *arguments, **more)
        self.momentum = 1e-4

    return with_small_momentum


def test_a_device_that_is_not_there_is_named(folder):
    with pytest.raises(ValueError, match="device is 'cuda:99', which this PyTorch cannot use: "):
        overfit_one_batch(recipe(data=str(folder), device="cuda:99", **SMALL), show_progress=False)


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
