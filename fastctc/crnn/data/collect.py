"""Samples in memory: drawn or read once by worker processes, kept preprocessed."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from fastctc.crnn.data.preprocess import ImageError, Prepared, PreprocessConfig, prepare
from fastctc.crnn.data.readers import LABELS_FILE, LabelError, Source

log = logging.getLogger(__name__)

CHUNK = 64


@dataclass(frozen=True)
class Problem:
    """A sample that was left out: its name and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass
class Samples:
    """Preprocessed images, (H, W) uint8 each, with their texts and the names they go by in reports.

    ``contrasts`` are those of :class:`fastctc.crnn.data.preprocess.Prepared`, or empty if they were not measured.
    """

    images: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    contrasts: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.images)

    def fingerprint(self) -> int:
        """A number that changes, almost surely, with any text or pixel."""
        value = zlib.crc32("\n".join(self.texts).encode())
        for image in self.images:
            value = zlib.crc32(image.tobytes(), value)
        return value

    def subset(self, indices: list[int]) -> Samples:
        """The samples at these indices, in this order; the images are shared."""
        return Samples(
            [self.images[i] for i in indices],
            [self.texts[i] for i in indices],
            [self.names[i] for i in indices],
            [self.contrasts[i] for i in indices] if self.contrasts else [],
        )


CRASHED = "the process that read it crashed"
_Collected = tuple[Prepared | str, str]  # the image or why there is none, and the text


def collect(
    source: Source,
    indices: range,
    preprocess: PreprocessConfig,
    *,
    workers: int = 0,
    seconds: float | None = None,
    name: Callable[[int], str] = "sample {}".format,
    on_progress: Callable[[int], object] = lambda done: None,
) -> tuple[Samples, list[Problem]]:
    """Draws or reads samples and preprocesses them, in the order of their indices.

    A sample that cannot be read, whatever is the matter with it, becomes a problem and stops nothing; so does
    one that takes its worker process down with it.

    Args:
        source: gives the samples; must be picklable if ``workers`` > 0.
        indices: which samples.
        preprocess: height and limits.
        workers: processes that draw; 0 draws in this one.
        seconds: stop after this time, keeping what was drawn so far; None: draw all.
        name: what to call a sample in reports.
        on_progress: called with the number of samples done since the last call.

    Returns:
        The samples, and the problems of those that could not be read.

    Raises:
        ModuleNotFoundError: a package that the source needs is missing.
        RuntimeError: worker processes cannot start.
    """
    samples, problems = Samples(), []
    deadline = time.monotonic() + (float("inf") if seconds is None else seconds)
    chunks = [indices[start : start + CHUNK] for start in range(0, len(indices), CHUNK)]
    read = partial(_read_one, source, preprocess)
    for chunk, items in _map_chunks(read, chunks, workers, lambda index: (CRASHED, "")):
        for index, (image, text) in zip(chunk, items, strict=True):
            if isinstance(image, str):
                problems.append(Problem(name(index), image))
                continue
            samples.images.append(image.pixels)
            samples.contrasts.append(image.contrast)
            samples.texts.append(text)
            samples.names.append(name(index))
        on_progress(len(chunk))
        if time.monotonic() > deadline:
            break
    return samples, problems


def default_workers() -> int:
    """Worker processes for drawing: one for each CPU this process may use, none where there is only one."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cpus if cpus > 1 else 0


def write_folder(
    source: Source,
    folder: str | Path,
    count: int,
    *,
    first: int = 0,
    workers: int = 0,
    on_progress: Callable[[int], object] = lambda done: None,
) -> None:
    """Writes ``count`` samples of a source as PNG files, and ``labels.tsv`` once all of them are there.

    Args:
        source: gives the samples.
        folder: made if missing.
        count: how many samples.
        first: index of the first.
        workers: processes that draw; 0 draws in this one.
        on_progress: called with the number of samples written since the last call.

    Raises:
        LabelError: the folder has a labels file already, or a text holds a line break.
        RuntimeError: worker processes cannot start, or a sample crashes them.
    """
    folder = Path(folder)
    labels = folder / LABELS_FILE
    if labels.exists():
        raise LabelError(f"{folder} has a {LABELS_FILE} already")
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    indices = range(first, first + count)
    chunks = [indices[start : start + CHUNK] for start in range(0, count, CHUNK)]
    for chunk, texts in _map_chunks(partial(_write_one, source, folder), chunks, workers, _refuse_crash):
        lines += [f"{file_name(index)}\t{text}\n" for index, text in zip(chunk, texts, strict=True)]
        on_progress(len(chunk))
    temporary = labels.with_name(f".{LABELS_FILE}")
    temporary.write_text("".join(lines), encoding="utf-8")
    os.replace(temporary, labels)


def file_name(index: int) -> str:
    """The name under which sample ``index`` of a source is written."""
    return f"{index:06d}.png"


def _read_one(source: Source, preprocess: PreprocessConfig, index: int) -> _Collected:
    try:
        image, text = source(index)
        return prepare(image, preprocess), text
    except ModuleNotFoundError:  # not this sample's fault
        raise
    except (ImageError, LabelError) as error:
        return str(error), ""
    except Exception as error:  # sources are anyone's, and decoders raise almost anything
        return f"{type(error).__name__}: {error}", ""


def _write_one(source: Source, folder: Path, index: int) -> str:
    image, text = source(index)
    if "\n" in text or "\r" in text:
        raise LabelError(f"sample {index}: {LABELS_FILE} cannot hold the line break in {text!r}")
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    assert isinstance(image, Image.Image)
    image.save(folder / file_name(index))
    return text


def _refuse_crash(index: int) -> str:
    raise RuntimeError(f"sample {index}: the process that drew it crashed")


_R = TypeVar("_R")
_worker_function: Callable[[int], Any]


def _map_chunks(
    function: Callable[[int], _R], chunks: list[range], workers: int, on_crash: Callable[[int], _R]
) -> Iterator[tuple[range, list[_R]]]:
    """Chunks with the function of each of their indices, in order.

    ``on_crash`` gives the result of an index that crashed its worker process.
    """
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
    """The function of each index of each chunk, in order; workers are a few chunks ahead."""
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
    """The function of each index of a chunk that may hold one that crashes its process."""
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
    """Runs once in each worker: keeps the function, and makes the worker end when its parent is killed."""
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
