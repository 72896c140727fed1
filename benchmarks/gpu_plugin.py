"""A pytest plugin for tests on a GPU: a test that hangs, or that breaks CUDA in its process, stops no other test.

  PYTHONPATH=benchmarks python -m pytest -p gpu_plugin -n 8

A kernel that accesses wrong memory leaves an error in its process, and each later CUDA call there returns it.
So the process ends after a test with such an error, and after LONGEST seconds of a test. pytest-xdist starts
another process for the rest. Without pytest-xdist the run ends after such an error, and no test is too long.
"""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Generator

import pytest

LONGEST = float(os.environ.get("FASTCTC_LONGEST_TEST", "60"))  # seconds
messages = os.fdopen(os.dup(2), "w")  # before pytest captures it
failed = False  # has a phase of the current test failed?


def cuda_is_broken() -> bool:
    """Return True if an earlier kernel left an error that every CUDA call returns from now on."""
    import torch

    if not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        print(f"CUDA is broken in this process: {error}", file=messages, flush=True)
        return True
    return False


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    global failed
    failed = False
    is_replaced = "PYTEST_XDIST_WORKER" in os.environ
    faulthandler.dump_traceback_later(LONGEST, exit=is_replaced, file=messages)
    try:
        result = yield
    finally:
        faulthandler.cancel_dump_traceback_later()
    if failed and cuda_is_broken():
        os._exit(1)  # the reports of this test are out; CUDA could not even be shut down
    return result


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    global failed
    failed |= report.failed
