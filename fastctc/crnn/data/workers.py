"""Worker processes: call a function with many indices, in order, even if a process crashes."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, TypeVar

import torch

log = logging.getLogger(__name__)

CHUNK = 64
WORTH = 1_000  # indices from which worker processes save more time than their start takes

_R = TypeVar("_R")
_worker_function: Callable[[int], Any]


def default_workers() -> int:
    """Return the number of worker processes: one for each CPU this process may use, 0 where there is only one."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cpus if cpus > 1 else 0


def map_in_chunks(
    function: Callable[[int], _R], indices: range, workers: int | None, on_crash: Callable[[int], _R]
) -> Iterator[tuple[range, list[_R]]]:
    """Yield the indices chunk by chunk, in order, each with the function of its indices.

    Args:
        function: must be picklable if ``workers`` > 0.
        indices: what it is called with.
        workers: processes that call it; 0 calls it in this one; None: one for each CPU if they are worth it.
        on_crash: returns the result of an index that crashed its worker process.

    Raises:
        RuntimeError: worker processes cannot start.
    """
    chunks = [indices[start : start + CHUNK] for start in range(0, len(indices), CHUNK)]
    if workers is None:
        workers = default_workers() if len(indices) >= WORTH else 0
    if workers < 1 or len(chunks) < 2:
        for chunk in chunks:
            yield chunk, [function(index) for index in chunk]
        return
    done = 0
    while done < len(chunks):
        try:
            for items in _pool_map(function, chunks[done:], workers):
                yield chunks[done], items
                done += 1
        except BrokenProcessPool:  # in this chunk, or in one that other workers were at
            chunk = chunks[done]
            log.warning("a worker process crashed: taking %d to %d one by one", chunk[0], chunk[-1])
            yield chunk, _one_by_one(function, chunk, on_crash)
            done += 1


def _pool_map(function: Callable[[int], _R], chunks: list[range], workers: int) -> Iterator[list[_R]]:
    """Yield the function of each index of each chunk, in order; workers are a few chunks ahead."""
    with _pool(function, workers) as pool:
        waiting: deque[Future[list[_R]]] = deque()
        todo = iter(chunks)
        try:
            while True:
                waiting += [pool.submit(_run_in_worker, c) for c in islice(todo, 4 * workers - len(waiting))]
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _one_by_one(function: Callable[[int], _R], chunk: range, on_crash: Callable[[int], _R]) -> list[_R]:
    """Return the function of each index of a chunk that may hold one that crashes its process."""
    items: list[_R] = []
    while len(items) < len(chunk):
        with _pool(function, 1) as pool:
            try:
                pool.submit(_run_in_worker, chunk[:0]).result()
            except BrokenProcessPool as error:
                raise RuntimeError(
                    "worker processes cannot start: use workers=0, or in a script, begin under"
                    " if __name__ == '__main__'"
                ) from error
            try:
                for index in chunk[len(items) :]:
                    items += pool.submit(_run_in_worker, range(index, index + 1)).result()
            except BrokenProcessPool:
                items.append(on_crash(index))
    return items


def _pool(function: Callable[[int], Any], workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, _start_worker, (function,))


def _start_worker(function: Callable[[int], Any]) -> None:
    """Keep the function in a new worker, and make the worker end when its parent is killed."""
    global _worker_function
    _worker_function = function
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _run_in_worker(chunk: range) -> list[Any]:
    return [_worker_function(index) for index in chunk]
