"""A lack of memory is reported in the words of PyTorch's allocators, which searches for a batch size look for."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

import fastctc
from fastctc import ops

WORDS = "DefaultCPUAllocator: can't allocate memory"
FRAMES, SAMPLES = 2**24, 2**18  # of an input that is one value in memory


def is_out_of_memory(error: BaseException) -> bool:
    """Return True for an error that the batch-size finders of Lightning and Accelerate recognize."""
    of_cuda = isinstance(error, torch.OutOfMemoryError) or "CUDA out of memory." in str(error)
    return isinstance(error, RuntimeError) and len(error.args) == 1 and (of_cuda or WORDS in error.args[0])


def large() -> tuple[Any, ...]:
    x = torch.zeros(1).expand(FRAMES, SAMPLES, 4)
    targets = torch.ones(1, dtype=torch.int64).expand(SAMPLES, 1)
    return x, targets, torch.full((SAMPLES,), FRAMES), torch.full((SAMPLES,), 1)


CALLS: dict[str, Callable[[], object]] = {
    "loss": lambda: fastctc.ctc_loss(*large()),
    "loss with a gradient": lambda: fastctc.ctc_loss(large()[0].requires_grad_(), *large()[1:]),
    "posteriors": lambda: fastctc.ctc_posteriors(*large()),
    "alignment": lambda: fastctc.forced_align(*large(), time_major=True),
    "greedy decoding": lambda: fastctc.greedy_decode(large()[0], time_major=True),
    "beam search": lambda: fastctc.beam_search(large()[0], time_major=True),
}


@pytest.mark.parametrize("name", CALLS)
def test_results_that_find_no_room(name: str) -> None:
    with pytest.raises(RuntimeError, match=WORDS) as caught:
        CALLS[name]()
    assert is_out_of_memory(caught.value)
    assert "API call failed" not in str(caught.value)


# The limit is set once PyTorch has its threads. It leaves no room for the scratch memory of a call.
LIMITED = """
import resource, torch, fastctc
def limit(megabytes):
    used = int(open("/proc/self/statm").read().split()[0]) * 4096
    resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 2**20, resource.RLIM_INFINITY))
x = torch.zeros(1).expand(600, 2, 40)
targets = 1 + torch.arange(20000)[None] % 2
fastctc.beam_search(x, time_major=True)
{call}
"""
SCRATCH = {
    "loss": "x = torch.zeros(40000, 1, 4, dtype=torch.float64)\nlimit(50)\n"
    "fastctc.ctc_loss(x, targets[:, :300], [40000], [300])",
    "alignment": "x = torch.zeros(1).expand(400000, 1, 4)\nlimit(30)\n"
    "fastctc.forced_align(x, targets, [400000], [20000], time_major=True)",
    "beam search": "limit(100)\nfastctc.beam_search(x, time_major=True, beam_size=200000)",
}


@pytest.mark.skipif(sys.platform != "linux", reason="the limits of the address space are for Linux")
@pytest.mark.parametrize("name", SCRATCH)
def test_scratch_memory_that_finds_no_room(name: str) -> None:
    script = LIMITED.format(call=SCRATCH[name])
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.returncode == 1, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("RuntimeError: ") and WORDS in last


def test_cuda_errors_become_those_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message of the allocator on CUDA comes through the op as a RuntimeError."""

    class Op:
        @staticmethod
        def default(*_: Any) -> None:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    monkeypatch.setattr(torch.ops.fastctc, "greedy_decode", Op)
    with pytest.raises(torch.OutOfMemoryError, match=r"CUDA out of memory\. Tried") as caught:
        ops._callable("greedy_decode")()
    assert is_out_of_memory(caught.value)


def test_other_errors_of_an_op_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    class Op:
        @staticmethod
        def default(error: Exception) -> None:
            raise error

    monkeypatch.setattr(torch.ops.fastctc, "greedy_decode", Op)
    call = ops._callable("greedy_decode")
    for error in (RuntimeError("fastctc: CUDA error 700 at a kernel launch"), NotImplementedError("meta")):
        with pytest.raises(type(error)) as caught:
            call(error)
        assert caught.value is error
    with pytest.raises(RuntimeError, match=WORDS):
        call(MemoryError("std::bad_alloc"))
    with pytest.raises(fastctc.ArgumentValueError, match="blank is 7"):
        call(ValueError("blank is 7"))
