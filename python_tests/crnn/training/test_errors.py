"""Errors of training: out of memory names the batch size, a full disk names the file, and both name the remedy."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from recipes import recipe

from fastctc.crnn.data import DiskFullError, write_folder
from fastctc.crnn.formulas import FormulaSource
from fastctc.crnn.model import load_state
from fastctc.crnn.training import TrainError, plot_curve, read_log, train
from fastctc.crnn.training import data as training_data
from fastctc.crnn.training.journal import Journal, Tally
from fastctc.crnn.training.step import Learner, StepReport


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("errors") / "data"
    write_folder(FormulaSource(renderer="captcha", seed=3), path, 24)
    return path


def config(folder: Path, **changes: object):
    settings = {"steps": 6, "batch_size": 8, "height": 32, "channels": 4, "hidden": 8, "threads": 1}
    return recipe(data=str(folder), precision="fp32", save_every=2, **(settings | changes))


def by_torch() -> None:
    torch.empty(2**60, dtype=torch.uint8)


def by_numpy() -> None:
    np.empty(2**60, dtype=np.uint8)


def by_cuda() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize("run_out", [by_torch, by_numpy, by_cuda])
def test_out_of_memory_names_the_batch_size_and_what_to_do(run_out, folder, tmp_path, monkeypatch):
    step = Learner.step

    def fail_at_the_fourth(self, parts, number, rate):
        if number == 3:
            run_out()
        return step(self, parts, number, rate)

    monkeypatch.setattr(Learner, "step", fail_at_the_fourth)
    with pytest.raises(TrainError) as raised:
        train(config(folder), tmp_path, show_progress=False)
    message = str(raised.value)
    assert message.startswith(
        "out of memory in step 4: batch_size is 8, of which 4 images are computed at once (parts is 2)."
    )
    assert (
        "smaller batch_size" in message
        and "resume this one with --resume (resume=True) from step 2" in message
    )
    words = {
        "by_torch": "can't allocate memory",
        "by_cuda": "CUDA out of memory.",
        "by_numpy": "Unable to allocate",
    }
    assert words[run_out.__name__] in message  # what finders of a batch size look for
    monkeypatch.undo()
    assert train(config(folder), tmp_path, resume=True, show_progress=False).steps == 6


def test_out_of_memory_while_images_are_loaded(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(training_data, "collect_all", lambda *_, **__: by_numpy())
    with pytest.raises(TrainError, match=r"out of memory while the images are loaded.*use a cache"):
        train(config(folder), tmp_path, show_progress=False)


def test_other_errors_of_a_step_stay_what_they_are(folder, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(Learner, "step", fail)
    with pytest.raises(RuntimeError, match=r"^something else$"):
        train(config(folder), tmp_path, show_progress=False)


@pytest.mark.parametrize("name", ["state.pt", "log.jsonl", "model.safetensors", "curve.png"])
def test_a_full_disk_in_training_names_the_file_and_how_to_go_on(name, folder, tmp_path, monkeypatch):
    """The disk is full when a file is written for the second time, or for the first after step 2."""
    replace, opened = os.replace, Path.open

    def full_for(path: object) -> bool:
        return Path(str(path)).name == name and (tmp_path / "state.pt").exists() and armed

    def no_replace(source: object, target: object) -> None:
        if full_for(target):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    def no_append(self: Path, mode: str = "r", *more: object, **options: object):
        if mode == "a" and full_for(self):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return opened(self, mode, *more, **options)

    armed = False

    def arm(step: int) -> bool:
        nonlocal armed
        armed = step >= 3
        return False

    monkeypatch.setattr(os, "replace", no_replace)
    monkeypatch.setattr(Path, "open", no_append)
    settings = config(folder, log_every=4)
    with pytest.raises(DiskFullError) as raised:
        train(settings, tmp_path, show_progress=False, should_stop=arm)
    message = str(raised.value)
    assert f"cannot write {tmp_path / name}: the disk is full; the file needs " in message
    assert "repeat the command with --resume (resume=True): the run goes on from step " in message
    step = load_state(tmp_path / "state.pt")["step"]
    assert message.endswith(f"from step {step}") and step >= 2
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    monkeypatch.undo()
    assert train(settings, tmp_path, resume=True, show_progress=False).steps == 6


LIMITED = """
import resource, sys
from fastctc import cli
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits")
@pytest.mark.parametrize(
    "limit, command, file",
    [
        (20_000, ["train", "--out", "{}", "--data", "{data}", "--steps", "1"], "state.pt"),
        (5_000, ["generate", "{}", "--count", "2"], "00000"),
        (100_000, ["export", "formula", "{}/a.pt2"], "a.pt2"),
        (5_000, ["evaluate", "formula", "--count", "2", "--report", "{}"], ".png"),
        (5_000, ["read", "{data}/000000.png", "--explain", "{}/why.png"], "why.png"),
    ],
)
def test_a_file_that_finds_no_room_ends_a_command_with_its_name(limit, command, file, folder, tmp_path):
    words = [word.format(tmp_path, data=folder) for word in command]
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, str(limit), *words], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2, ended.stderr
    error = ended.stderr.splitlines()[-1]
    assert error.startswith(f"fastctc: cannot write {tmp_path}") and file in error
    assert "ulimit -f" in error and "the file needs " in error and "Free some space" in error
    assert "Traceback" not in ended.stderr


def test_a_skipped_step_becomes_null_in_the_log(tmp_path):
    journal, tally = Journal(tmp_path, 0), Tally()
    tally.add(StepReport(math.nan, 0.5, True), 8, 0.1, 0.1)
    journal.write({"step": 1, "learning_rate": math.inf} | tally.figures())
    tally.add(StepReport(2.0, 0.5, False), 8, 0.1, 0.1)
    journal.write({"step": 2, "learning_rate": 1e-3} | tally.figures())
    text = (tmp_path / "log.jsonl").read_text()

    def refuse(word: str) -> None:
        raise AssertionError(word)

    lines = [json.loads(line, parse_constant=refuse) for line in text.splitlines()]
    assert lines[0]["loss"] is None and lines[0]["learning_rate"] is None and lines[0]["skipped"] == 1
    assert lines[1]["loss"] == 2.0 and lines[1]["skipped"] == 1
    plot_curve(read_log(tmp_path / "log.jsonl"))
    Journal(tmp_path, 2)  # resumed
    assert (tmp_path / "log.jsonl").read_text() == text
