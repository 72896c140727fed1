"""The pytest plugin of the GPU command: a test that hangs or breaks CUDA stops no other test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmark_files import BENCHMARKS

# A stand-in for PyTorch on a GPU: once `broken`, it stays so in its process.
TORCH = """
class cuda:
    broken = False
    def is_initialized(): return True
    def synchronize():
        if cuda.broken: raise RuntimeError("an illegal memory access was encountered")
"""
TESTS = """
import time, torch
def test_first(): pass
def test_breaks_cuda():
    torch.cuda.broken = True
    assert False
def test_after_it(): assert not torch.cuda.broken
def test_fails(): assert False
def test_after_that(): pass
def test_hangs(): time.sleep(60)
def test_last(): pass
"""


def run(folder: Path, tests: str, longest: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run pytest with the plugin and the stand-in; a test may take `longest` seconds."""
    (folder / "torch.py").write_text(TORCH)
    (folder / "test_planted.py").write_text(tests)
    (folder / "pytest.ini").write_text("[pytest]\n")
    environment = os.environ | {"PYTHONPATH": f"{folder}:{BENCHMARKS}", "FASTCTC_LONGEST_TEST": longest}
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-p", "gpu_plugin", *options]
    return subprocess.run(
        [*command, str(folder)],
        env={name: value for name, value in environment.items() if name != "PYTEST_XDIST_WORKER"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_other_tests_run_after_one_that_hangs_or_breaks_cuda(tmp_path: Path) -> None:
    pytest.importorskip("xdist")
    done = run(tmp_path, TESTS, "1.5", "-n", "1")
    passed = {line.split("::")[1].strip() for line in done.stdout.splitlines() if " PASSED " in line}
    assert passed == {"test_first", "test_after_it", "test_after_that", "test_last"}, done.stdout
    assert done.stdout.count("\nworker 'gw") == 2  # crashed
    assert "CUDA is broken in this process: an illegal memory access" in done.stderr
    assert "in test_hangs" in done.stderr  # where it was


def test_a_long_test_ends_no_run_that_has_one_process(tmp_path: Path) -> None:
    slow = "import time\ndef test_slow(): time.sleep(0.5)\ndef test_last(): pass\n"
    done = run(tmp_path, slow, "0.1", "-p", "no:xdist")
    assert done.returncode == 0 and "2 passed" in done.stdout
    assert "in test_slow" in done.stderr  # where it was
