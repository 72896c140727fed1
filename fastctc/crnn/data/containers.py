"""Containers of encoded images, read from the first to the last: tar files, Parquet files and LMDBs.

``*.tar``, ``*.tar.gz``, ``*.tgz``, ``*.tar.bz2``, ``*.tar.xz``
    members as webdataset writes them: members next to each other, with equal names before the first dot, form one
    sample. Its text is a member ``.txt``, ``.gt.txt``, ``.text`` or ``.label``, or the value ``text`` or
    ``label`` of a member ``.json``. Members whose names begin with a dot are left out.
``*.parquet``
    a column ``image`` of bytes, or of structures with ``bytes`` and ``path`` as Hugging Face's datasets write them,
    and a column ``text`` or ``label``.
``*.mdb``
    an LMDB, see :class:`fastctc.crnn.data.readers.LmdbSource`.

An entry that cannot be read takes its place among the others, with the reason.
"""

from __future__ import annotations

import json
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from fastctc.crnn.data.images import ImageError, is_image_name
from fastctc.crnn.data.samples import LabelError
from fastctc.files import no_such_file

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
LMDB_FILE = "data.mdb"
_TEXTS = ("txt", "gt.txt", "text", "label")
_LABELS = ("text", "label")  # keys of a .json member, and columns of a Parquet file
_ROWS = 32  # of a Parquet file that are in memory
_DAMAGED = (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError)


class Entry(NamedTuple):
    """An image of a container, or of a folder.

    Attributes:
        name: of the image, with the path of its container.
        image: a path or encoded bytes; an error if it cannot be read; None if it was not asked for.
        text: its label; None if it has none, or if labels were not asked for.
    """

    name: str
    image: Path | bytes | ValueError | None
    text: str | None = None

    def __str__(self) -> str:
        return self.name


Wanted = Callable[[int], bool]
"""Returns whether the image of a number is asked for; the first has number 0."""


def is_container(name: str) -> bool:
    """Return True if a file name ends as the name of a container does."""
    return name.lower().endswith((*TAR_SUFFIXES, ".parquet", ".mdb"))


def container_entries(path: Path, wanted: Wanted, *, labels: bool = False) -> Iterator[Entry]:
    """Yield the images of a tar file or of a Parquet file, see :func:`tar_entries`."""
    read = parquet_entries if path.suffix.lower() == ".parquet" else tar_entries
    return read(path, wanted, labels=labels)


def tar_entries(path: Path, wanted: Wanted, *, labels: bool = False) -> Iterator[Entry]:
    """Yield the images of a tar file. Images that are not wanted are not read.

    Args:
        path: the file.
        wanted: which images are read.
        labels: read the texts too. An image without one gets an error.
    """
    number = 0
    sample = _Sample(("", ""))
    try:
        with tarfile.open(path) as archive:
            for member in _members(archive):
                folder, _, name = member.name.rpartition("/")
                stem, _, kind = name.partition(".")
                if (folder, stem) != sample.key:
                    yield from sample.entries()
                    sample = _Sample((folder, stem))
                if is_image_name(name):
                    image = _content(archive, member) if wanted(number) else None
                    number += 1
                    entry = Entry(f"{path}/{member.name}", image)
                    if labels:
                        sample.images.append(entry)
                    else:
                        yield entry
                elif labels and kind.lower() in (*_TEXTS, "json"):
                    sample.read(kind.lower(), _content(archive, member))
            yield from sample.entries()
            _check_end(archive)
    except FileNotFoundError:
        yield Entry(str(path), ImageError(no_such_file(path)))
    except _DAMAGED as error:
        yield from sample.entries()
        reason = str(error) or type(error).__name__
        yield Entry(str(path), ImageError(f"not a whole tar file: {reason}, after {number} images"))


class _Sample:
    """Members of one key: a folder, and a name up to its first dot."""

    def __init__(self, key: tuple[str, str]) -> None:
        self.key = key
        self.images: list[Entry] = []
        self.text: str | ValueError = LabelError(f"no text beside it: none of {', '.join(_TEXTS)}, json")

    def read(self, kind: str, content: bytes | ImageError) -> None:
        """Take the text from a member."""
        if isinstance(content, ImageError):
            self.text = content
        elif kind != "json":
            self.text = _decoded(content, kind)
        elif isinstance(self.text, LabelError):
            self.text = _text_in_json(content) or self.text

    def entries(self) -> Iterator[Entry]:
        """Yield the images with the text, or with the reason why there is none."""
        images, self.images = self.images, []
        for entry in images:
            if isinstance(self.text, str):
                yield entry._replace(text=self.text)
            else:
                yield entry if entry.image is None else entry._replace(image=self.text)


def _decoded(content: bytes, kind: str) -> str | LabelError:
    try:
        return content.decode("utf-8-sig").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        return LabelError(f"its .{kind} is not UTF-8: {error.reason} at byte {error.start}")


def _text_in_json(content: bytes) -> str | None:
    try:
        values = json.loads(content)
    except ValueError:
        return None
    found = [values.get(name) for name in _LABELS] if isinstance(values, dict) else []
    return next((each for each in found if isinstance(each, str)), None)


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the files of an archive; an archive itself would keep them all."""
    while (member := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined]
        if member.isfile() and not member.name.rpartition("/")[2].startswith("."):
            yield member


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | ImageError:
    try:
        file: IO[bytes] | None = archive.extractfile(member)
        assert file is not None
        return file.read()
    except _DAMAGED as error:
        return ImageError(f"not a readable image: {error}")


def _check_end(archive: tarfile.TarFile) -> None:
    """Raise ReadError if an archive ends neither with zeros nor with its file, which ``tarfile`` lets pass."""
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    if any(archive.fileobj.read(tarfile.BLOCKSIZE)):
        raise tarfile.ReadError("damaged header")


def parquet_entries(path: Path, wanted: Wanted, *, labels: bool = False) -> Iterator[Entry]:
    """Yield the images of a Parquet file; groups of rows in which none is wanted are not read.

    Args:
        path: the file.
        wanted: which images are read.
        labels: read the texts too.

    Raises:
        ModuleNotFoundError: the package ``pyarrow`` is missing.
    """
    parquet, number = parquet_package(path), 0
    try:
        # Without a buffer of its own, a column of a whole group of rows would be read at once.
        with parquet.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
            columns = _columns(file.schema_arrow.names, labels)
            for group in range(file.num_row_groups):
                rows = range(number, number + file.metadata.row_group(group).num_rows)
                missing: ImageError | None = None
                try:
                    for row in _rows(file, group, columns) if any(map(wanted, rows)) else ():
                        yield _row(path, number, row, columns, wanted)
                        number += 1
                except (OSError, ValueError) as error:  # as in a damaged page
                    missing = ImageError(f"damaged Parquet file: {_first_line(error)}")
                yield from (Entry(f"{path}/{rest}", missing) for rest in range(number, rows.stop))
                number = rows.stop
    except FileNotFoundError:
        yield Entry(str(path), ImageError(no_such_file(path)))
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these
        yield Entry(str(path), ImageError(f"not a readable Parquet file: {_first_line(error)}"))


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _columns(names: list[str], labels: bool) -> list[str]:
    text = next((name for name in _LABELS if name in names), None)
    if "image" not in names or (labels and text is None):
        expected = "image, and text or label" if labels else "image"
        raise ValueError(f"its columns are {', '.join(names)}, expected {expected}")
    return ["image", text] if labels and text else ["image"]


def _rows(file: Any, group: int, columns: list[str]) -> Iterator[dict[str, Any]]:
    for batch in file.iter_batches(batch_size=_ROWS, row_groups=[group], columns=columns):
        yield from batch.to_pylist()


def _row(path: Path, number: int, row: dict[str, Any], columns: list[str], wanted: Wanted) -> Entry:
    """Return the entry of a row."""
    name, image = f"{path}/{number}", row["image"]
    if not wanted(number):
        return Entry(name, None)
    if isinstance(image, dict):
        place = image.get("path")
        image = image.get("bytes") or (path.parent / place if place else None)
    if not isinstance(image, bytes | Path):
        found = "no value" if image is None else f"a {type(image).__name__}"
        return Entry(name, ImageError(f"column image has {found}, expected encoded bytes"))
    if len(columns) == 1:
        return Entry(name, image)
    text = row[columns[1]]
    if not isinstance(text, str):
        return Entry(name, LabelError(f"column {columns[1]} has {text!r}, expected a text"))
    return Entry(name, image, text)


def parquet_package(path: Path) -> Any:
    """Return the module that reads and writes Parquet files.

    Raises:
        ModuleNotFoundError: the package ``pyarrow`` is missing.
    """
    try:
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{path} needs the package pyarrow: pip install fastctc[parquet]"
        ) from error
    return pyarrow.parquet
