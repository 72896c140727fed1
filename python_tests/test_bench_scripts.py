"""The shell scripts of the benchmarks are valid, explain themselves and name what exists."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from benchmark_files import BENCHMARKS
from conftest import REPOSITORY


def test_gpu_suite_names_its_steps_and_tests_that_exist() -> None:
    script = BENCHMARKS / "gpu_suite.sh"
    done = subprocess.run([str(script), "--dry-run"], capture_output=True, text=True, check=True)
    *steps, last = done.stdout.splitlines()
    for step in steps:
        _, seconds, function, *_ = step.split()
        assert int(seconds) > 0
        assert f"\n{function}() {{" in script.read_text()
    benches = {path.name for path in BENCHMARKS.glob("bench_*.py")} - {
        "bench_training.py",
        "bench_word_search.py",
    }
    assert {step.split()[-1] for step in steps if "step_bench" in step} == benches

    tests = "".join(path.read_text() for path in (REPOSITORY / "python_tests").rglob("test_*.py"))
    for name in last.split(": ")[1].split(" or "):
        assert f"def {name}(device: Device" in tests or f"def {name}(\n    device: Device" in tests, name


@pytest.mark.parametrize("script", sorted(BENCHMARKS.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_valid_and_explain_themselves(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    done = subprocess.run([str(script), "--help"], capture_output=True, text=True, check=True)
    assert script.name in done.stdout
