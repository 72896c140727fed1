"""Labeled images on disk: where their pixels and their texts come from.

A data set is a folder with one of

``labels.tsv``
    a line a sample: file name, tab, text.
``labels.txt``
    a line a sample, as scene-text sets come: file name and text, parted by a tab; in a line without a tab, by
    a comma or by spaces. Such a line's text has no spaces around it, and behind a comma no double quotes.
``labels.json``
    ``{"a.png": "1+2"}`` or ``[{"image": "a.png", "text": "1+2"}]``; ``"file"`` and ``"filename"`` may stand
    for ``"image"``, ``"label"`` for ``"text"``.
``data.mdb``
    an LMDB of encoded images, keys ``num-samples``, ``image-%09d`` and ``label-%09d``, counted from 1.

Text files are UTF-8 with one file name a sample, relative to the folder or absolute.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastctc.crnn.data.files import no_such_file
from fastctc.crnn.data.samples import LabelError
from fastctc.crnn.data.sources import LabeledSource

LABELS_FILE = "labels.tsv"
DATA_FILES = (LABELS_FILE, "labels.txt", "labels.json", "data.mdb")
JSON_NAMES = ("image", "file", "filename")
JSON_TEXTS = ("text", "label")


def open_source(path: str | Path) -> LabeledSource:
    """The data set in a folder, by the labels file or LMDB that is there; or in such a file itself.

    Args:
        path: a folder with ``labels.tsv``, ``labels.txt``, ``labels.json`` or ``data.mdb``, or one file
            ending in ``.tsv``, ``.txt``, ``.json`` or ``.mdb``.

    Raises:
        LabelError: nothing of that is there, or several labels files are, or the one there cannot be read.
        ModuleNotFoundError: it is an LMDB, but the package ``lmdb`` is missing.
    """
    path = Path(path)
    if path.is_dir():
        found = [name for name in DATA_FILES if (path / name).exists()]
        if len(found) != 1:
            has = " and ".join(found) or "none of " + ", ".join(DATA_FILES)
            raise LabelError(f"{path} has {has}, expected one of them")
        path /= found[0]
    elif not path.exists():
        hint = no_such_file(path).removeprefix("no such file")
        raise LabelError(
            f"{path} does not exist{hint}, expected a folder with one of {', '.join(DATA_FILES)}"
        )
    return LmdbSource(path) if path.suffix == ".mdb" else FolderSource(path.parent, path.name)


class FolderSource:
    """Image files named in a labels file.

    Args:
        folder: what file names are relative to; holds the labels file.
        labels: the labels file's name; its ending says how it is read.

    Raises:
        LabelError: the labels file is missing, cannot be understood, or names no image.
    """

    def __init__(self, folder: str | Path, labels: str = LABELS_FILE) -> None:
        self.folder = Path(folder)
        self.entries = read_labels(self.folder / labels)

    def __len__(self) -> int:
        return len(self.entries)

    def __call__(self, index: int) -> tuple[Path, str]:
        """The path of a sample's image and its text."""
        name, text = self.entries[index]
        return self.folder / name, text

    def name(self, index: int) -> str:
        """The file name of a sample, as it stands in the labels file."""
        return self.entries[index][0]

    def key(self) -> dict[str, Any]:
        """See :class:`LabeledSource`."""
        content = hashlib.sha256()
        for name, text in self.entries:
            content.update(json.dumps([name, text, _stamp(self.folder / name)]).encode())
        return {"folder": str(self.folder.resolve()), "content": content.hexdigest()}


class LmdbSource:
    """Encoded images in an LMDB of the scene-text layout.

    The file is opened for each sample and closed again (80 µs), so a source may be pickled, and used on both
    sides of a fork: LMDB itself allows neither, nor opening a file twice in a process.

    Args:
        path: the ``.mdb`` file.

    Raises:
        LabelError: not a whole LMDB, or without a usable ``num-samples``.
        ModuleNotFoundError: the package ``lmdb`` is missing.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with _opened(self.path) as environment, environment.begin() as transaction:
            pages, page_size = environment.info()["last_pgno"] + 1, environment.stat()["psize"]
            size = self.path.stat().st_size
            if size < pages * page_size:  # reading beyond the end would kill the process
                raise LabelError(f"{path} is truncated: {size} bytes, expected {pages * page_size}")
            count, keys = transaction.get(b"num-samples"), environment.stat()["entries"]
        if count is None:
            raise LabelError(f"{path} has no key num-samples")
        if not re.fullmatch(rb"\s*\d{1,9}\s*", count):
            raise LabelError(f"{path}: num-samples is {bytes(count)[:40]!r}, expected a whole number")
        self._count = int(count)
        if not 0 < self._count < keys:
            raise LabelError(f"{path}: num-samples is {self._count}, but there are {keys} keys")

    def __len__(self) -> int:
        return self._count

    def __call__(self, index: int) -> tuple[bytes, str]:
        """A sample's encoded image and its text; LabelError if one of them is missing or not UTF-8."""
        if not 0 <= index < self._count:
            raise IndexError(f"sample {index} of {self._count}")
        with _opened(self.path) as environment, environment.begin() as transaction:
            image, label = (
                transaction.get(f"{what}-{index + 1:09d}".encode()) for what in ("image", "label")
            )
        if image is None or label is None:
            missing = "image" if image is None else "label"
            raise LabelError(f"no key {missing}-{index + 1:09d}")
        try:
            return image, label.decode()
        except UnicodeDecodeError as error:
            reason = f"{error.reason} at byte {error.start}"
            raise LabelError(f"label-{index + 1:09d} is not UTF-8: {reason}") from error

    def name(self, index: int) -> str:
        """The key of a sample's image."""
        return f"image-{index + 1:09d}"

    def key(self) -> dict[str, Any]:
        """See :class:`LabeledSource`."""
        return {"lmdb": str(self.path.resolve()), "content": _stamp(self.path)}


def read_labels(path: Path) -> list[tuple[str, str]]:
    """The (file name, text) pairs of a labels file, by its ending; empty lines do not count."""
    parse = _PARSERS.get(path.suffix)
    if parse is None:
        raise LabelError(f"{path} ends in {path.suffix!r}, expected {', '.join(_PARSERS)} or .mdb")
    try:
        content = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise LabelError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise LabelError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from error
    pairs = list(parse(path, content))
    if not pairs:
        raise LabelError(f"{path} names no image")
    return pairs


def _lines(
    path: Path, content: str, split: Callable[[str], tuple[str, str] | None]
) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(content.split("\n"), start=1):
        if line.strip():
            pair = split(line)
            if pair is None or not pair[0]:
                expected = "a tab" if path.suffix == ".tsv" else "a tab, a comma or a space"
                raise LabelError(
                    f"{path}, line {number}: expected a file name, {expected} and a text, got {line!r}"
                )
            yield pair


def _split_at_tab(line: str) -> tuple[str, str] | None:
    name, tab, text = line.partition("\t")
    return (name, text) if tab else None


def _split_anywhere(line: str) -> tuple[str, str] | None:
    """A line of ``labels.txt``, as the module says."""
    if "\t" in line:
        return _split_at_tab(line)
    match = re.fullmatch(r" *([^ ,]+)(?: *(,) *| +)(.*?) *", line)
    if match is None:
        return None
    name, comma, text = match.groups()
    if comma and len(text) > 1 and text[0] == text[-1] == '"':
        text = re.sub(r'\\(["\\])', r"\1", text[1:-1])  # as ICDAR's sets have it
    return name, text


def _json_entries(path: Path, content: str) -> Iterator[tuple[str, str]]:
    try:
        found = json.loads(
            content, object_pairs_hook=tuple
        )  # an object is a tuple of pairs, names may repeat
    except (ValueError, RecursionError) as error:
        raise LabelError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, (tuple, list)):
        raise LabelError(f"{path}: expected an object or a list, got {json.dumps(found)[:80]}")
    for number, entry in enumerate(found, start=1):
        pair = entry if isinstance(found, tuple) else _named_pair(entry)
        if (
            pair is None
            or not all(isinstance(each, str) and _is_unicode(each) for each in pair)
            or not pair[0]
        ):
            expected = f"a file name ({', '.join(JSON_NAMES)}) and a text ({', '.join(JSON_TEXTS)})"
            raise LabelError(f"{path}, entry {number}: expected {expected}, got {str(entry)[:80]}")
        yield pair


def _named_pair(entry: Any) -> tuple[Any, Any] | None:
    """The file name and the text of a JSON object, if it has exactly one of each."""
    if not isinstance(entry, tuple):
        return None
    names = [value for key, value in entry if key in JSON_NAMES]
    texts = [value for key, value in entry if key in JSON_TEXTS]
    return (names[0], texts[0]) if len(names) == len(texts) == 1 else None


def _is_unicode(text: str) -> bool:
    """False for half a surrogate pair, which JSON can spell."""
    return not re.search("[\ud800-\udfff]", text)


_PARSERS: dict[str, Callable[[Path, str], Iterator[tuple[str, str]]]] = {
    ".tsv": lambda path, content: _lines(path, content, _split_at_tab),
    ".txt": lambda path, content: _lines(path, content, _split_anywhere),
    ".json": _json_entries,
}


def _stamp(path: Path) -> tuple[int, int] | None:
    """Size and time of the last change of a file; None where there is none."""
    try:
        status = path.stat()
    except (OSError, ValueError):  # ValueError: a name no file can have
        return None
    return status.st_size, status.st_mtime_ns


_lmdb_lock = threading.Lock()


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """An LMDB file open for reading, in one thread at a time."""
    try:
        import lmdb
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{path} needs the package lmdb: pip install fastctc[lmdb]") from error
    with _lmdb_lock:
        try:
            with lmdb.open(
                str(path), subdir=False, readonly=True, lock=False, readahead=False
            ) as environment:
                yield environment
        except lmdb.Error as error:
            raise LabelError(f"cannot read {path} as LMDB: {error}") from error
