"""Two processes that share every batch, by gloo on the CPU, against one."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from recipes import recipe

from fastctc.crnn.data import AugmentConfig, BatchMaker, Samples
from fastctc.crnn.formulas import CHARACTERS, FormulaSource
from fastctc.crnn.model import load_state
from fastctc.crnn.training import distributed, settled, train
from fastctc.text import Alphabet

pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="torch without gloo")

SETTINGS = {
    "steps": 120, "batch_size": 16, "height": 32, "channels": 8, "hidden": 16, "threads": 1, "precision": "fp32",
    "optimizer": "muon", "ema": 0.9, "log_every": 1, "eval_every": 20, "save_every": 5,
}  # fmt: skip
RUN = f"""
import os, signal, sys
from fastctc.crnn.training import config_from_dict, train

def should_stop(step):
    if step == kill_at and os.environ.get("RANK") == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return step == 50

if __name__ == "__main__":
    data, out, kill_at = sys.argv[1], sys.argv[2], int(sys.argv[3])
    try:
        config = config_from_dict({SETTINGS!r} | dict(data=data))
        train(config, out, resume=True, show_progress=False, should_stop=should_stop)
    except KeyboardInterrupt:
        print("stopped")
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("script") / "run.py"
    path.write_text(RUN)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write formulas of many widths, so that batches are padded."""
    path = tmp_path_factory.mktemp("widths")
    source, random, lines = FormulaSource(renderer="captcha", seed=3), np.random.default_rng(0), []
    for i in range(40):
        image, text = source(i)
        Image.fromarray(np.asarray(image)).resize((int(random.integers(120, 260)), 60)).save(
            path / f"{i}.png"
        )
        lines.append(f"{i}.png\t{text}\n")
    (path / "labels.tsv").write_text("".join(lines))
    return path


def run_two(*arguments: object) -> subprocess.CompletedProcess[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *launcher, *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    # A process that waits for a dead one would do so for half an hour, the timeout of gloo.
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)


def run_alone(folder, out) -> None:
    config = recipe(data=str(folder), **SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        train(config, out, resume=True, show_progress=False, should_stop=lambda step: step == 50)


def losses(out) -> dict[int, float]:
    lines = (out / "log.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    assert len({entry["step"] for entry in entries}) == len(entries)
    return {entry["step"]: entry["loss"] for entry in entries}


@pytest.fixture(scope="module")
def runs(script, folder, tmp_path_factory):
    """Run the first 50 steps, by one process and by two."""
    path = tmp_path_factory.mktemp("runs")
    run_alone(folder, path / "one")
    ended = run_two(script, folder, path / "two", -1)
    assert ended.returncode == 0 and "stopped" in ended.stdout, ended.stderr
    return path


def assert_same_run(one, two):
    """Check that losses and weights are the same to the bit."""
    assert losses(one) == losses(two) and list(losses(one)) == list(range(1, 51))
    first, second = load_state(one / "state.pt"), load_state(two / "state.pt")
    assert first["step"] == second["step"] == 50
    for part in ("model", "average"):
        assert first[part].keys() == second[part].keys()
        for name, tensor in first[part].items():
            assert torch.equal(tensor, second[part][name]), (part, name)


@pytest.mark.slow
def test_two_processes_compute_the_bits_of_one(runs):
    assert_same_run(runs / "one", runs / "two")
    loss = losses(runs / "one")
    assert loss[50] < 0.5 * loss[1]


@pytest.mark.slow
def test_a_killed_process_ends_the_run_with_an_error_and_one_process_resumes_it(
    runs, script, folder, tmp_path
):
    out = tmp_path / "run"
    ended = run_two(script, folder, out, 23)
    assert ended.returncode != 0
    assert "training broke off in process 0 of 2" in ended.stderr
    assert (
        f"the state after step 20 is saved in {out}: the same command with --resume goes on" in ended.stderr
    )
    run_alone(folder, out)
    assert_same_run(runs / "two", out)


def test_parts_that_cannot_be_shared_evenly(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "count", lambda: 3)
    with pytest.raises(ValueError, match="parts is 2, but 3 processes share them: expected a multiple"):
        train(recipe(data=str(folder), parts=2), tmp_path, show_progress=False)


def test_parts_are_settled_by_the_processes():
    for processes, batch_size, parts in [(1, 64, 2), (1, 7, 1), (2, 64, 2), (4, 64, 4), (3, 9, 3)]:
        assert settled(recipe(batch_size=batch_size), processes).schedule.parts == parts
    assert settled(recipe(parts=8), 2).schedule.parts == 8
    with pytest.raises(ValueError, match="parts is 3, expected a divisor of batch_size, which is 64"):
        settled(recipe(), 3)


def test_parts_of_a_batch_are_its_rows():
    random = np.random.default_rng(0)
    images = [random.integers(0, 255, (32, width), dtype=np.uint8) for width in (40, 90, 61, 64, 33, 72)]
    samples = Samples(images, [f"{i}+1" for i in range(6)], [str(i) for i in range(6)])
    batches = BatchMaker(samples, Alphabet(CHARACTERS), 6, seed=1, augment=AugmentConfig(stretch=0.1))
    whole, parts = batches.batch(4), [batches.batch(4, (number, 3)) for number in range(3)]
    for field in ("widths", "targets", "target_lengths"):
        assert torch.equal(getattr(whole, field), torch.cat([getattr(part, field) for part in parts])), field
    rows = [row for part in parts for row in part.images]
    for row, width, expected in zip(rows, whole.widths.tolist(), whole.images, strict=True):
        assert torch.equal(row[..., :width], expected[..., :width])
    with pytest.raises(ValueError, match="batch_size is 6, expected a multiple of 4 parts"):
        batches.batch(4, (0, 4))


def test_alone_there_is_nothing_to_share():
    with distributed.processes("cpu") as device:
        assert device == torch.device("cpu") and not distributed.is_shared() and distributed.count() == 1
        assert distributed.from_first(lambda: 3) == 3 and distributed.any_of(True)
