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


def test_other_tests_run_after_one_that_hangs_or_breaks_cuda(tmp_path: Path) -> None:
    pytest.importorskip("xdist")
    (tmp_path / "torch.py").write_text(TORCH)
    (tmp_path / "test_planted.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{BENCHMARKS}", "FASTCTC_LONGEST_TEST": "1.5"}
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-p", "gpu_plugin", "-n", "1"]
    done = subprocess.run(
        [*command, str(tmp_path)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    passed = {line.split("::")[1].strip() for line in done.stdout.splitlines() if " PASSED " in line}
    assert passed == {"test_first", "test_after_it", "test_after_that", "test_last"}, done.stdout
    assert done.stdout.count("\nworker 'gw") == 2  # crashed
    assert "CUDA is broken in this process: an illegal memory access" in done.stderr
    assert "in test_hangs" in done.stderr  # where it was
