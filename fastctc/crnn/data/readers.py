"""Labeled images on disk: where their pixels and their texts come from.

A data set is a folder with one of

``labels.tsv``, ``labels.csv``, ``labels.txt``, ``labels.json``, ``labels.jsonl``
    a labels file, see :mod:`fastctc.crnn.data.labels`.
``a.gt.txt`` beside ``a.png``
    a file of one line for each image.
PAGE-XML or ALTO files, directly in the folder or in its subfolder ``page``
    pages whose lines are cut out, see :mod:`fastctc.crnn.data.page_xml`.
``data.mdb``
    an LMDB of encoded images, keys ``num-samples``, ``image-%09d`` and ``label-%09d``, counted from 1.
tar files and Parquet files
    shards of images with their texts, see :mod:`fastctc.crnn.data.containers`.
images whose file names hold their texts
    with :attr:`LabelConfig.label_pattern`.

Texts are UTF-8, and brought to the Unicode form NFC, see :class:`LabelConfig`.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fastctc.crnn.data.container_source import ContainerSource
from fastctc.crnn.data.containers import LMDB_FILE, is_container
from fastctc.crnn.data.images import files_in, images_in
from fastctc.crnn.data.labels import PARSERS, decoded, read_labels
from fastctc.crnn.data.page_xml import PageSource, page_files
from fastctc.crnn.data.samples import LabelError
from fastctc.crnn.data.settings import check_settings, setting
from fastctc.crnn.data.sources import LabeledSource
from fastctc.files import no_such_file, stamp

LABELS_FILE = "labels.tsv"
DATA_FILES = (LABELS_FILE, *(f"labels{suffix}" for suffix in PARSERS if suffix != ".tsv"), LMDB_FILE)
TEXT_SUFFIX = ".gt.txt"


def _pattern_hint(folder: Path) -> str:
    hint, images = ", or a label_pattern for file names that hold the texts", images_in(folder)
    if not images:
        return hint
    return f"{hint}: '([^_]+)' reads {images[0].name} as {images[0].stem.partition('_')[0]}"


def _is_pattern(pattern: str) -> bool:
    try:
        found = re.compile(pattern)
    except re.error:
        return False
    return found.groups == 1 or "label" in found.groupindex


@dataclass(frozen=True)
class LabelConfig:
    """How the texts of images are read.

    Attributes:
        label_pattern: regular expression that finds the text in a file name without its ending, by its group, or by
            its group named ``label``: ``([^_]+)_`` reads ``2a3f_1.png`` as 2a3f. None: texts are in a file.
        unicode_form: Unicode normal form of all texts, in which equal characters have equal code points.
        direction: order of the characters for the network. rtl and ltr: the order that a line of that direction
            shows, from left to right; auto: rtl or ltr where labels have right-to-left characters, by the more
            frequent ones; stored: as the labels have it.
    """

    label_pattern: str | None = setting(
        None, _is_pattern, "a regular expression with one group", metavar="REGEX"
    )
    unicode_form: Literal["NFC", "NFD", "NFKC", "NFKD", "none"] = setting("NFC")
    direction: Literal["auto", "rtl", "ltr", "stored"] = setting("auto")

    def __post_init__(self) -> None:
        check_settings(self)

    def normalized(self, text: str) -> str:
        """Return a text in the Unicode form."""
        return text if self.unicode_form == "none" else unicodedata.normalize(self.unicode_form, text)


def open_source(path: str | Path, labels: LabelConfig | None = None) -> LabeledSource:
    """Return the data set in a folder, by the labels file or LMDB that is there; or in such a file itself.

    Args:
        path: a folder, see :mod:`fastctc.crnn.data.readers`, or one labels file, ``.mdb``, ``.xml``, ``.tar`` or
            ``.parquet`` file.
        labels: how texts are read; None: the defaults of :class:`LabelConfig`.

    Raises:
        LabelError: nothing of that is there, or several labels files are, or the one there cannot be read. The
            message names the line.
        ModuleNotFoundError: it is an LMDB or a Parquet file, but the package ``lmdb`` or ``pyarrow`` is missing.
    """
    path, config = Path(path), labels or LabelConfig()
    if config.label_pattern is not None and path.is_dir():
        return NamesSource(path, config)
    if path.is_dir():
        found = [name for name in DATA_FILES if (path / name).exists()]
        if not found and any(path.glob(f"*{TEXT_SUFFIX}")):
            return BesideSource(path, config)
        if not found and (pages := page_files(path)):
            return PageSource(pages, config.normalized)
        if not found and (shards := list(files_in(path, is_container))):
            return ContainerSource(shards, config.normalized)
        if len(found) != 1:
            has = " and ".join(found) or f"none of {', '.join(DATA_FILES)}, and no *{TEXT_SUFFIX} or *.xml"
            raise LabelError(f"{path} has {has}, expected one of them{'' if found else _pattern_hint(path)}")
        path /= found[0]
    elif not path.exists():
        hint = no_such_file(path).removeprefix("no such file")
        raise LabelError(
            f"{path} does not exist{hint}, expected a folder with one of {', '.join(DATA_FILES)}"
        )
    if path.suffix == ".xml":
        return PageSource([path], config.normalized)
    if path.suffix == ".mdb":
        return LmdbSource(path, config)
    if is_container(path.name):
        return ContainerSource([path], config.normalized)
    return FolderSource(path.parent, path.name, config)


class FolderSource:
    """Image files named in a labels file.

    Args:
        folder: what file names are relative to; holds the labels file.
        labels: the labels file's name; its ending decides how it is read.
        config: how texts are read; None: the defaults.

    Raises:
        LabelError: the labels file is missing, cannot be understood, or names no image.
    """

    def __init__(
        self, folder: str | Path, labels: str = LABELS_FILE, config: LabelConfig | None = None
    ) -> None:
        self.folder, self.config = Path(folder), config or LabelConfig()
        self._labels_file = labels
        self._labels = read_labels(self.folder / labels)

    @property
    def entries(self) -> list[tuple[str, str]]:
        """Return the file names and the texts."""
        return [(label.name, self.config.normalized(label.text)) for label in self._labels]

    def __len__(self) -> int:
        return len(self._labels)

    def __call__(self, index: int) -> tuple[Path, str]:
        """Return the path of a sample's image and its text."""
        return self.folder / self._labels[index].name, self.config.normalized(self._labels[index].text)

    def name(self, index: int) -> str:
        """Return the file name of a sample, as it stands in the labels file."""
        return self._labels[index].name

    def place(self, index: int) -> str:
        """Return the labels file and the line of a sample."""
        what = "entry" if self._labels_file.endswith(".json") else "line"
        return f"{self._labels_file}, {what} {self._labels[index].number}"

    def stored_text(self, index: int) -> str:
        """Return the text of a sample as the file has it."""
        return self._labels[index].text

    def key(self) -> dict[str, Any]:
        """Return JSON that changes with the labels and the images."""
        content = hashlib.sha256()
        for name, text in self.entries:
            content.update(json.dumps([name, text, stamp(self.folder / name)]).encode())
        return {"folder": str(self.folder.resolve()), "content": content.hexdigest()}


class _ImagesSource:
    """Images of a folder, whose texts are found by their file names.

    Args:
        folder: of the images.
        config: how texts are read.

    Raises:
        LabelError: the folder has no image.
    """

    def __init__(self, folder: str | Path, config: LabelConfig | None = None) -> None:
        self.folder, self.config = Path(folder), config or LabelConfig()
        self.paths = self._paths()
        if not self.paths:
            raise LabelError(f"{self.folder} has no image")

    def _paths(self) -> list[Path]:
        return images_in(self.folder)

    def __len__(self) -> int:
        return len(self.paths)

    def __call__(self, index: int) -> tuple[Path, str]:
        """Return the path of a sample's image and its text; LabelError if it has none."""
        return self.paths[index], self.config.normalized(self.stored_text(index))

    def name(self, index: int) -> str:
        """Return the file name of a sample."""
        return self.paths[index].name

    def stored_text(self, index: int) -> str:
        """Return the text of a sample before it is normalized; LabelError if it has none."""
        raise NotImplementedError

    def key(self) -> dict[str, Any]:
        """Return JSON that changes with the labels and the images."""
        content = hashlib.sha256()
        for index, path in enumerate(self.paths):
            try:
                text: str | None = self(index)[1]
            except LabelError:
                text = None
            content.update(json.dumps([path.name, text, stamp(path)]).encode())
        return {"folder": str(self.folder.resolve()), "content": content.hexdigest()}


class NamesSource(_ImagesSource):
    """Images whose file names hold their texts, found by :attr:`LabelConfig.label_pattern`."""

    def stored_text(self, index: int) -> str:
        """Return the text in the file name of a sample; LabelError if the pattern does not find it."""
        pattern, stem = re.compile(self.config.label_pattern or ""), self.paths[index].stem
        match = pattern.search(stem)
        text = None if match is None else match["label" if "label" in pattern.groupindex else 1]
        if text is None:
            raise LabelError(f"label_pattern {pattern.pattern!r} does not find a text in {stem!r}")
        return text


class BesideSource(_ImagesSource):
    """Images beside files of one line: ``a.png`` and ``a.gt.txt``."""

    def _paths(self) -> list[Path]:
        """Return the images, and the text files that have no image."""
        images = images_in(self.folder)
        with_text = {_text_file(image) for image in images}
        alone = [path for path in self.folder.glob(f"*{TEXT_SUFFIX}") if path not in with_text]
        return sorted([*images, *alone])

    def stored_text(self, index: int) -> str:
        """Return the text beside an image; LabelError if there is none, or more than one line."""
        path = self.paths[index]
        if path.name.endswith(TEXT_SUFFIX):
            raise LabelError(f"no image beside {path.name}")
        beside = _text_file(path)
        try:
            text = decoded(beside, beside.read_bytes()).removesuffix("\n")
        except OSError as error:
            raise LabelError(f"no {beside.name} beside it") from error
        if "\n" in text:
            raise LabelError(f"{beside.name}, line 2: expected one line")
        return text


def _text_file(image: Path) -> Path:
    """Return the path of the text beside an image: ``a.gt.txt`` of ``a.png``, and of ``a.bin.png``."""
    beside = image.with_name(image.stem + TEXT_SUFFIX)
    short = image.with_name(image.name.partition(".")[0] + TEXT_SUFFIX)
    return short if not beside.exists() and short.exists() else beside


class LmdbSource:
    """Encoded images in an LMDB of the scene-text layout.

    The file is opened for each sample and closed again, in 80 µs. So a source may be pickled, and used on both
    sides of a fork. LMDB itself allows neither, nor opening a file twice in a process.

    Args:
        path: the ``.mdb`` file.
        config: how texts are read; None: the defaults.

    Raises:
        LabelError: not a whole LMDB, or without a usable ``num-samples``.
        ModuleNotFoundError: the package ``lmdb`` is missing.
    """

    def __init__(self, path: str | Path, config: LabelConfig | None = None) -> None:
        self.path, self.config = Path(path), config or LabelConfig()
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
        """Return a sample's encoded image and its text; LabelError if one of them is missing or not UTF-8."""
        return self.image(index), self.config.normalized(self.stored_text(index))

    def image(self, index: int) -> bytes:
        """Return a sample's encoded image; LabelError if it is missing."""
        return self._value("image", index)

    def stored_text(self, index: int) -> str:
        """Return the text of a sample as the file has it; LabelError if it is missing or not UTF-8."""
        try:
            return self._value("label", index).decode()
        except UnicodeDecodeError as error:
            reason = f"{error.reason} at byte {error.start}"
            raise LabelError(f"label-{index + 1:09d} is not UTF-8: {reason}") from error

    def _value(self, what: str, index: int) -> bytes:
        if not 0 <= index < self._count:
            raise IndexError(f"sample {index} of {self._count}")
        with _opened(self.path) as environment, environment.begin() as transaction:
            value: bytes | None = transaction.get(f"{what}-{index + 1:09d}".encode())
        if value is None:
            raise LabelError(f"no key {what}-{index + 1:09d}")
        return value

    def name(self, index: int) -> str:
        """Return the key of a sample's image."""
        return f"image-{index + 1:09d}"

    def key(self) -> dict[str, Any]:
        """Return JSON that changes with the labels and the images."""
        return {
            "lmdb": str(self.path.resolve()),
            "content": stamp(self.path),
            "form": self.config.unicode_form,
        }


def lmdb_package(path: Path) -> Any:
    """Return the module that reads LMDBs; ModuleNotFoundError if it is missing."""
    try:
        import lmdb
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{path} needs the package lmdb: pip install fastctc[lmdb]") from error
    return lmdb


_lmdb_lock = threading.Lock()


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open an LMDB file for reading, in one thread at a time."""
    lmdb = lmdb_package(path)
    with _lmdb_lock:
        try:
            with lmdb.open(
                str(path), subdir=False, readonly=True, lock=False, readahead=False
            ) as environment:
                yield environment
        except lmdb.Error as error:
            raise LabelError(f"cannot read {path} as LMDB: {error}") from error
