"""The shell scripts of the benchmarks are valid, explain themselves, name what exists and judge their steps."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from benchmark_files import BENCHMARKS, Load, results
from conftest import REPOSITORY


def gpu_suite_steps() -> tuple[list[str], list[Path], str]:
    """Return the steps of gpu_suite.sh, its files of tests, and the tests that it runs under compute-sanitizer."""
    command = [str(BENCHMARKS / "gpu_suite.sh"), "--dry-run"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    *steps, files, last = output.splitlines()
    return steps, [REPOSITORY / name for name in files.split(": ")[1].split()], last


def test_gpu_suite_names_its_steps_and_tests_that_exist() -> None:
    script = BENCHMARKS / "gpu_suite.sh"
    steps, _, last = gpu_suite_steps()
    for step in steps:
        _, seconds, function, *_ = step.split()
        assert int(seconds) > 0
        assert f"\n{function}() {{" in script.read_text()
    benches = {path.name for path in BENCHMARKS.glob("bench_*.py")} - {
        "bench_reading.py",
        "bench_training.py",
        "bench_word_search.py",
    }
    assert {step.split()[3] for step in steps if "step_bench" in step} == benches

    tests = "".join(path.read_text() for path in gpu_suite_steps()[1])
    for name in last.split(": ")[1].split(" or "):
        assert f"def {name}(device: Device" in tests or f"def {name}(\n    device: Device" in tests, name


def test_the_sanitizers_are_last_in_the_gpu_suite() -> None:
    steps = [step.split() for step in gpu_suite_steps()[0]]
    assert [step[0] for step in steps[:3]] == ["packages", "build", "tests"]
    assert [step[0] for step in steps[-2:]] == ["memcheck", "racecheck"]


def test_gpu_suite_fits_into_eight_minutes(tmp_path: Path) -> None:
    """No step starts, and none goes on, after the seconds of all steps together."""
    (default,) = re.findall(r"AT_MOST:-(\d+)", (BENCHMARKS / "gpu_suite.sh").read_text())
    assert int(default) + 20 <= 480  # the table and the archive come after the steps
    environment, out = with_stand_ins(tmp_path, ("nvidia-smi",)) | {"AT_MOST": "7"}, tmp_path / "out"
    (tmp_path / "bin" / "nvcc").write_text("#!/bin/bash\nsleep 60\n")
    command = ["bash", str(BENCHMARKS / "gpu_suite.sh"), str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    first, *others = (out / "summary.txt").read_text().splitlines()[2:-1]
    assert first.startswith("FAIL  packages") and first.endswith("over its time")
    assert all(line.startswith("skip") for line in others) and others[0].endswith("no time left")


def test_files_of_the_gpu_suite_import_nothing_that_its_machine_may_lack() -> None:
    """One failed import would cost all tests of a file."""
    script = (BENCHMARKS / "gpu_suite.sh").read_text()
    (needed,) = re.findall(r'^needed="([^"]+)"', script, re.MULTILINE)
    there = {re.split("[>=]", each)[0] for each in needed.split()} | {"fastctc", *sys.stdlib_module_names}
    tests = REPOSITORY / "python_tests"
    files = gpu_suite_steps()[1]
    assert {tests / "test_ctc_loss.py", tests / "scoring" / "test_scored_search.py"} <= set(files)
    done: set[Path] = set()
    to_do = [*files, tests / "conftest.py"]
    while to_do:
        path = to_do.pop()
        done.add(path)
        for name in imported_at_the_top(path):
            beside = [
                folder / f"{name}.py" for folder in (path.parent, tests) if (folder / f"{name}.py").exists()
            ]
            assert beside or name in there, f"{path.relative_to(tests)} imports {name}"
            to_do += [each for each in beside if each not in done]


def imported_at_the_top(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            names |= {each.name.partition(".")[0] for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


STAND_IN = """#!/bin/bash
echo "$(basename "$0") $*" >>"$CALLS"
case "$(basename "$0") $*" in
  "nvidia-smi "*compute_cap*name*) echo "Stand-in, 580.1, 9.0" ;;
  "nvidia-smi "*) echo 9.0 ;;
  *"-m pytest"*"-v "*) for ((i = 0; i < PASSED; ++i)); do echo "PASSED test_$i[cuda]"; done ;;
  *"profile_kernels"*) exit "$KERNELS" ;;
esac
"""


def with_stand_ins(folder: Path, tools: tuple[str, ...]) -> dict[str, str]:
    """Return an environment whose programs are stand-ins; write Python, the compilers and `tools`."""
    programs = folder / "bin"
    programs.mkdir()
    for name in ("python", "python3", "nvcc", "g++", *tools):
        (programs / name).write_text(STAND_IN)
        (programs / name).chmod(0o755)
    # The stand-in of Python makes no environment, and a place for it is asked for by its answer, an empty line.
    (programs / "python").write_text(STAND_IN.replace("esac", '  *purelib*) echo "$(dirname "$0")" ;;\nesac'))
    return {
        "PATH": f"{programs}:/usr/bin:/bin",
        "CALLS": str(folder / "calls"),
        "WORK": str(folder / "work"),
        "PASSED": "1000",
        "KERNELS": "0",
        "HOME": str(folder),
    }


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
    environment = with_stand_ins(tmp_path, ("nvidia-smi", *tools)) | {
        "PASSED": str(passed),
        "KERNELS": str(kernels),
    }
    out = tmp_path / "out"
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
    assert "-k cuda -m not slow python_tests/test_beam_search.py " in calls and "-p gpu_plugin" in calls
    assert "crnn" not in calls


def test_a_rehearsal_runs_every_step_without_a_card_and_its_tools(tmp_path: Path) -> None:
    environment, out = with_stand_ins(tmp_path, ()), tmp_path / "out"
    command = ["bash", str(BENCHMARKS / "gpu_suite.sh"), "--rehearse", str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = (out / "summary.txt").read_text().splitlines()
    assert summary[1] == "Stand-in, 580.1, 9.0"
    assert [line.split()[0] for line in summary[2:-1]] == ["pass"] * len(gpu_suite_steps()[0])
    calls = (tmp_path / "calls").read_text()
    assert "profile_kernels.py --once --device cpu --quick" in calls  # through the stand-in of ncu
    assert calls.count("-k cpu and (test_") == 2  # and twice of compute-sanitizer


@pytest.mark.parametrize(
    "driver, on_path, elsewhere, chosen",
    [
        ("13.0", "13.0", "12.8", "bin/nvcc"),
        ("12.8", "13.0", "12.9", "cuda/bin/nvcc"),  # a minor number does not matter
        ("12.8", "", "12.8", "cuda/bin/nvcc"),
        ("12.8", "13.0", "13.1", ""),
    ],
)
def test_gpu_suite_builds_with_an_nvcc_that_the_driver_accepts(
    tmp_path: Path, driver: str, on_path: str, elsewhere: str, chosen: str
) -> None:
    environment = with_stand_ins(tmp_path, ("nvidia-smi",)) | {"TOOLKITS": str(tmp_path / "toolkit")}
    programs = tmp_path / "bin"
    if on_path:
        environment["CUDACXX"] = str(programs / "nvcc")
    (tmp_path / "toolkit" / "bin").mkdir(parents=True)
    for nvcc, version in ((programs / "nvcc", on_path), (tmp_path / "toolkit" / "bin" / "nvcc", elsewhere)):
        nvcc.write_text(f"#!/bin/bash\necho Cuda compilation tools, release {version}, V{version}.1\n")
        nvcc.chmod(0o755 if version else 0o644)
    header = f'  "nvidia-smi ") echo "| CUDA Version: {driver} |" ;;'
    (programs / "nvidia-smi").write_text(
        STAND_IN.replace("esac", f"{header}\nesac").replace('"nvidia-smi "*)', '"nvidia-smi -"*)')
    )
    # The build records which nvcc it finds.
    python = (programs / "python").read_text()
    record = '  *"pip install"*) command -v "${CUDACXX:-nvcc}" >>"$CALLS" ;;'
    (programs / "python").write_text(python.replace("esac", f"{record}\nesac"))
    command = ["bash", str(BENCHMARKS / "gpu_suite.sh"), str(tmp_path / "out")]
    subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    verdict, name = (tmp_path / "out" / "summary.txt").read_text().splitlines()[2].split()[:2]
    assert (verdict, name) == ("pass" if chosen else "FAIL", "packages")
    found = [line for line in (tmp_path / "calls").read_text().splitlines() if line.endswith("/nvcc")]
    assert not chosen or found[0].endswith(f"/{chosen}")


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
