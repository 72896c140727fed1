"""Labelled images on disk: where their pixels and their texts come from."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from fastctc.crnn.preprocess import ImageLike

LABELS_FILE = "labels.tsv"


class Source(Protocol):
    """Anything that gives sample number ``index``; picklable, so that worker processes can draw from it."""

    def __call__(self, index: int, /) -> tuple[ImageLike, str]:
        """The image and its text."""


class LabelError(ValueError):
    """A labels file that cannot be read, or a data set in which no sample is usable."""


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
