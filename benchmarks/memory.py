"""The memory that a loss and its gradient need at most, beyond the input and the gradient themselves.

On CUDA PyTorch's allocator measures it. On the CPU it misses scratch memory in C++, so the kernel is asked: this
file, run as a program, imports and warms up everything on a tiny batch, then forks a process for each figure.
That process has all pages of libraries mapped in, returns freed memory to the system, resets the peak of its
resident set through /proc/self/clear_refs, makes the one call and reads the peak. Allocations of 64 KiB and more
are fresh mappings (see `Probe`): none hides in memory that was freed before.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import resource
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch

from cases import INPUTS, Shape, draw, scores_of
from peers import Peer, in_torch

# The kernel adds up the pages of a process in batches: of 32, or twice the number of cores; of 64 before Linux 6.2.
BATCH = max(64, 2 * (os.cpu_count() or 1))
RESOLUTION = BATCH // 4 * mmap.PAGESIZE  # bytes
SIDES = ["fastctc", "torch"]
Result = TypeVar("Result")


def peak_on_cuda(call: Callable[[], Result]) -> tuple[int, Result]:
    """Return the most bytes on CUDA during a call, beyond those before it, and the result of the call."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = call()
    return torch.cuda.max_memory_allocated() - before, result


def extra_on_cuda(peer: Peer, scores: Any) -> int:
    """Return the extra bytes on CUDA; `peer` has been called before."""
    size, (_, gradient) = peak_on_cuda(lambda: peer(scores))
    return size - gradient.nbytes


def possible() -> bool:
    """Return True if the peak can be reset on this system, as on Linux."""
    return os.access("/proc/self/clear_refs", os.W_OK)


class Probe:
    """Measures on the CPU, in processes of its own."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.server = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},
        )
        assert self.server.stdout
        self.server.stdout.readline()  # ready: what is timed from now on has the processor alone

    def extra(self, side: str, shape: Shape, lengths: str, kind: str) -> int:
        """Return the extra bytes.

        The kernel's count lacks a part of a batch of pages, which matters for small figures. The result is then the
        largest of four, with a quarter of a batch more touched before each.
        """
        request = {"side": side, "lengths": lengths, "kind": kind, "threads": self.threads, **asdict(shape)}
        first = self._ask({**request, "ballast": 0})
        if first > 2**25:  # large enough
            return first
        return max(
            first,
            *(self._ask({**request, "ballast": pages}) for pages in range(BATCH // 4, BATCH, BATCH // 4)),
        )

    def _ask(self, request: dict[str, Any]) -> int:
        assert self.server.stdin and self.server.stdout
        try:
            print(json.dumps(request), file=self.server.stdin, flush=True)
        except BrokenPipeError:
            raise RuntimeError("the memory probe has ended") from None
        answer = self.server.stdout.readline()
        if not answer.strip():
            raise RuntimeError("the memory probe has failed")
        return int(answer)

    def close(self) -> None:
        self.server.communicate()


def peak() -> int:
    """Return the peak memory of this process in bytes since `reset_peak`, as the kernel counts it."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def map_libraries() -> None:
    """Map in every page of every library (Linux 5.14 or later; earlier this does nothing)."""
    populate_read = 22
    madvise = ctypes.CDLL(None).madvise
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, rights, *_, file = line.split()
        if rights.startswith("r") and ".so" in file:
            start, end = (int(each, 16) for each in addresses.split("-"))
            madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), populate_read)


def settle(ballast: mmap.mmap, pages: int) -> int:
    """Touch pages until the kernel's count is exact, then `pages` more; return the bytes in memory."""
    reset_peak()
    start = peak()
    touched = 0
    while peak() == start and (touched + pages) * mmap.PAGESIZE < len(ballast):
        ballast[touched * mmap.PAGESIZE] = 1
        touched += 1
    exact = peak()
    for page in range(touched, touched + pages):
        ballast[page * mmap.PAGESIZE] = 1
    return exact + pages * mmap.PAGESIZE


def extra_here(side: str, shape: Shape, lengths: str, kind: str, ballast: int) -> int:
    """Return the extra bytes; for a process that has called nothing yet and ends afterwards."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # the kernel counts for each core
    case, logits = draw(shape, lengths)
    scores = scores_of(logits, kind).requires_grad_()
    del logits
    peer = in_torch(case, scores, kind == "logits")[side]
    map_libraries()
    ctypes.CDLL(None).malloc_trim(0)
    pages = mmap.mmap(-1, 4 * BATCH * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    before = settle(pages, ballast)
    _, gradient = peer(scores)
    return peak() - before - gradient.nbytes


def serve() -> None:
    """Print a line when ready. Read lines with a request, and print a line with a number, empty if it failed."""
    torch.set_num_threads(1)  # no threads before the fork
    for side in SIDES:
        for kind in INPUTS:
            case, logits = draw(Shape(8, 1, 4, 2))
            in_torch(case, logits, kind == "logits")[side](scores_of(logits, kind).requires_grad_())
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            try:
                torch.set_num_threads(request.pop("threads"))
                shape = Shape(**{size: request.pop(size) for size in "TNCS"})
                print(extra_here(shape=shape, **request), flush=True)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        _, status = os.waitpid(child, 0)
        if status:
            print(flush=True)


if __name__ == "__main__":
    serve()
