"""bench_reading.py runs, writes its results, and stops where fastctc reads an image differently in a batch."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from benchmark_files import Load, results


@pytest.fixture
def alone(load: Load, monkeypatch: pytest.MonkeyPatch):
    """Return the benchmark as if no other recognizer were installed."""
    bench = load("bench_reading")
    monkeypatch.setattr(bench, "find_spec", lambda name: None)
    monkeypatch.setattr(bench, "which", lambda name: None)
    return bench


def test_reading(alone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["bench_reading.py", "--quick", "--kinds", "formulas", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", command)
    alone.main()
    rows = results(tmp_path)["rows"]["formulas"]
    assert {"fastctc", "fastctc, one image at a time"} <= set(rows)
    assert all(row["exact"] >= 0.8 and row["milliseconds"] > 0 for row in rows.values())


def test_other_texts_in_a_batch_end_the_benchmark(
    alone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ours(*_: object, single: bool = False, **__: object) -> object:
        return lambda images: [str(single)] * len(images)

    monkeypatch.setattr(alone, "ours", ours)
    with pytest.raises(SystemExit, match="fastctc reads an image differently in a batch"):
        alone.measure("formulas", 2, 1, tmp_path)


def test_shares_ignore_case_and_signs_where_asked(alone) -> None:
    found, right = ["A-b", "c", "D"], ["a.B", "c", "e"]
    assert alone.share(found, right) == pytest.approx(1 / 3)
    assert alone.share(map(alone.alphanumeric, found), map(alone.alphanumeric, right)) == pytest.approx(2 / 3)
