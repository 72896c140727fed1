"""Files that are whole or not there, and errors that explain a full disk and a missing file."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

__all__ = ["DiskFullError", "explain_full_disk", "no_such_file", "stamp", "write_atomically"]

_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file exceeds the size that the system allows (see `ulimit -f`)",
}


class DiskFullError(OSError):
    """A file that was not written because there is no room for it."""

    def __str__(self) -> str:
        return str(self.strerror)


def write_atomically(path: Path, content: bytes | Callable[[Path], object], need: int | None = None) -> None:
    """Write a temporary file beside ``path``, then move it there.

    Args:
        path: the file; replaced if it exists. Its folder is made if missing.
        content: the bytes to write; or a function that fills the temporary file whose path it takes.
        need: bytes of the file, for the error message; None: the length of ``content``, or unknown.

    Raises:
        DiskFullError: there is no room. As with every error, ``path`` stays as it was.
    """
    if isinstance(content, bytes):
        need = len(content)
    with explain_full_disk(path, need):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:200]}.", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            if isinstance(content, bytes):
                temporary.write_bytes(content)
            else:
                content(temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def explain_full_disk(path: Path, need: int | None = None) -> Iterator[None]:
    """Name the file, its size and the remedy if a block fails because there is no room for ``path``.

    Args:
        path: the file that the block writes.
        need: its bytes; None: unknown.

    Raises:
        DiskFullError: in place of the :class:`OSError` that means a full disk.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL or isinstance(error, DiskFullError):
            raise
        raise DiskFullError(error.errno, _no_room(path, need, error.errno)) from error


def _no_room(path: Path, need: int | None, number: int) -> str:
    text = f"cannot write {path}: {_FULL[number]}"
    if need is not None:
        text += f"; the file needs {need:,} bytes"
    if number == errno.ENOSPC:
        with suppress(OSError):
            free = shutil.disk_usage(path.parent).free
            text += f"; {free:,} bytes are free"
            if need is not None and free > need:
                text += ", so the file system may have no room for another file name"
    kept = "The earlier file is unchanged. " if path.exists() else ""
    return f"{text}. {kept}Free some space, or choose another folder, and repeat the command"


def no_such_file(path: str | Path) -> str:
    """Return "no such file", with a hint if a file of a similar name is there.

    Three spellings are recognized: another Unicode normal form (NFC or NFD), other capital letters, and
    backslashes between folders.
    """
    text = str(path)
    if "\x00" in text:
        return "no such file: the name has a NUL character"
    found, how = _similar(Path(text)), "with other capital letters"
    if found is None and os.sep != "\\" and "\\" in text:
        text = text.replace("\\", "/")
        slashes = Path(text)
        found, how = (slashes if slashes.exists() else _similar(slashes)), "written with / instead of \\"
        if found is None:
            return "no such file; the name has a backslash: separate folders with /"
    if found is None:
        return "no such file"
    if found == Path(path):
        return "no such file; the name is a link whose target is missing"
    asked, there = unicodedata.normalize("NFC", text), unicodedata.normalize("NFC", str(found))
    if asked == there and text != str(found):
        forms = [
            next((form for form in ("NFC", "NFD") if unicodedata.is_normalized(form, name)), "a mixed form")
            for name in (text, str(found))
        ]
        how = f"in another Unicode form: the given name is in {forms[0]}, the file's is in {forms[1]}"
    return f"no such file; there is {str(found)!r}, {how}"


def _similar(path: Path) -> Path | None:
    """Return an existing path whose name differs only in its Unicode form or its capital letters."""
    there = Path(path.anchor)
    with suppress(OSError, ValueError, KeyError):
        for part in path.parts[1:] if path.anchor else path.parts:
            if not (there / part).exists():
                names = _names(str(there), there.stat().st_mtime_ns)
                part = names.get(unicodedata.normalize("NFC", part)) or names[_folded(part)]
            there /= part
        return there
    return None


@lru_cache(maxsize=16)
def _names(folder: str, changed: int) -> dict[str, str]:
    """Return the names in a folder by their NFC forms and by their folded forms."""
    names = os.listdir(folder)
    return {_folded(name): name for name in names} | {unicodedata.normalize("NFC", n): n for n in names}


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def stamp(path: Path) -> tuple[int, int] | None:
    """Return the size of a file and the time of its last change; None for a missing file."""
    try:
        status = path.stat()
    except (OSError, ValueError):  # ValueError: a name no file can have
        return None
    return status.st_size, status.st_mtime_ns
