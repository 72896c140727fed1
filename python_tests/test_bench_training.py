"""bench_training.py runs, writes its results, and refuses to time a wrong loss."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from benchmark_files import BENCHMARKS, Load, results


@pytest.mark.slow
def test_training(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "bench_training.py"), "--quick", "--threads", "1"]
    done = subprocess.run([*command, "--out", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = results(tmp_path)
    assert found["benchmark"] == "training" and found["quick"] and found["threads"] == 1
    assert [row["way"] for row in found["rows"]] == ["fastctc", "beforehand", "on the fly"]
    for row in found["rows"]:
        parts = row["drawing_ms"] + row["batching_ms"] + row["model_ms"]
        assert row["images_per_second"] == pytest.approx(64e3 / parts)
        assert row["data_share"] == pytest.approx(1 - row["model_ms"] / parts)


def test_training_with_a_wrong_loss_is_not_timed(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = load("bench_training")
    samples, _ = bench.collect(bench.CAPTCHA, range(8), bench.PREPROCESS)
    batch = bench.BatchMaker(samples, bench.ALPHABET, 8).batch(0)
    bench.check(batch)
    wrong = {"fastctc": lambda *a, **k: 1.001 * bench.torch_loss(*a, **k), "torch": bench.torch_loss}
    monkeypatch.setattr(bench, "LOSSES", wrong)
    with pytest.raises(AssertionError, match=r"not close|gradients of \S+ differ"):
        bench.check(batch)
