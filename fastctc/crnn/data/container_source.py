"""Labeled images in containers."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from fastctc.crnn.data.containers import Entry, Wanted, container_entries
from fastctc.crnn.data.samples import LabelError
from fastctc.files import stamp

_FORMS = "\u00c5A\u030a\ufb01"  # differs in all Unicode forms


class ContainerSource:
    """Encoded images with texts in tar files or Parquet files, see :mod:`fastctc.crnn.data.containers`.

    The files are read forwards. A sample before the last one that was read starts another pass, so samples are
    best read in order.

    Args:
        paths: the files, in their order.
        normalized: returns a text in the form that it is trained in; picklable.

    Raises:
        LabelError: no image is in them.
        ModuleNotFoundError: the package ``pyarrow`` is missing.
    """

    def __init__(self, paths: Sequence[Path], normalized: Callable[[str], str]) -> None:
        self.paths, self._normalized = list(paths), normalized
        found = list(self._entries(lambda number: False))
        self._names = [entry.name for entry in found]
        if all(isinstance(entry.image, ValueError) for entry in found):
            reason = f"{found[0].name}: {found[0].image!s}" if found else f"{self.paths[0]} has no image"
            raise LabelError(reason)
        self._reading: tuple[int, int, Iterator[Entry]] | None = None  # process, next sample, the entries
        self._asked = -1
        self._lock = threading.Lock()

    def _entries(self, wanted: Wanted) -> Iterator[Entry]:
        first = 0
        for path in self.paths:
            for entry in container_entries(path, lambda n, first=first: wanted(first + n), labels=True):  # type: ignore[misc]
                yield entry
                first += 1

    def __getstate__(self) -> dict[str, Any]:
        return {"paths": self.paths, "normalized": self._normalized, "names": self._names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.paths, self._normalized, self._names = state["paths"], state["normalized"], state["names"]
        self._reading, self._asked, self._lock = None, -1, threading.Lock()

    def __len__(self) -> int:
        return len(self._names)

    def __call__(self, index: int) -> tuple[Path | bytes, str]:
        """Return a sample's image and its text; ImageError or LabelError if one of them cannot be read."""
        entry = self._entry(index)
        assert (entry.image is not None and entry.text is not None) or isinstance(entry.image, ValueError)
        if isinstance(entry.image, ValueError):
            raise entry.image
        return entry.image, self._normalized(entry.text or "")

    def _entry(self, index: int) -> Entry:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        with self._lock:
            self._asked = index
            if self._reading is None or self._reading[0] != os.getpid() or self._reading[1] > index:
                self._reading = os.getpid(), 0, self._entries(lambda number: number == self._asked)
            _, number, entries = self._reading
            entry = next(islice(entries, index - number, None))
            self._reading = os.getpid(), index + 1, entries
            if entry.image is None:  # it was passed by together with the one before it
                self._reading = None
        return self._entry(index) if entry.image is None else entry

    def name(self, index: int) -> str:
        """Return the container of a sample and the name or the number there."""
        return self._names[index]

    def stored_text(self, index: int) -> str:
        """Return the text of a sample as the file has it; LabelError if it has none."""
        entry = self._entry(index)
        if isinstance(entry.image, LabelError):
            raise entry.image
        return entry.text or ""

    def key(self) -> dict[str, Any]:
        """Return JSON that changes with the files."""
        content = [[str(path.resolve()), stamp(path)] for path in self.paths]
        return {"containers": content, "form": self._normalized(_FORMS)}
