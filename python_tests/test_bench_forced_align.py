"""bench_forced_align.py runs, writes its results, and refuses to time a wrong one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from benchmark_files import Load, results
from torch import Tensor

import fastctc


def test_forced_align(load: Load, tmp_path: Path) -> None:
    command = ["--quick", "--shapes", "A", "E", "--lengths", "fixed", "varied", "--out", str(tmp_path)]
    assert load("bench_forced_align").main(command) == 0
    found = results(tmp_path)
    assert found["benchmark"] == "forced_align"
    assert len(found["results"]) == 8
    for row in found["results"]:
        assert not row["refused"] and row["sides"]["fastctc"]["median_ms"] > 0
        if found["peers"]["torchaudio"]:
            times = {side: each["median_ms"] for side, each in row["sides"].items()}
            assert row["ratio"]["torchaudio"] == pytest.approx(times["torchaudio"] / times["fastctc"])
    (table,) = tmp_path.glob("*.md")
    assert len(re.findall(r"^\| E \|", table.read_text(), re.MULTILINE)) == 4


@pytest.mark.parametrize("wrong", ["path", "scores"])
def test_wrong_alignment_is_not_timed(
    load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrong: str
) -> None:
    right = fastctc.forced_align

    def planted(scores: Tensor, *arguments: Any, **options: Any) -> tuple[Tensor, Tensor]:
        paths, best = right(scores, *arguments, **options)
        return (paths, best * 1.001) if wrong == "scores" else (paths.flip(1), best.flip(1))

    monkeypatch.setattr(fastctc, "forced_align", planted)
    assert load("bench_forced_align").main(["--quick", "--shapes", "A", "--out", str(tmp_path)]) == 1
    rows = results(tmp_path)["results"]
    assert len(rows) == 2
    assert all(row["refused"] and "ratio" not in row for row in rows)


def test_a_peer_that_fails_is_left_out(load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bench = load("bench_forced_align")

    def fails(*arguments: Any) -> Any:
        raise RuntimeError("no kernel for this GPU\nand more")

    monkeypatch.setattr(bench, "available", lambda side: "1.0")
    monkeypatch.setattr(bench, "SIDES", {**bench.SIDES, "torchaudio": fails})
    monkeypatch.setattr(bench, "in_torchaudio", fails)
    assert bench.main(["--quick", "--shapes", "A", "--out", str(tmp_path)]) == 0
    for row in results(tmp_path)["results"]:
        assert list(row["sides"]) == ["fastctc"] and row["sides"]["fastctc"]["median_ms"] > 0
        assert row["notes"] == ["torchaudio failed (no kernel for this GPU): not timed"]


@pytest.mark.slow
def test_memory_of_an_alignment(load: Load) -> None:
    """torchaudio keeps a byte per state, fastctc a bit; the bounds tell them apart."""
    bench, cases, memory = load("bench_forced_align"), load("cases"), load("memory")
    if not memory.possible():
        pytest.skip("the system keeps no peak that can be reset")
    options = bench.parse([])
    shape = cases.Shape(12000, 1, 32, 3000)
    ours = bench.extra_bytes("fastctc", shape, "fixed", "log-probs", options)
    bits = shape.T * shape.S / 4  # in bytes; two states per label
    assert 0.5 * bits < ours < 2.5 * bits
