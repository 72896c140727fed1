"""Samples are drawn or read once, by worker processes, and kept preprocessed."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from fastctc.crnn.data.claim import claimed
from fastctc.crnn.data.images import ImageError
from fastctc.crnn.data.preprocess import Prepared, PreprocessConfig, prepare
from fastctc.crnn.data.readers import LABELS_FILE
from fastctc.crnn.data.samples import LabelError, Problem, Samples
from fastctc.crnn.data.sources import NamedSource, Source
from fastctc.crnn.data.workers import map_in_chunks
from fastctc.files import explain_full_disk, write_atomically

CRASHED = "the process that read it crashed"
_Collected = tuple[Prepared | str, str]  # the image or why there is none, and the text


def collect(
    source: Source,
    indices: range,
    preprocess: PreprocessConfig,
    *,
    workers: int | None = 0,
    seconds: float | None = None,
    name: Callable[[int], str] = "sample {}".format,
    place: Callable[[int], str] | None = None,
    on_progress: Callable[[int], object] = lambda done: None,
) -> tuple[Samples, list[Problem]]:
    """Draw or read samples and preprocess them, in the order of their indices.

    A sample that cannot be read, or that crashes its worker process, becomes a problem. The others are read.

    Args:
        source: gives the samples; must be picklable if ``workers`` > 0.
        indices: which samples.
        preprocess: height and limits.
        workers: processes that draw; 0 draws in this one; None: one for each CPU if they are worth it.
        seconds: stop after this time, keeping what was drawn so far; None: draw all.
        name: returns what a sample is called in reports.
        place: returns where a sample's label is, for the problems; None: its name is enough.
        on_progress: called with the number of samples done since the last call.

    Returns:
        The samples, and the problems of those that could not be read.

    Raises:
        ModuleNotFoundError: a package that the source needs is missing.
        RuntimeError: worker processes cannot start.
    """
    samples, problems = Samples(), []
    deadline = time.monotonic() + (float("inf") if seconds is None else seconds)
    read = partial(_read_one, source, preprocess)
    for chunk, items in map_in_chunks(read, indices, workers, lambda index: (CRASHED, "")):
        for index, (image, text) in zip(chunk, items, strict=True):
            if isinstance(image, str):
                where = "" if place is None else f" ({place(index)})"
                problems.append(Problem(name(index), image + where))
                continue
            samples.images.append(image.pixels)
            samples.contrasts.append(image.contrast)
            samples.texts.append(text)
            samples.names.append(name(index))
            samples.numbers.append(index)
        on_progress(len(chunk))
        if time.monotonic() > deadline:
            break
    return samples, problems


def collect_all(
    source: NamedSource,
    preprocess: PreprocessConfig,
    *,
    workers: int | None = None,
    on_progress: Callable[[int], object] = lambda done: None,
) -> tuple[Samples, list[Problem]]:
    """Read all samples of a data set: :func:`collect`, with the data set's own names."""
    return collect(
        source, range(len(source)), preprocess, workers=workers, name=source.name,
        place=getattr(source, "place", None), on_progress=on_progress,
    )  # fmt: skip


def write_folder(
    source: Source,
    folder: str | Path,
    count: int,
    *,
    first: int = 0,
    workers: int | None = 0,
    on_progress: Callable[[int], object] = lambda done: None,
) -> None:
    """Write ``count`` samples of a source as PNG files, and ``labels.tsv`` once all of them are there.

    Args:
        source: gives the samples.
        folder: made if missing.
        count: how many samples.
        first: index of the first.
        workers: processes that draw; 0 draws in this one; None: one for each CPU if they are worth it.
        on_progress: called with the number of samples written since the last call.

    Raises:
        FolderInUseError: another process writes into the folder.
        LabelError: the folder has a labels file already, or a text holds a line break or a tab.
        DiskFullError: there is no room for the images.
        RuntimeError: worker processes cannot start, or a sample crashes them.
    """
    folder = Path(folder)
    labels = folder / LABELS_FILE
    with claimed(folder):
        if labels.exists():
            raise LabelError(f"{folder} has a {LABELS_FILE} already")
        lines: list[str] = []
        write, indices = partial(_write_one, source, folder), range(first, first + count)
        for chunk, texts in map_in_chunks(write, indices, workers, _refuse_crash):
            lines += [f"{file_name(index)}\t{text}\n" for index, text in zip(chunk, texts, strict=True)]
            on_progress(len(chunk))
        write_atomically(labels, "".join(lines).encode())


def file_name(index: int) -> str:
    """Return the name under which sample ``index`` of a source is written."""
    return f"{index:06d}.png"


def _read_one(source: Source, preprocess: PreprocessConfig, index: int) -> _Collected:
    try:
        image, text = source(index)
        return prepare(image, preprocess), text
    except ModuleNotFoundError:  # no fault of this sample
        raise
    except (ImageError, LabelError) as error:
        return str(error), ""
    except Exception as error:  # sources of users and decoders raise almost anything
        return f"{type(error).__name__}: {error}", ""


def _write_one(source: Source, folder: Path, index: int) -> str:
    image, text = source(index)
    if any(character in text for character in "\n\r\t"):
        raise LabelError(f"sample {index}: {LABELS_FILE} cannot hold the line break or the tab in {text!r}")
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    assert isinstance(image, Image.Image)
    content = io.BytesIO()
    image.save(content, "PNG")
    path = folder / file_name(index)
    with explain_full_disk(path, len(content.getvalue())):
        path.write_bytes(content.getvalue())
    return text


def _refuse_crash(index: int) -> str:
    raise RuntimeError(f"sample {index}: the process that drew it crashed")
