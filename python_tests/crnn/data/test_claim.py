"""Two processes that write into one folder: the second is refused, and a crashed owner's claim is taken over."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from recipes import recipe

from fastctc import cli
from fastctc.crnn import (
    Evaluation,
    export_onnx,
    export_program,
    load_checkpoint,
    train,
    write_evaluation_report,
)
from fastctc.crnn.data import FolderInUseError, claimed, write_folder
from fastctc.crnn.data.claim import CLAIM_FILE, fcntl
from fastctc.crnn.formulas import FormulaSource

OWNER = """
import sys
from fastctc.crnn.data import claimed
with claimed(sys.argv[1]):
    print("claimed", flush=True)
    sys.stdin.read()
"""


def start_owner(folder: Path) -> subprocess.Popen[str]:
    """Start a process that claims a folder until its input ends."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None and owner.stdout.readline() == "claimed\n"
    return owner


def end(owner: subprocess.Popen[str]) -> None:
    owner.kill()
    owner.communicate()


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder that another process has claimed."""
    folder = tmp_path_factory.mktemp("taken")
    owner = start_owner(folder)
    yield folder
    end(owner)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


COMMANDS = {
    "generate": ["generate", "{}", "--count", "2"],
    "train": ["train", "--out", "{}", "--steps", "1", "--images", "8"],
    "demo": ["demo", "{}"],
    "export to onnx": ["export", "formula", "{}/formula.onnx"],
    "export to pt2": ["export", "formula", "{}/formula.pt2"],
    "explore": ["explore", "--out", "{}", "--limit", "2"],
    "evaluate with a report": ["evaluate", "formula", "--count", "2", "--report", "{}"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_second_command_is_refused_before_it_writes(name, taken, capsys):
    before = contents(taken)
    assert cli.main([word.format(taken) for word in COMMANDS[name]]) == 2
    error = capsys.readouterr().err
    assert f"folder is {taken}, expected one that no other process writes into" in error
    assert f"on {socket.gethostname()} since " in error and "Wait until that process ends" in error
    assert contents(taken) == before


@pytest.mark.parametrize("name", ["write_folder", "train", "export_onnx", "export_program", "report"])
def test_a_second_function_call_is_refused_before_it_writes(name, taken):
    before = contents(taken)
    with pytest.raises(FolderInUseError, match="expected one that no other process writes into"):
        if name == "write_folder":
            write_folder(FormulaSource(), taken, 2)
        elif name == "train":
            train(recipe(steps=1, images=8), taken, show_progress=False)
        elif name == "report":
            write_evaluation_report(Evaluation(), taken, "title")
        else:
            write = export_onnx if name == "export_onnx" else export_program
            write(load_checkpoint("formula"), taken / "a")
    assert contents(taken) == before


def test_a_crashed_owners_claim_is_taken_over(tmp_path, caplog):
    owner = start_owner(tmp_path)
    end(owner)
    assert (tmp_path / CLAIM_FILE).exists()
    with caplog.at_level(logging.INFO):
        assert cli.main(["generate", str(tmp_path), "--count", "1", "--renderer", "glyphs"]) == 0
    assert f"taking over from process {owner.pid} on {socket.gethostname()}" in caplog.text
    assert sorted(contents(tmp_path)) == ["000000.png", "labels.tsv"]


def test_two_generating_processes_leave_one_whole_data_set(tmp_path):
    command = [sys.executable, "-m", "fastctc.cli", "generate", str(tmp_path / "data"), "--count", "60"]
    both = [
        subprocess.Popen([*command, "--seed", seed], stderr=subprocess.PIPE, text=True) for seed in ("1", "2")
    ]
    errors = [process.communicate()[1] for process in both]
    codes = [process.returncode for process in both]
    assert sorted(codes) == [0, 2], errors
    winner = codes.index(0)
    assert cli.main(["generate", str(tmp_path / "alone"), "--count", "60", "--seed", str(winner + 1)]) == 0
    assert contents(tmp_path / "data") == contents(tmp_path / "alone")


def test_a_claim_names_its_owner_and_goes_with_the_block(tmp_path):
    with claimed(tmp_path / "new" / "folder"):
        owner = json.loads((tmp_path / "new" / "folder" / CLAIM_FILE).read_text())
        assert owner["pid"] == os.getpid() and owner["host"] == socket.gethostname()
    assert not contents(tmp_path / "new" / "folder")
    with pytest.raises(KeyError), claimed(tmp_path):
        raise KeyError
    with claimed(tmp_path):
        pass


def claim_in_a_thread(folder: Path) -> str | None:
    """Claim a folder in another thread; return the refusal."""
    refused: list[str] = []

    def claim() -> None:
        try:
            with claimed(folder):
                pass
        except FolderInUseError as error:
            refused.append(str(error))

    thread = threading.Thread(target=claim)
    thread.start()
    thread.join()
    return refused[0] if refused else None


def test_a_claim_can_be_repeated_inside_but_not_by_another_thread(tmp_path):
    with claimed(tmp_path):
        with claimed(tmp_path / "." / "x" / ".."):
            pass
        assert (tmp_path / CLAIM_FILE).exists()
        assert f"process {os.getpid()} " in str(claim_in_a_thread(tmp_path))
    assert claim_in_a_thread(tmp_path) is None


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
def test_without_locks_the_process_number_decides(number, tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    path = tmp_path / CLAIM_FILE
    with claimed(tmp_path):
        assert f"If it has ended already, delete {path}" in str(claim_in_a_thread(tmp_path))
    assert not path.exists()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    path.write_text(json.dumps({"pid": ended.pid, "host": socket.gethostname()}))
    with claimed(tmp_path):
        pass
    path.write_text(json.dumps({"pid": ended.pid, "host": "elsewhere"}))
    with pytest.raises(FolderInUseError, match="on elsewhere"), claimed(tmp_path):
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"pid": "x"}', "\x00" * 9])
def test_a_damaged_claim_file_is_taken_over(text, tmp_path):
    (tmp_path / CLAIM_FILE).write_text(text)
    with claimed(tmp_path):
        pass
    assert not contents(tmp_path)
