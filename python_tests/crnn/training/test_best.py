"""The checkpoints that a run writes while it lasts, and early stopping."""

import logging

import pytest
import torch
from recipes import changed, tiny

from fastctc.crnn.data import write_folder
from fastctc.crnn.formulas import FormulaSource
from fastctc.crnn.model import load_checkpoint
from fastctc.crnn.training import train


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("formulas")
    write_folder(FormulaSource(renderer="captcha", seed=3), path, 40)
    return path


def test_a_run_can_be_read_while_it_lasts(folder, tmp_path):
    """The checkpoint is there from the first save on, and the best one from the first evaluation on."""
    seen = []

    def look(step):
        seen.append({each.name for each in (tmp_path / "run").glob("*.safetensors")})
        if step == 4:
            assert load_checkpoint(tmp_path / "run").training["steps"] == 3
        return step == 7

    with pytest.raises(KeyboardInterrupt):
        train(tiny(folder), tmp_path / "run", should_stop=look)
    assert [len(names) for names in seen] == [0, 0, 0, 1, 1, 2, 2, 2]
    assert load_checkpoint(tmp_path / "run").training["steps"] == 7
    best = load_checkpoint(tmp_path / "run" / "best.safetensors").training
    assert best["steps"] == 5 and best["evaluated_images"] == 2
    assert train(tiny(folder), tmp_path / "run", resume=True).steps == 12


def test_a_run_without_improvement_stops_early_with_its_best_weights(folder, tmp_path, caplog):
    config = tiny(folder, steps=40, eval_every=2, patience=3)
    with caplog.at_level(logging.INFO):
        result = train(config, tmp_path / "run")
    assert 8 <= result.steps < 40 and "not better since step" in caplog.text
    kept, best = (tmp_path / "run" / f"{name}.safetensors" for name in ("model", "best"))
    assert kept.read_bytes() == best.read_bytes()
    assert load_checkpoint(best).training["steps"] == result.steps - 6
    again = train(config, tmp_path / "run", resume=True)
    assert again.steps == result.steps and kept.read_bytes() == best.read_bytes()
    longer = changed(config, "schedule", patience=100)
    assert train(longer, tmp_path / "run", resume=True).steps == 40


def test_a_resumed_run_keeps_the_best_checkpoint_of_an_uninterrupted_one(folder, tmp_path):
    train(tiny(folder), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tiny(folder), tmp_path / "parts", should_stop=lambda step: step == 8)
    train(tiny(folder), tmp_path / "parts", resume=True)
    whole, parts = (load_checkpoint(tmp_path / name / "best.safetensors") for name in ("whole", "parts"))
    assert whole.training["steps"] == parts.training["steps"]
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(parts.model.state_dict()[name], tensor), name
