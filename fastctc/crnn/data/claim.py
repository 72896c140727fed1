"""Claims: one process at a time writes into a folder.

A claim is a file in the folder, locked by ``flock`` as long as its owner lives. The system releases the lock of a
process that crashes. The next process then finds the file unlocked, and takes it over. On NFS the lock holds
between machines (Linux 2.6.12 and later). Where the file system has no locks, the process number in the file
decides: a claim of this machine lapses with its process, and a claim of another machine must be deleted by hand.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from fastctc.files import explain_full_disk

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

CLAIM_FILE = ".fastctc-claim"
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
_held: ContextVar[frozenset[Path]] = ContextVar("_held", default=frozenset())

log = logging.getLogger(__name__)


class FolderInUseError(OSError):
    """A folder that another process is writing into."""


@contextmanager
def claimed(folder: str | Path) -> Iterator[None]:
    """Claim a folder for a block that writes into it.

    A block inside of a block may claim the same folder again. Another thread may not.

    Args:
        folder: made if missing.

    Raises:
        FolderInUseError: another process, or another thread, has claimed it. The message names the owner.
    """
    folder = Path(folder)
    path = folder / CLAIM_FILE
    with explain_full_disk(path):
        folder.mkdir(parents=True, exist_ok=True)
    place = folder.resolve()
    if place in _held.get():
        yield
        return
    handle = _claim(path)
    token = _held.set(_held.get() | {place})
    try:
        yield
    finally:
        _held.reset(token)
        _release(path, handle)


def _claim(path: Path) -> int:
    """Return the open claim file, locked if the file system has locks, with this process as its owner."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            locked = _lock(handle)
            owner = _owner(handle)
            if locked is False or (locked is None and _may_live(owner)):
                raise FolderInUseError(_refusal(path, owner, locked is None))
            if _is_there(path, handle):
                break
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its owner deleted it before the lock was free
    if owner:
        log.info("%s: taking over from %s, which has crashed", path.parent, _described(owner))
    with explain_full_disk(path):
        os.ftruncate(handle, 0)
        os.lseek(handle, 0, os.SEEK_SET)
        os.write(handle, json.dumps(_this_process()).encode())
    return handle


def _release(path: Path, handle: int) -> None:
    """Delete the claim file; while it is locked, so that nobody locks a file that is then deleted."""
    if os.name == "nt":  # an open file cannot be deleted
        os.close(handle)
    with suppress(OSError):  # the folder may be gone
        path.unlink()
    if os.name != "nt":
        os.close(handle)


def _lock(handle: int) -> bool | None:
    """Return True if the lock was free, False if it is taken, None if there are no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        if error.errno not in _NO_LOCKS:
            raise
        return None
    return True


def _is_there(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _this_process() -> dict[str, Any]:
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200]
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": since, "command": command}


def _owner(handle: int) -> dict[str, Any]:
    """Return what a claim file tells of its owner; nothing if it is empty or damaged."""
    try:
        owner = json.loads(os.read(handle, 4096))
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _may_live(owner: dict[str, Any]) -> bool:
    """Return False if the owner is known to have ended."""
    if not owner or os.name != "posix" or owner.get("host") != socket.gethostname():
        return bool(owner)
    try:
        os.kill(int(owner["pid"]), 0)
    except ProcessLookupError:
        return False
    except (OSError, KeyError, ValueError, TypeError):
        return True
    return True


def _described(owner: dict[str, Any]) -> str:
    if not owner:
        return "another process"
    return f"process {owner.get('pid')} on {owner.get('host')} since {owner.get('since')} ({owner.get('command')})"


def _refusal(path: Path, owner: dict[str, Any], no_locks: bool) -> str:
    text = (
        f"folder is {path.parent}, expected one that no other process writes into: it belongs to"
        f" {_described(owner)}. Wait until that process ends, or choose another folder"
    )
    return text + (f". If it has ended already, delete {path}" if no_locks else "")
