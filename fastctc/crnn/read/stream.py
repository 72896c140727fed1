"""Readings of any number of images, which worker processes decode ahead of the model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from fastctc.crnn.data import CRASHED, Entry, Inputs, Prepared, PreprocessConfig, default_workers, map_chunks
from fastctc.crnn.data import WORTH as WORTH_WORKERS
from fastctc.crnn.read.decoding import Decoder
from fastctc.crnn.read.recognize import Reading, Recognizer, prepared

_CHUNK = 16  # images that a worker decodes at once, fewer if they are large
_CHUNK_BYTES = 4 << 20


def read_entries(
    recognizer: Recognizer,
    entries: Iterable[Entry],
    decoder: Decoder,
    *,
    batch_size: int = 64,
    batches: int = 1,
    workers: int = 0,
) -> Iterator[tuple[str, Reading]]:
    """Yield the name and the reading of each image, in order.

    A few chunks of images and ``batches`` batches are in memory, however many images there are.

    Args:
        recognizer: reads.
        entries: the images.
        decoder: from the model's output to texts.
        batch_size: images that go through the model together.
        batches: batches that are formed together, of images of similar widths, so that less of them is padding.
        workers: processes that decode and prepare images; 0: this one does.

    Raises:
        RuntimeError: worker processes cannot start.
    """
    prepare = partial(_prepare, recognizer.preprocess)
    chunks = map_chunks(prepare, _chunks(entries), workers, lambda entry: CRASHED)
    images = (
        (entry if recognizer.second_look else entry._replace(image=None), image)
        for chunk, made in chunks
        for entry, image in zip(chunk, made, strict=True)
    )
    for window in iter(lambda: list(islice(images, batch_size * batches)), []):
        readings = _read_window(recognizer, window, decoder, batch_size)
        yield from zip((entry.name for entry, _ in window), readings, strict=True)


def workers_for(inputs: Inputs) -> int:
    """Return the number of worker processes that save time: one for each CPU of this process, or 0."""
    few = sum(1 for _ in islice(inputs.entries(lambda number: False), WORTH_WORKERS)) < WORTH_WORKERS
    return 0 if few else default_workers() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _chunks(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Yield images in groups that are small in number and in bytes."""
    chunk: list[Entry] = []
    size = 0
    for entry in entries:
        chunk.append(entry)
        size += len(entry.image) if isinstance(entry.image, bytes) else 0
        if len(chunk) == _CHUNK or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _prepare(preprocess: PreprocessConfig, entry: Entry) -> Prepared | str:
    return str(entry.image) if isinstance(entry.image, ValueError) else prepared(_image(entry), preprocess)


def _image(entry: Entry) -> Path | bytes:
    assert isinstance(entry.image, Path | bytes)
    return entry.image


def _read_window(
    recognizer: Recognizer, window: list[tuple[Entry, Prepared | str]], decoder: Decoder, batch_size: int
) -> list[Reading]:
    """Return the readings of images, whose batches have similar widths if there are several."""
    order = list(range(len(window)))
    if len(order) > batch_size:
        widths = [0 if isinstance(image, str) else image.pixels.shape[1] for _, image in window]
        order.sort(key=widths.__getitem__)
    read: dict[int, Reading] = {}
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        read |= zip(batch, _read_batch(recognizer, [window[n] for n in batch], decoder), strict=True)
    return [read[n] for n in range(len(window))]


def _read_batch(
    recognizer: Recognizer, batch: list[tuple[Entry, Prepared | str]], decoder: Decoder
) -> list[Reading]:
    images = [image for _, image in batch]
    return recognizer.read_prepared(images, lambda n: _image(batch[n][0]), decoder)
