"""Files: whole or not there, a full disk explained, and hints at a file of a similar name."""

from __future__ import annotations

import errno
import os
import pickle
import unicodedata
from pathlib import Path

import pytest

from fastctc.crnn.data import DiskFullError, no_such_file, write_atomically


def failing(number: int):
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("content", [b"new content", lambda path: path.write_bytes(b"new content")])
@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_full_disk_names_path_need_and_remedy_and_leaves_the_old_file(
    function, content, tmp_path, monkeypatch
):
    path = tmp_path / "a.txt"
    path.write_text("old")
    monkeypatch.setattr(os, function, failing(errno.ENOSPC))
    with pytest.raises(DiskFullError) as raised:
        write_atomically(path, content, 11)
    message = str(raised.value)
    assert message.startswith(f"cannot write {path}: the disk is full; the file needs 11 bytes; ")
    assert "bytes are free" in message and "The earlier file is unchanged. Free some space" in message
    assert raised.value.errno == errno.ENOSPC and isinstance(raised.value, OSError)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]
    assert str(pickle.loads(pickle.dumps(raised.value))) == message  # from worker processes


@pytest.mark.parametrize(
    "number, cause", [(errno.EDQUOT, "the disk quota is used up"), (errno.EFBIG, "ulimit -f")]
)
def test_other_ways_of_having_no_room(number, cause, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", failing(number))
    with pytest.raises(DiskFullError, match=f"{cause}.*needs 1 bytes. Free some space"):
        write_atomically(tmp_path / "a", b"a")


def test_other_errors_stay_what_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", failing(errno.EACCES))
    with pytest.raises(PermissionError):
        write_atomically(tmp_path / "a", b"a")


NFC, NFD = (unicodedata.normalize(form, "résumé.png") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    "there, asked, hint",
    [
        (NFC, NFD, "the given name is in NFD, the file's is in NFC"),
        (NFD, NFC, "the given name is in NFC, the file's is in NFD"),
        (f"u/{NFC}", f"u/{NFD}", "the given name is in NFD"),
        ("scans/a.png", "scans\\a.png", "written with / instead of \\"),
        (f"scans/{NFC}", f"scans\\{NFD}", "in another Unicode form"),
        ("A.PNG", "a.png", "with other capital letters"),
        ("other.png", "x\\a.png", "separate folders with /"),
        ("other.png", "a.png", None),
        ("other.png", "none/a.png", None),
        ("other.png", "a" * 300, None),
        ("other.png", "a\x00b", "NUL"),
    ],
)
def test_no_such_file_hints_at_other_unicode_forms_and_backslashes(there, asked, hint, tmp_path, monkeypatch):
    path = tmp_path / there
    path.parent.mkdir(exist_ok=True)
    path.touch()
    monkeypatch.chdir(tmp_path)
    for given, shown in ((asked, there), (f"{tmp_path}/{asked}", str(path))):
        message = no_such_file(given)
        assert message.startswith("no such file")
        if hint is None:
            assert message == "no such file"
        else:
            assert hint in message
            assert "there is" not in message or repr(str(Path(shown))) in message


def test_a_dangling_link_is_named(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "none")
    assert no_such_file(tmp_path / "a") == "no such file; the name is a link whose target is missing"
