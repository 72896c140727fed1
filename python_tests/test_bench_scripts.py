"""The shell scripts of the benchmarks are valid, explain themselves, name what exists and judge their steps."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from benchmark_files import BENCHMARKS, Load, results
from conftest import REPOSITORY


def gpu_suite_steps() -> tuple[list[str], str]:
    """Return the steps of gpu_suite.sh, and the tests that it runs under compute-sanitizer."""
    command = [str(BENCHMARKS / "gpu_suite.sh"), "--dry-run"]
    *steps, last = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return steps, last


def test_gpu_suite_names_its_steps_and_tests_that_exist() -> None:
    script = BENCHMARKS / "gpu_suite.sh"
    steps, last = gpu_suite_steps()
    for step in steps:
        _, seconds, function, *_ = step.split()
        assert int(seconds) > 0
        assert f"\n{function}() {{" in script.read_text()
    benches = {path.name for path in BENCHMARKS.glob("bench_*.py")} - {
        "bench_training.py",
        "bench_word_search.py",
    }
    assert {step.split()[3] for step in steps if "step_bench" in step} == benches

    tests = "".join(path.read_text() for path in (REPOSITORY / "python_tests").rglob("test_*.py"))
    for name in last.split(": ")[1].split(" or "):
        assert f"def {name}(device: Device" in tests or f"def {name}(\n    device: Device" in tests, name


def test_gpu_suite_fits_into_eight_minutes_with_the_sanitizers_last() -> None:
    steps = [step.split() for step in gpu_suite_steps()[0]]
    assert sum(int(step[1]) for step in steps) < 480
    assert [step[0] for step in steps[:3]] == ["packages", "build", "tests"]
    assert [step[0] for step in steps[-2:]] == ["memcheck", "racecheck"]


STAND_IN = """#!/bin/bash
echo "$(basename "$0") $*" >>"$CALLS"
case "$(basename "$0") $*" in
  "nvidia-smi "*compute_cap*name*) echo "Stand-in, 580.1, 9.0" ;;
  "nvidia-smi "*) echo 9.0 ;;
  *"-m pytest"*"-v "*) for ((i = 0; i < PASSED; ++i)); do echo "PASSED test_$i[cuda]"; done ;;
  *"profile_kernels"*) exit "$KERNELS" ;;
esac
"""


@pytest.mark.parametrize(
    "passed, kernels, tools, failed",
    [
        (1000, 0, ("ncu", "compute-sanitizer"), []),
        (999, 0, ("ncu", "compute-sanitizer"), ["tests"]),
        (2000, 3, (), ["kernels"]),
    ],
)
def test_gpu_suite_with_stand_ins_for_every_program(
    tmp_path: Path, passed: int, kernels: int, tools: tuple[str, ...], failed: list[str]
) -> None:
    """The order of the steps, how they are judged, what is skipped, and the files, without running anything."""
    programs, out = tmp_path / "bin", tmp_path / "out"
    programs.mkdir()
    for name in ("python", "python3", "nvcc", "g++", "nvidia-smi", *tools):
        (programs / name).write_text(STAND_IN)
        (programs / name).chmod(0o755)
    environment = {
        "PATH": f"{programs}:/usr/bin:/bin",
        "CALLS": str(tmp_path / "calls"),
        "WORK": str(tmp_path / "work"),
        "PASSED": str(passed),
        "KERNELS": str(kernels),
        "HOME": str(tmp_path),
    }
    # The stand-in of Python makes no environment, and a place for it is asked for by its answer, an empty line.
    (programs / "python").write_text(STAND_IN.replace("esac", '  *purelib*) echo "$(dirname "$0")" ;;\nesac'))
    command = ["bash", str(BENCHMARKS / "gpu_suite.sh"), str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == (1 if failed else 0), done.stdout + done.stderr
    assert sorted(path.name for path in out.iterdir()) == ["results.tar.gz", "summary.txt"]
    summary = (out / "summary.txt").read_text()
    verdicts = {line.split()[1]: line.split()[0] for line in summary.splitlines()[2:-1]}
    assert list(verdicts) == [step.split()[0] for step in gpu_suite_steps()[0]]
    assert [name for name, verdict in verdicts.items() if verdict == "FAIL"] == failed
    skipped = [] if tools else ["ncu", "memcheck", "racecheck"]
    assert [name for name, verdict in verdicts.items() if verdict == "skip"] == skipped
    assert f"{passed} tests have passed" in summary
    with tarfile.open(out / "results.tar.gz") as tar:
        assert {"./log.txt", "./summary.txt", "./tests.txt", "./gpu.md", "./results"} <= set(tar.getnames())
        packed = tar.extractfile("./summary.txt")
        assert packed and packed.read().decode() == summary
    assert not list(tmp_path.glob("work.*"))
    calls = (tmp_path / "calls").read_text()
    assert "-k cuda -m not slow" in calls and "--ignore python_tests/crnn" in calls


@pytest.mark.parametrize("script", sorted(BENCHMARKS.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_valid_and_explain_themselves(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    done = subprocess.run([str(script), "--help"], capture_output=True, text=True, check=True)
    assert script.name in done.stdout


@pytest.mark.parametrize("name", ["bench_ctc_loss", "bench_beam_search", "bench_forced_align"])
def test_rows_are_saved_as_they_are_done(
    load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    bench = load(name)
    measure, calls = bench.measure, []

    def cut_off(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measure(*arguments, **options)

    monkeypatch.setattr(bench, "measure", cut_off)
    shape = "a" if name == "bench_beam_search" else "A"
    with pytest.raises(KeyboardInterrupt):
        bench.main(["--quick", "--shapes", shape, "--out", str(tmp_path)])
    assert len(results(tmp_path)["results"]) == 1
    (table,) = tmp_path.glob("*.md")
    assert table.read_text().count("| fastctc |" if shape == "a" else "| A |") == 1
