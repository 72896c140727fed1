"""Training and evaluation samples: drawn or read once, kept preprocessed in memory, batched by a pure rule.

Which samples form the batch of a step, and how they are shifted, depends on nothing but the seed and the
step: no sampler state has to be saved, and a resumed run sees exactly what an uninterrupted one would have
seen.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from fastctc.crnn.preprocess import ImageError, ImageLike, PreprocessConfig, load_grey, pad_batch
from fastctc.text import Alphabet

CHUNK = 64
LABELS_FILE = "labels.tsv"


class Source(Protocol):
    """Anything that gives sample number ``index``; picklable, so that worker processes can draw from it."""

    def __call__(self, index: int, /) -> tuple[ImageLike, str]:
        """The image and its text."""


class LabelError(ValueError):
    """A labels file that cannot be read, or a data set in which no sample is usable."""


@dataclass(frozen=True)
class Problem:
    """A sample that was left out: its name and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass
class Samples:
    """Preprocessed images, (H, W) uint8 each, with their texts and the names they go by in reports."""

    images: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

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
        )


class FolderSource:
    """Image files named in ``labels.tsv`` (file name, tab, text; UTF-8) of a folder.

    Args:
        folder: the folder that holds ``labels.tsv``; its file names are relative to it.

    Raises:
        LabelError: no labels file, a line without a tab, not UTF-8, or no line at all.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.entries = read_labels(self.folder / LABELS_FILE)

    def __len__(self) -> int:
        return len(self.entries)

    def __call__(self, index: int) -> tuple[Path, str]:
        """The path of a sample's image and its text."""
        name, text = self.entries[index]
        return self.folder / name, text

    def name(self, index: int) -> str:
        """The file name of a sample, as it stands in the labels file."""
        return self.entries[index][0]


def read_labels(path: Path) -> list[tuple[str, str]]:
    """The (file name, text) pairs of a labels file, a pair a line; empty lines do not count."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise LabelError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise LabelError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from error
    pairs = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, tab, text = line.partition("\t")
        if not tab or not name:
            raise LabelError(f"{path}, line {number}: expected a file name, a tab and a text, got {line!r}")
        pairs.append((name, text))
    if not pairs:
        raise LabelError(f"{path} names no image")
    return pairs


# --- Collecting: from a source into memory, by worker processes ----------------------------------------

_Collected = tuple[npt.NDArray[np.uint8] | str, str]  # the image or why there is none, and the text


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

    Args:
        source: gives the samples; must be picklable if ``workers`` > 0.
        indices: which samples.
        preprocess: height and limits.
        workers: processes that draw; 0 draws in this one.
        seconds: stop after this time, keeping what was drawn so far; None: draw all.
        name: what to call a sample in reports.
        on_progress: called with the number of samples done since the last call.

    Returns:
        The samples, and the problems of those whose image could not be read.
    """
    samples, problems = Samples(), []
    deadline = time.monotonic() + (float("inf") if seconds is None else seconds)
    chunks = [indices[start : start + CHUNK] for start in range(0, len(indices), CHUNK)]
    for chunk, items in _map_chunks(partial(_read_one, source, preprocess), chunks, workers):
        for index, (image, text) in zip(chunk, items, strict=True):
            if isinstance(image, str):
                problems.append(Problem(name(index), image))
                continue
            samples.images.append(image)
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
        LabelError: the folder has a labels file already.
    """
    folder = Path(folder)
    labels = folder / LABELS_FILE
    if labels.exists():
        raise LabelError(f"{folder} has a {LABELS_FILE} already")
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    indices = range(first, first + count)
    chunks = [indices[start : start + CHUNK] for start in range(0, count, CHUNK)]
    for chunk, texts in _map_chunks(partial(_write_one, source, folder), chunks, workers):
        lines += [f"{file_name(index)}\t{text}\n" for index, text in zip(chunk, texts, strict=True)]
        on_progress(len(chunk))
    temporary = labels.with_name(f".{LABELS_FILE}")
    temporary.write_text("".join(lines), encoding="utf-8")
    os.replace(temporary, labels)


def file_name(index: int) -> str:
    """The name under which sample ``index`` of a source is written."""
    return f"{index:06d}.png"


def _read_one(source: Source, preprocess: PreprocessConfig, index: int) -> _Collected:
    image, text = source(index)
    try:
        return load_grey(image, preprocess), text
    except ImageError as error:
        return str(error), text


def _write_one(source: Source, folder: Path, index: int) -> str:
    image, text = source(index)
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    assert isinstance(image, Image.Image)
    image.save(folder / file_name(index))
    return text


_R = TypeVar("_R")
_worker_function: Callable[[int], Any]


def _map_chunks(
    function: Callable[[int], _R], chunks: list[range], workers: int
) -> Iterator[tuple[range, list[_R]]]:
    """Chunks with the function of each of their indices, in order; workers are a few chunks ahead."""
    if workers < 1 or len(chunks) < 2:
        for chunk in chunks:
            yield chunk, [function(index) for index in chunk]
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start_worker, (function,)) as pool:
        waiting: deque[tuple[range, Future[list[_R]]]] = deque()
        todo = iter(chunks)
        try:
            while True:
                for chunk in islice(todo, 4 * workers - len(waiting)):
                    waiting.append((chunk, pool.submit(_run_in_worker, chunk)))
                if not waiting:
                    return
                chunk, future = waiting.popleft()
                yield chunk, future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


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


# --- Pre-flight check ----------------------------------------------------------------------------------


def frames_needed(tokens: list[int]) -> int:
    """Frames without which CTC has no path: one a label, and a blank between equal neighbours."""
    return len(tokens) + sum(a == b for a, b in pairwise(tokens))


def check_samples(
    samples: Samples, alphabet: Alphabet, frames: Callable[[int], int]
) -> tuple[Samples, list[Problem]]:
    """Finds the samples a model cannot learn from, before training does.

    Args:
        samples: what to check.
        alphabet: characters the model knows.
        frames: frames the model makes of an image, by its width in pixels.

    Returns:
        The usable samples, and a problem for each other one.

    Raises:
        LabelError: no sample is usable.
    """
    usable, problems = [], []
    for i, (image, text, name) in enumerate(zip(samples.images, samples.texts, samples.names, strict=True)):
        try:
            tokens = alphabet.encode(text)
        except ValueError as error:
            problems.append(Problem(name, str(error)))
            continue
        available, needed = frames(image.shape[1]), frames_needed(tokens)
        if needed > available:
            reason = f"label {text!r} needs {needed} frames, an image {image.shape[1]} wide has {available}"
            problems.append(Problem(name, reason))
            continue
        usable.append(i)
    if not usable:
        first = f"; the first: {problems[0]}" if problems else ""
        raise LabelError(f"none of {len(samples)} samples can be used{first}")
    return (samples.subset(usable) if problems else samples), problems


def split_holdout(samples: Samples, seed: int, limit: int = 1000) -> tuple[Samples, Samples]:
    """Parts samples into training and evaluation.

    A twentieth is held out for evaluation, at most ``limit``, at least one, chosen by ``seed``.

    Raises:
        LabelError: fewer than two samples.
    """
    if len(samples) < 2:
        raise LabelError(f"{len(samples)} samples, expected at least 2: one to train on, one to evaluate on")
    held = min(limit, max(1, len(samples) // 20))
    order = np.random.default_rng([seed, 2]).permutation(len(samples)).tolist()
    return samples.subset(sorted(order[held:])), samples.subset(sorted(order[:held]))


# --- Batches -------------------------------------------------------------------------------------------


class Batch(NamedTuple):
    """What a step takes: images (N, 1, H, W) uint8, widths (N,), targets (sum S,), target lengths (N,)."""

    images: Tensor
    widths: Tensor
    targets: Tensor
    target_lengths: Tensor


class BatchMaker:
    """Gives the batch of any step, as a pure function of the seed and the step.

    Sample positions run through an endless chain of epochs, each a permutation of all samples drawn from the
    seed and the epoch's number; step k takes positions ``k * batch_size`` up to ``(k + 1) * batch_size``.

    Args:
        samples: all with texts in the alphabet.
        alphabet: for the targets.
        batch_size: images a step.
        seed: decides order and shifts.
        shift: an image moves by up to this many columns, and half as many rows, its edge repeated.
        stretch: it is stretched or squeezed about its middle by up to this share, in each direction.
    """

    def __init__(
        self,
        samples: Samples,
        alphabet: Alphabet,
        batch_size: int,
        *,
        seed: int = 0,
        shift: int = 2,
        stretch: float = 0.0,
    ) -> None:
        self.samples, self.batch_size, self.seed = samples, batch_size, seed
        self.shift, self.stretch = shift, stretch
        self._targets = [torch.tensor(alphabet.encode(text), dtype=torch.int64) for text in samples.texts]
        self._epoch = -1
        self._order: npt.NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def indices(self, step: int) -> list[int]:
        """Which samples form the batch of a step."""
        positions = range(step * self.batch_size, (step + 1) * self.batch_size)
        return [int(self._permutation(p // len(self.samples))[p % len(self.samples)]) for p in positions]

    def batch(self, step: int) -> Batch:
        """The batch of a step, its images shifted and stretched."""
        indices = self.indices(step)
        draws = np.random.default_rng([self.seed, 1, step]).uniform(-1, 1, (len(indices), 4)).tolist()
        images = [
            moved(
                self.samples.images[i],
                (self.shift * dx, self.shift / 2 * dy),
                (1 + self.stretch * sx, 1 + self.stretch * sy),
            )
            for i, (dx, dy, sx, sy) in zip(indices, draws, strict=True)
        ]
        pixels, widths = pad_batch(images)
        targets = [self._targets[i] for i in indices]
        return Batch(pixels, widths, torch.cat(targets), torch.tensor([len(target) for target in targets]))

    def _permutation(self, epoch: int) -> npt.NDArray[np.int64]:
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.samples))
        return self._order


def moved(
    image: npt.NDArray[np.uint8], shift: tuple[float, float], scale: tuple[float, float]
) -> npt.NDArray[np.uint8]:
    """An image shifted right and down, and magnified about its middle, by nearest pixels.

    Args:
        image: (H, W).
        shift: pixels to the right and down; what comes in repeats the edge.
        scale: magnification of width and height.

    Returns:
        (H, W) uint8.
    """
    for axis, by, times in ((0, shift[1], scale[1]), (1, shift[0], scale[0])):
        size = image.shape[axis]
        middle = (size - 1) / 2
        origin = np.rint((np.arange(size) - middle - by) / times + middle).astype(np.intp)
        image = image.take(np.clip(origin, 0, size - 1), axis=axis)
    return image
