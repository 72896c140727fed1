"""Images to read: files, folders, containers and patterns of their names, as one sequence."""

from __future__ import annotations

import glob
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fastctc.crnn.data.containers import (
    LMDB_FILE,
    Entry,
    Wanted,
    container_entries,
    is_container,
    parquet_package,
)
from fastctc.crnn.data.images import ImageError, files_in, is_image_name
from fastctc.crnn.data.readers import LmdbSource, lmdb_package
from fastctc.crnn.data.samples import LabelError
from fastctc.files import no_such_file, stamp


class Inputs:
    """Images in the order in which they are read. Nothing is listed before it is read.

    A folder has its images and the images in folders below it. A folder without images has its tar files, Parquet
    files and LMDBs instead.

    Args:
        names: files, folders, and containers, see :mod:`fastctc.crnn.data.containers`. A name that is not there is
            a pattern: ``{000..099}``, ``{a,b}``, ``*``, ``?`` and ``[0-9]`` as in a shell.

    Raises:
        ModuleNotFoundError: a package that one of the containers needs is missing.
    """

    def __init__(self, names: Iterable[str | Path]) -> None:
        self.paths = [path for name in names for path in expanded(str(name))]
        for path in self.paths:
            _need_package(path)

    def entries(self, wanted: Wanted = lambda number: True) -> Iterator[Entry]:
        """Yield all images, or what stands in the place of one, with the same numbers in every pass.

        Args:
            wanted: which are read; the others have names alone.
        """
        number = 0
        for path in self.paths:
            for entry in _entries(path, lambda n, first=number: wanted(first + n)):  # type: ignore[misc]
                yield entry
                number += 1

    def count(self) -> int | None:
        """Return the number of images, or None if it takes a pass through a tar file to count them."""
        total = 0
        for path in self.paths:
            if path.is_dir() or is_container(path.name):
                return None
            total += 1
        return total

    def fingerprint(self) -> list[Any]:
        """Return JSON that changes with the names of the images, and with the files that were named."""
        return [
            [str(path.absolute()), _listing(path) if path.is_dir() else stamp(path)] for path in self.paths
        ]


def expanded(name: str) -> list[Path]:
    """Return the paths that a pattern stands for; the name itself if there are none.

    >>> [str(path) for path in expanded("a-{08..10}.tar")]
    ['a-08.tar', 'a-09.tar', 'a-10.tar']
    """
    if Path(name).exists():
        return [Path(name)]
    found: list[Path] = []
    for each in _braces(name):
        matches = [] if Path(each).exists() else sorted(glob.glob(each))
        found += map(Path, matches or [each])
    return found


_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")


def _braces(name: str) -> list[str]:
    found = _BRACES.search(name)
    if found is None:
        return [name]
    first, last, listed = found.groups()
    parts = listed.split(",") if listed else [
        f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)
    ]  # fmt: skip
    return [each for part in parts for each in _braces(name[: found.start()] + part + name[found.end() :])]


def _need_package(path: Path) -> None:
    """Raise ModuleNotFoundError if the package that reads a container is missing."""
    if path.suffix.lower() == ".parquet":
        parquet_package(path)
    elif path.suffix.lower() == ".mdb":
        lmdb_package(path)


def _entries(path: Path, wanted: Wanted) -> Iterator[Entry]:
    """Yield the images of a file, a folder or a container."""
    if path.is_dir():
        yield from _in_folder(path, wanted)
    elif path.suffix.lower() == ".mdb":
        yield from _in_lmdb(path, wanted)
    elif is_container(path.name):
        yield from container_entries(path, wanted)
    else:
        yield Entry(str(path), path if wanted(0) else None)


def _in_folder(folder: Path, wanted: Wanted) -> Iterator[Entry]:
    number = 0
    for path in _listed(folder):
        if is_container(path.name):
            for entry in _entries(path, lambda n, first=number: wanted(first + n)):  # type: ignore[misc]
                yield entry
                number += 1
        else:
            yield Entry(str(path), path if wanted(number) else None)
            number += 1
    if number == 0:
        yield Entry(str(folder), ImageError("no image in this folder"))


def _listed(folder: Path) -> Iterator[Path]:
    """Yield the images in a folder and below it, or if there are none, the containers."""
    path = None
    for path in files_in(folder, is_image_name, recursive=True):
        yield path
    if path is None:
        for path in files_in(folder, is_container, recursive=True):
            if path.suffix != ".mdb" or path.name == LMDB_FILE:  # beside it is a file of locks
                yield path


def _listing(folder: Path) -> list[Any]:
    """Return the number of files in a folder, and a checksum of their names and of the containers' changes."""
    count = checksum = 0
    for path in _listed(folder):
        what = f"{path}\n{stamp(path) if is_container(path.name) else ''}\n"
        count, checksum = count + 1, zlib.crc32(what.encode(errors="surrogateescape"), checksum)
    return [count, checksum]


def _in_lmdb(path: Path, wanted: Wanted) -> Iterator[Entry]:
    try:
        source = LmdbSource(path)
    except LabelError as error:
        reason = no_such_file(path) if not path.exists() else str(error)
        yield Entry(str(path), ImageError(reason))
        return
    for number in range(len(source)):
        image: bytes | ValueError | None = None
        if wanted(number):
            try:
                image = source.image(number)
            except LabelError as error:
                image = error
        yield Entry(f"{path}/{source.name(number)}", image)
