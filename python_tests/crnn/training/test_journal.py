"""The log of a training run: one line per step, also after a resumption."""

import builtins
import json

import pytest

from fastctc.crnn.training import read_log
from fastctc.crnn.training.journal import Journal, Tally
from fastctc.crnn.training.step import StepReport


def line(step: int, **more: float) -> dict[str, float]:
    tally = Tally()
    tally.add(StepReport(2.0 / step, 0.5, False), 8, 0.1, 0.3)
    return {"step": step, "learning_rate": 1e-3} | tally.figures() | more


def test_a_tally_has_means_and_sums():
    tally = Tally()
    for loss, blank in ((1.0, 0.5), (3.0, 1.0)):
        tally.add(StepReport(loss, blank, False), 8, 0.1, 0.3)
    figures = tally.figures()
    assert figures["loss"] == 2 and figures["blank_rate"] == 0.75 and figures["images_per_second"] == 20
    assert figures["data_seconds"] == 0.2 and figures["compute_seconds"] == pytest.approx(0.6)
    assert tally.rate() == "20 img/s, 25% data"


def test_what_lies_beyond_the_saved_state_is_dropped(tmp_path):
    journal = Journal(tmp_path, 0)
    for step in (1, 2, 3):
        journal.write(line(step))
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    journal = Journal(tmp_path, 2)
    journal.write(line(3))
    assert [entry["step"] for entry in read_log(tmp_path / "log.jsonl")] == [1, 2, 3]
    Journal(tmp_path, 0)
    assert read_log(tmp_path / "log.jsonl") == []


def test_tensorboard_shows_each_step_once(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    journal = Journal(tmp_path, 0, tensorboard=True)
    for step in (1, 2, 3):
        journal.write(line(step))
    journal.close()
    journal = Journal(tmp_path, 2, tensorboard=True)
    for step in (3, 4):
        journal.write(line(step, exact_match=0.5))
    journal.close()
    shown = events.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    names = {"loss", "blank_rate", "learning_rate", "images_per_second", "data_share", "exact_match"}
    assert set(shown.Tags()["scalars"]) == names
    losses = [(event.step, event.value) for event in shown.Scalars("loss")]
    assert losses == [(step, pytest.approx(2.0 / step)) for step in (1, 2, 3, 4)]
    assert shown.Scalars("data_share")[0].value == pytest.approx(0.25)
    assert [event.step for event in shown.Scalars("exact_match")] == [3, 4]


def test_tensorboard_that_is_missing_is_named(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith(("tensorboard", "torch.utils.tensorboard")):
            raise ModuleNotFoundError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match=r"pip install fastctc\[train\]"):
        Journal(tmp_path, 0, tensorboard=True)


def test_lines_are_json(tmp_path):
    Journal(tmp_path, 0).write(line(1))
    assert json.loads((tmp_path / "log.jsonl").read_text())["step"] == 1
