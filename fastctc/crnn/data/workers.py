"""Worker processes: call a function with many things, in order, even if a process crashes."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, TypeVar

import torch

log = logging.getLogger(__name__)

CHUNK = 64
AHEAD = 4  # chunks for each worker that are read, worked at, or waiting to be used
WORTH = 1_000  # indices from which worker processes save more time than their start takes

_T = TypeVar("_T")
_R = TypeVar("_R")
_Chunk = TypeVar("_Chunk", bound=Sequence[Any])
_worker_function: Callable[[Any], Any]


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
    if workers is None:
        workers = default_workers() if len(indices) >= WORTH else 0
    if len(indices) <= CHUNK:
        workers = 0
    chunks = (indices[start : start + CHUNK] for start in range(0, len(indices), CHUNK))
    return map_chunks(function, chunks, workers, on_crash)


def map_chunks(
    function: Callable[[_T], _R], chunks: Iterable[_Chunk], workers: int, on_crash: Callable[[_T], _R]
) -> Iterator[tuple[_Chunk, list[_R]]]:
    """Yield chunks of anything picklable, in order, each with the function of its elements.

    Chunks are taken when workers need them: at most ``AHEAD`` for each worker are in memory.

    Args:
        function: must be picklable if ``workers`` > 0.
        chunks: sequences of what it is called with.
        workers: processes that call it; 0 calls it in this one.
        on_crash: returns the result of an element that crashed its worker process.

    Raises:
        RuntimeError: worker processes cannot start.
    """
    if workers < 1:
        for chunk in chunks:
            yield chunk, [function(each) for each in chunk]
        return
    todo, sent = iter(chunks), deque[_Chunk]()
    while True:
        try:
            yield from _pool_map(function, todo, sent, workers)
            return
        except BrokenProcessPool:  # in this chunk, or in one that other workers were at
            chunk = sent.popleft()
            log.warning("a worker process crashed: taking %s to %s one by one", chunk[0], chunk[-1])
            yield chunk, _one_by_one(function, chunk, on_crash)


def _pool_map(
    function: Callable[[_T], _R], todo: Iterator[_Chunk], sent: deque[_Chunk], workers: int
) -> Iterator[tuple[_Chunk, list[_R]]]:
    """Yield chunks with the function of their elements; ``sent`` holds those that workers were given."""
    with _pool(function, workers) as pool:
        try:
            waiting: deque[Future[list[_R]]] = deque(pool.submit(_run_in_worker, chunk) for chunk in sent)
            while True:
                for chunk in islice(todo, AHEAD * workers - len(sent)):
                    sent.append(chunk)
                    waiting.append(pool.submit(_run_in_worker, chunk))
                if not waiting:
                    return
                items = waiting.popleft().result()
                yield sent.popleft(), items
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _one_by_one(function: Callable[[_T], _R], chunk: Sequence[_T], on_crash: Callable[[_T], _R]) -> list[_R]:
    """Return the function of each element of a chunk that may hold one that crashes its process."""
    items: list[_R] = []
    while len(items) < len(chunk):
        with _pool(function, 1) as pool:
            try:
                pool.submit(_run_in_worker, ()).result()
            except BrokenProcessPool as error:
                raise RuntimeError(
                    "worker processes cannot start: use workers=0, or in a script, begin under"
                    " if __name__ == '__main__'"
                ) from error
            try:
                for each in chunk[len(items) :]:
                    items += pool.submit(_run_in_worker, (each,)).result()
            except BrokenProcessPool:
                items.append(on_crash(each))
    return items


def _pool(function: Callable[[Any], Any], workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, _start_worker, (function,))


def _start_worker(function: Callable[[Any], Any]) -> None:
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


def _run_in_worker(chunk: Iterable[Any]) -> list[Any]:
    return [_worker_function(each) for each in chunk]
