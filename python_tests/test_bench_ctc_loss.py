"""bench_ctc_loss.py runs, writes its results, and refuses to time a wrong one."""

from __future__ import annotations

import itertools
import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmark_files import BENCHMARKS, Load, results
from conftest import slow
from torch import Tensor
from torch.nn import functional as F

import fastctc

QUICK = ("--quick", "--shapes", "A", "--device", "cpu", "--peers", "torch")


@pytest.mark.slow
def test_ctc_loss(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "bench_ctc_loss.py"), *QUICK, "--out", str(tmp_path)]
    done = subprocess.run([*command, "--threads", "1", "--note", "a test"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    found = results(tmp_path)
    assert found["benchmark"] == "ctc_loss"
    assert found["threads"] == 1 and found["quick"] and found["note"] == "a test"
    assert found["versions"]["fastctc"] == fastctc.__version__
    assert found["machine"]["cores"] >= 1
    assert [(row["shape"], row["input"]) for row in found["results"]] == [("A", "logits"), ("A", "log-probs")]
    for row in found["results"]:
        assert not row["refused"]
        assert row["lengths"] == "fixed"
        assert row["sides"].keys() == {"fastctc", "torch"}
        times = {side: each["median_ms"] for side, each in row["sides"].items()}
        assert row["ratio"]["torch"] == pytest.approx(times["torch"] / times["fastctc"])
        assert row["sides"]["fastctc"]["gradient_error"] < 1e-5
        if os.access("/proc/self/clear_refs", os.W_OK):
            assert all(isinstance(side["extra_bytes"], int) for side in row["sides"].values()), row["notes"]

    (table,) = tmp_path.glob("*.md")
    assert len(re.findall(r"^\| A \|", table.read_text(), re.MULTILINE)) == 2
    assert found["machine"]["cpu"] in table.read_text()
    if sys.platform == "linux" and platform.machine() == "x86_64":
        assert re.search(r", family \d+, model \d+; caches \d+K", found["machine"]["cpu"])
    (plot,) = tmp_path.glob("*-ratios.png")
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 3, "temporary files are left over"


@pytest.mark.parametrize("wrong", ["gradient", *slow("loss", "nan")])
def test_wrong_result_is_not_timed(
    load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrong: str
) -> None:
    right = fastctc.ctc_loss

    def planted(scores: Tensor, *arguments: Any, **options: Any) -> Tensor:
        loss = right(scores, *arguments, **options)
        if wrong == "nan":
            return loss * float("nan")
        off = 1.001 * loss
        return off if wrong == "loss" else off - 0.001 * loss.detach()

    monkeypatch.setattr(fastctc, "ctc_loss", planted)
    command = [*QUICK, "--lengths", "fixed", "varied", "--out", str(tmp_path)]
    assert load("bench_ctc_loss").main(command) == 1
    rows = results(tmp_path)["results"]
    assert len(rows) == 4
    for row in rows:
        assert row["refused"]
        assert "ratio" not in row
        assert all("median_ms" not in side and "extra_bytes" not in side for side in row["sides"].values())


def test_wrong_peer_is_left_out(load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bench, peers = load("bench_ctc_loss"), load("peers")

    def peer_in_torch(change: Callable[[Tensor], Tensor]) -> Callable[[Any], Any]:
        def make(case: Any) -> Any:
            arguments = (case.targets, case.input_lengths, case.target_lengths)
            return peers.Peer(
                lambda scores: change(F.ctc_loss(scores.log_softmax(-1), *arguments, reduction="sum"))
            )

        return make

    def fails(loss: Tensor) -> Tensor:
        raise KeyError("no such thing")

    planted = {"right": lambda loss: loss, "wrong": lambda loss: 1.01 * loss, "fails": fails}
    monkeypatch.setattr(peers, "OTHERS", {name: peer_in_torch(change) for name, change in planted.items()})
    monkeypatch.setattr(peers, "NAMES", ["torch", *planted, "absent"])
    monkeypatch.setitem(peers.OTHERS, "absent", peer_in_torch(fails))
    monkeypatch.setattr(peers, "limit_threads", lambda threads: None)  # it changes the environment
    monkeypatch.setattr(peers, "version", lambda name: None if name == "absent" else f"{name} 1.0")
    options = ["--peers", *peers.NAMES, "--input", "logits", "--lengths", "varied", "--no-memory"]
    assert bench.main([*QUICK[:-2], *options, "--out", str(tmp_path)]) == 0

    found = results(tmp_path)
    assert found["peers"] == {name: f"{name} 1.0" for name in planted}
    assert found["not_installed"] == ["absent"]
    (row,) = found["results"]
    assert row["ratio"].keys() == {"torch", "right"}
    assert row["notes"] == ["wrong is wrong: not timed", "fails failed ('no such thing'): not timed"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["optax", "paddle"])
def test_peer_outside_torch(load: Load, name: str) -> None:
    """Right on varied lengths, from both kinds of input; such peers need not be installed."""
    pytest.importorskip(name)
    bench, cases, peers = load("bench_ctc_loss"), load("cases"), load("peers")
    case, logits = cases.draw(cases.Shape(30, 3, 9, 6), "varied")
    expected = cases.reference(logits, case)
    for kind in cases.INPUTS:
        peer = peers.OTHERS[name](case)
        found = bench.errors(peer, cases.scores_of(logits, kind), kind == "logits", expected)
        assert bench.within(found, 1e-4, 1e-3), found


@pytest.mark.slow
def test_sweeps_and_accuracy(load: Load, tmp_path: Path) -> None:
    command = ["--quick", "--shapes", "none", "--sweep", "T", "N", "--accuracy", "--seeds", "2"]
    assert load("bench_ctc_loss").main([*command, "--peers", "torch", "--out", str(tmp_path)]) == 0
    found = results(tmp_path)
    assert found["results"] == []
    swept = {size: [row[size] for row in rows] for size, rows in found["sweeps"].items()}
    assert swept == {"T": [50, 100], "N": [2, 4]}
    for size, rows in found["sweeps"].items():
        for other in set("TNCS") - {size}:
            assert len({row[other] for row in rows}) == 1
        assert all(row["ratio"].keys() == {"torch"} for row in rows)

    (row,) = found["accuracy"]
    assert len(row["seeds"]) == 2 and row["seeds"][0] != row["seeds"][1]
    for side, worst in row["worst"].items():
        assert worst == max(seed[side] for seed in row["seeds"])
    assert row["worst"]["fastctc"] < 1e-5 < row["worst"]["torch"]
    assert row["times_worse"] == pytest.approx(row["worst"]["torch"] / row["worst"]["fastctc"])

    (plot,) = tmp_path.glob("*.png")
    assert plot.name.endswith("-sweeps.png")
    plot.unlink()
    (path,) = tmp_path.glob("*.json")
    subprocess.run([sys.executable, str(BENCHMARKS / "plots.py"), str(path)], check=True)
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_accuracy_sees_a_wrong_gradient(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    accuracy, cases = load("accuracy"), load("cases")
    right = fastctc.ctc_loss
    monkeypatch.setattr(fastctc, "ctc_loss", lambda *a, **k: 1.01 * right(*a, **k))
    found = accuracy.errors(cases.Shape(40, 2, 8, 10), 0, torch.device("cpu"))
    assert 1e-3 < found["fastctc"] < 1.1e-2


def test_lengths_that_vary(load: Load) -> None:
    cases = load("cases")
    shape = cases.Shape(24, 64, 3, 12)  # two labels, so that many repeat and need a blank between them
    case, logits = cases.draw(shape, "varied", seed=1)
    assert logits.shape == (24, 64, 3)
    assert case.input_lengths[0] == max(case.input_lengths) == 24
    assert case.target_lengths[0] == max(case.target_lengths) == 12
    assert len(set(case.input_lengths)) > 3 and len(set(case.target_lengths)) > 3
    for row, frames, labels in zip(case.targets.tolist(), case.input_lengths, case.target_lengths):
        assert frames >= 12 and labels >= 6
        needed = labels + sum(a == b for a, b in itertools.pairwise(row[:labels]))
        assert frames >= needed
    assert case.concatenated().numel() == sum(case.target_lengths)
    loss, gradient = cases.reference(logits, case)
    assert math.isfinite(loss)
    assert all(not gradient[frames:, n].any() for n, frames in enumerate(case.input_lengths))

    fixed, _ = cases.draw(shape, "fixed", seed=1)
    assert set(fixed.input_lengths) == {24} and set(fixed.target_lengths) == {12}
    with pytest.raises(ValueError, match=r"sample \d+ needs \d+ frames"):
        cases.draw(cases.Shape(12, 4, 2, 12))
