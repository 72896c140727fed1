"""Preprocessed samples kept in a file, so that a second run neither draws nor reads them.

A file is a header, an index and the pixels. The index is JSON: the key, the height and width of each image, the
other columns of the samples and the problems. The pixels follow image after image. They are mapped into memory,
where all processes of a machine share them.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import mmap
import os
import struct
import threading
import zlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fastctc.crnn.data.claim import FolderInUseError, claimed
from fastctc.crnn.data.samples import Problem, Samples
from fastctc.crnn.data.sources import hash_of_code
from fastctc.files import write_atomically

log = logging.getLogger(__name__)

MAGIC = b"fastctc samples1"
HEADER = struct.Struct("<16sQI")  # magic, bytes of the index, CRC-32 of the index
SUFFIX = ".samples"
Collected = tuple[Samples, list[Problem]]
_making = threading.Lock()


def cached(folder: str | Path, key: Mapping[str, Any], make: Callable[[], Collected]) -> Collected:
    """Return what ``make`` returns, from a file in ``folder`` if it was made before.

    ``make`` must depend on nothing but the key, and on how this package draws and preprocesses, which becomes
    part of the key. One process at a time writes into a folder; threads of a process wait for each other. A file
    that is damaged, or of another key, is made anew with a logged warning. If the file cannot be written, that is
    logged, and the samples stay in memory. Files may be deleted at any time.

    Args:
        folder: where the file is, named after a hash of ``key``; made if missing.
        key: everything the samples depend on; JSON.
        make: draws or reads them.

    Returns:
        The samples, their images read-only uint8 views (H, W) of one memory-mapped file, and the problems.

    Raises:
        FolderInUseError: there is no file yet, and another process writes into ``folder``.
        TypeError: ``key`` is not JSON.
    """
    described = json.dumps([dict(key), _made_by()], sort_keys=True)
    path = Path(folder) / (hashlib.sha256(described.encode()).hexdigest()[:32] + SUFFIX)
    try:
        return _open(path, described)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        log.warning("cache file %s cannot be used, making it anew: %s", path, error)
    with _making, ExitStack() as claims:
        try:
            claims.enter_context(claimed(folder))
        except FolderInUseError:
            raise
        except OSError as error:
            log.warning("cache file %s cannot be written: %s", path, error)
            return make()
        with suppress(OSError, ValueError):  # made in the meantime
            return _open(path, described)
        made = make()
        try:
            text = _index(described, *made)
            need = HEADER.size + len(text) + sum(image.nbytes for image in made[0].images)
            write_atomically(path, lambda temporary: _write(temporary, text, made[0]), need)
            return _open(path, described)
        except OSError as error:
            log.warning("cache file %s cannot be written: %s", path, error)
            return made


def _index(key: str, samples: Samples, problems: list[Problem]) -> bytes:
    index = {
        "key": key,
        "shapes": [image.shape for image in samples.images],
        "columns": {name: getattr(samples, name) for name in _columns()},
        "problems": [(problem.name, problem.reason) for problem in problems],
    }
    return json.dumps(index, default=lambda value: value.tolist()).encode()


def _write(path: Path, text: bytes, samples: Samples) -> None:
    with path.open("wb") as file:
        file.write(HEADER.pack(MAGIC, len(text), zlib.crc32(text)))
        file.write(text)
        for image in samples.images:
            file.write(np.ascontiguousarray(image).data)


def _open(path: Path, key: str) -> Collected:
    """Map a file; ValueError if it is not whole, or not of this key."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(HEADER.size)
        if len(head) < HEADER.size or not head.startswith(MAGIC):
            raise ValueError("not a file of samples")
        _, length, checksum = HEADER.unpack(head)
        text = file.read(min(length, size))
        if len(text) != length or zlib.crc32(text) != checksum:
            raise ValueError("its index is damaged")
        index = json.loads(text)
        if index["key"] != key or set(index["columns"]) != _columns():
            raise ValueError("it holds other samples")
        shapes = np.array(index["shapes"], dtype=np.int64).reshape(-1, 2)
        ends = HEADER.size + length + np.cumsum(shapes.prod(1))
        expected = int(ends[-1]) if len(ends) else HEADER.size + length
        if size != expected:
            raise ValueError(f"it has {size} bytes, expected {expected}")
        pixels = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    images = [
        pixels[end - height * width : end].reshape(height, width)
        for end, (height, width) in zip(ends.tolist(), shapes.tolist(), strict=True)
    ]
    return Samples(images, **index["columns"]), [Problem(*pair) for pair in index["problems"]]


@cache
def _made_by() -> dict[str, str]:
    """Return what samples depend on beside their source: this package's code, and Pillow's version."""
    return {"code": hash_of_code(Path(__file__).parent), "pillow": importlib.metadata.version("pillow")}


def _columns() -> set[str]:
    """Return what samples have beside their images."""
    return {column.name for column in fields(Samples)} - {"images"}
