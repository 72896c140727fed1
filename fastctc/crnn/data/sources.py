"""Sources: functions from the number of a sample to the sample, read or drawn."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fastctc.crnn.data.images import ImageLike


class Source(Protocol):
    """A function of the number of a sample; picklable, so that worker processes can call it."""

    def __call__(self, index: int, /) -> tuple[ImageLike, str]:
        """Return the image and its text."""


class KeyedSource(Source, Protocol):
    """A source with a key of all that its samples depend on, so that they can be cached."""

    def key(self) -> dict[str, Any]:
        """Return JSON that changes with anything the samples depend on."""


class NamedSource(Source, Protocol):
    """A data set: a source with a number of samples and their names."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def name(self, index: int, /) -> str:
        """Return the name of a sample in reports."""


class LabeledSource(KeyedSource, NamedSource, Protocol):
    """A data set on disk."""


@dataclass(frozen=True)
class Drawn:
    """The first ``count`` samples of an endless series, from number ``first`` on, as a data set."""

    source: Source
    count: int
    first: int = 0

    def __len__(self) -> int:
        return self.count

    def __call__(self, index: int) -> tuple[ImageLike, str]:
        """Return the image and its text."""
        return self.source(self.first + index)

    def name(self, index: int) -> str:
        """Return the number of the sample in the series."""
        return f"sample {self.first + index}"


def hash_of_code(folder: Path) -> str:
    """Return a hash of all Python files in a folder: the code that decides what is drawn."""
    code = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        code.update(path.read_bytes())
    return code.hexdigest()
