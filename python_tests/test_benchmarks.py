"""The benchmarks run, write what they should, and refuse to time a wrong result."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from torch import Tensor

import fastctc

REPOSITORY = Path(__file__).resolve().parent.parent
BENCHMARKS = REPOSITORY / "benchmarks"
QUICK = ("--quick", "--shapes", "A", "--device", "cpu")


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def results(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("*.json")
    return json.loads(path.read_text())


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
        assert row["sides"].keys() == {"fastctc", "torch"}
        times = {side: each["median_ms"] for side, each in row["sides"].items()}
        assert row["ratio"]["torch"] == pytest.approx(times["torch"] / times["fastctc"])
        assert row["sides"]["fastctc"]["gradient_error"] < 1e-5

    (table,) = tmp_path.glob("*.md")
    assert len(re.findall(r"^\| A \|", table.read_text(), re.MULTILINE)) == 2
    assert len(list(tmp_path.iterdir())) == 2, "temporary files are left over"


@pytest.mark.parametrize("wrong", ["loss", "gradient", "nan"])
def test_wrong_result_is_not_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrong: str) -> None:
    right = fastctc.ctc_loss

    def planted(scores: Tensor, *arguments: Any, **options: Any) -> Tensor:
        loss = right(scores, *arguments, **options)
        if wrong == "nan":
            return loss * float("nan")
        off = 1.001 * loss
        return off if wrong == "loss" else off - 0.001 * loss.detach()

    monkeypatch.setattr(fastctc, "ctc_loss", planted)
    assert load("bench_ctc_loss").main([*QUICK, "--out", str(tmp_path)]) == 1
    for row in results(tmp_path)["results"]:
        assert row["refused"]
        assert "ratio" not in row
        assert all("median_ms" not in side for side in row["sides"].values())


def test_gpu_suite_names_its_steps_and_tests_that_exist() -> None:
    script = BENCHMARKS / "gpu_suite.sh"
    done = subprocess.run([str(script), "--dry-run"], capture_output=True, text=True, check=True)
    *steps, last = done.stdout.splitlines()
    for step in steps:
        _, seconds, function, *_ = step.split()
        assert int(seconds) > 0
        assert f"\n{function}() {{" in script.read_text()
    benches = {path.name for path in BENCHMARKS.glob("bench_*.py")}
    assert {step.split()[-1] for step in steps if "step_bench" in step} == benches

    tests = "".join(path.read_text() for path in (REPOSITORY / "python_tests").rglob("test_*.py"))
    for name in last.split(": ")[1].split(" or "):
        assert f"def {name}(device: Device" in tests or f"def {name}(\n    device: Device" in tests, name


@pytest.mark.parametrize("script", sorted(BENCHMARKS.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_valid_and_explain_themselves(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    done = subprocess.run([str(script), "--help"], capture_output=True, text=True, check=True)
    assert script.name in done.stdout
