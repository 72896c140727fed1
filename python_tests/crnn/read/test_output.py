"""Files of readings: the same bytes after any kill, and for any number of processes."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fastctc import cli
from fastctc.crnn import CRNN, Checkpoint, CRNNConfig, PreprocessConfig, Recognizer, save_checkpoint
from fastctc.crnn.data import FolderInUseError, claimed
from fastctc.crnn.read import Reading, Written, output, read_entries, row_of, write_readings
from fastctc.crnn.read.decoding import Decoder
from fastctc.crnn.read.formats import WRITERS
from fastctc.text import Alphabet

COUNT = 150
SMALL = {"batch_size": 4}  # windows of 32 images
BAD = (5, 64, 130, 149)  # images that are not readable


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(output, "PART", 32)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    torch.manual_seed(1)
    network = CRNN(CRNNConfig(4, channels=4, hidden=8)).eval()
    with torch.no_grad():
        network.classify.weight.mul_(8)
    path = tmp_path_factory.mktemp("output") / "model.safetensors"
    save_checkpoint(Checkpoint(network, Alphabet("abc"), PreprocessConfig()), path)
    return path


@pytest.fixture(scope="module")
def recognizer(model) -> Recognizer:
    return Recognizer.load(model)


@pytest.fixture(scope="module")
def shards(model) -> str:
    """Write images of many widths into three tar files; return their pattern."""
    rng = np.random.default_rng(0)
    for shard in range(3):
        with tarfile.open(model.parent / f"s-{shard}.tar", "w") as archive:
            for i in range(shard * 50, shard * 50 + 50):
                content = io.BytesIO()
                pixels = rng.integers(0, 255, (32, rng.integers(8, 90)), dtype=np.uint8)
                Image.fromarray(pixels).save(content, "PNG")
                info = tarfile.TarInfo(f"{i:03d}.png")
                info.size = len(content.getvalue()) if i not in BAD else 9
                archive.addfile(info, io.BytesIO(content.getvalue()))
    return str(model.parent / "s-{0..2}.tar")


@pytest.fixture(scope="module")
def whole(recognizer, shards, tmp_path_factory) -> dict[str, bytes]:
    """Return the file of each format that an uninterrupted run writes."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(output, "PART", 32)
        for suffix in (".tsv", ".jsonl"):
            write_readings(recognizer, [shards], folder / f"a{suffix}", **SMALL)
    return {path.suffix: path.read_bytes() for path in folder.iterdir()}


def test_a_row_for_each_image_with_its_text_or_the_reason(recognizer, shards, whole, tmp_path):
    done: list[int] = []
    path = tmp_path / "new" / "a.tsv"
    assert write_readings(recognizer, [shards], path, **SMALL, on_progress=done.append) == Written(
        COUNT, len(BAD)
    )
    assert os.listdir(path.parent) == ["a.tsv"] and sum(done) == COUNT
    header, *rows = [line.split("\t") for line in path.read_text().splitlines()]
    assert header == ["path", "text", "score", "confidence", "warning", "error"]
    assert [row[0].rpartition("/")[2] for row in rows] == [f"{i:03d}.png" for i in range(COUNT)]
    assert [i for i, row in enumerate(rows) if row[-1].startswith("not a readable image")] == list(BAD)
    assert all(float(row[3]) > 0 for i, row in enumerate(rows) if i not in BAD)
    lines = [json.loads(line) for line in whole[".jsonl"].splitlines()]
    assert [line["text"] or "" for line in lines] == [row[1] for row in rows]
    assert any(line["text"] for line in lines)


def test_the_texts_are_those_of_the_recognizer(recognizer, shards, whole):
    entries = output.Inputs([shards]).entries()
    plain = dict(read_entries(recognizer, entries, Decoder(recognizer.alphabet)))
    for line in map(json.loads, whole[".jsonl"].splitlines()):
        reading = plain[line["path"]]
        assert line["text"] == (None if reading.error else reading.text)
        assert reading.error or line["score"] == pytest.approx(reading.score, abs=1e-3)


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def test_a_run_killed_at_any_write_goes_on_to_the_same_bytes(
    recognizer, shards, whole, tmp_path, monkeypatch
):
    """Before and behind each of its writes, deletions and renames, one kill after another."""
    path, kills = tmp_path / "a.tsv", 0
    for run in range(200):
        calls, when = 0, 2 + run

        def counted(function: Any, *arguments: Any, when: int = when, **options: Any) -> Any:
            nonlocal calls
            number = calls = calls + 1
            if when == 2 * number:
                raise Killed
            result = function(*arguments, **options)
            if when == 2 * number + 1:
                raise Killed
            return result

        with monkeypatch.context() as patch:
            for owner, name in ((output, "write_atomically"), (output.os, "replace"), (Path, "unlink")):
                function = getattr(owner, name)
                patch.setattr(owner, name, lambda *a, f=function, **o: counted(f, *a, **o))
            try:
                assert write_readings(recognizer, [shards], path, **SMALL) == Written(COUNT, len(BAD))
                break
            except Killed:
                kills += 1
            except FileExistsError:  # it was whole, and its parts were gone
                break
    assert kills > 10 and path.read_bytes() == whole[".tsv"]


def test_what_is_there_already_is_not_written_over(recognizer, shards, tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("mine")
    with pytest.raises(FileExistsError, match=r"output is .*a.tsv, which exists already: delete it"):
        write_readings(recognizer, [shards], path)
    assert path.read_text() == "mine" and os.listdir(tmp_path) == ["a.tsv"]


def test_parts_of_another_job_are_refused(recognizer, shards, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise Killed

    path = tmp_path / "a.tsv"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(output._Parts, "join", fail)
        write_readings(recognizer, [shards], path, **SMALL)
    other = Recognizer(
        Checkpoint(CRNN(CRNNConfig(4, channels=4, hidden=8)).eval(), Alphabet("abc"), PreprocessConfig())
    )
    for reader, images, options, name in [
        (other, [shards], SMALL, "model"),
        (recognizer, [shards.replace("0..2", "0..1")], SMALL, "images"),
        (recognizer, [shards], {"batch_size": 8}, "batch_size"),
        (recognizer, [shards], SMALL | {"settings": {"lm": "x"}}, "lm"),
        (recognizer, [shards], SMALL | {"beam_size": 4, "min_confidence": 0.5}, "beam_size, min_confidence"),
    ]:
        with pytest.raises(ValueError, match=rf"a.tsv.parts has parts of a run with other {name}: repeat"):
            write_readings(reader, images, path, **options)
    assert write_readings(recognizer, [shards], path, **SMALL) == Written(COUNT, len(BAD))


def test_one_process_writes_at_a_time(recognizer, shards, tmp_path):
    with (
        claimed(tmp_path / "a.tsv.parts" / "process-0"),
        ThreadPoolExecutor(1) as other,
        pytest.raises(FolderInUseError, match=r"a.tsv.parts/process-0, expected one that no other process"),
    ):
        other.submit(write_readings, recognizer, [shards], tmp_path / "a.tsv", **SMALL).result()
    assert not (tmp_path / "a.tsv").exists()


def test_several_processes_write_the_file_of_one(recognizer, shards, whole, tmp_path, monkeypatch):
    """In turn: the last first, so that the first finds the parts of the others."""
    path, processes = tmp_path / "a.jsonl", 3
    (tmp_path / "a.jsonl.parts").mkdir()
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    parts = output._Parts(path, {}, SMALL["batch_size"])
    monkeypatch.setattr(output._Parts, "_matches", lambda self: self.process > 0 or parts.matching)
    parts.matching = False
    for process in reversed(range(processes)):
        monkeypatch.setenv("RANK", str(process))
        written = write_readings(recognizer, [shards], path, **SMALL)
        assert written == (None if process else Written(COUNT, len(BAD)))
        assert path.exists() == (process == 0)
    assert path.read_bytes() == whole[".jsonl"] and os.listdir(tmp_path) == ["a.jsonl"]
    monkeypatch.setenv("RANK", "1")  # one that starts late
    assert write_readings(recognizer, [shards], path, **SMALL) is None


def command(model: Path, shards: str, path: Path, *more: str) -> list[str]:
    words = ["read", "--checkpoint", model, "--batch-size", "4", "--output", path, shards, *more]
    script = (
        "import sys; from fastctc.crnn.read import output; output.PART = 32\n"
        "from fastctc.cli import main\nif __name__ == '__main__': sys.exit(main(sys.argv[1:]))\n"
    )
    (path.parent / "run.py").write_text(script)
    return [str(path.parent / "run.py"), *map(str, words)]


@pytest.mark.slow
def test_kill_9_and_torchrun(model, shards, whole, tmp_path):
    """A killed process, then two processes under torchrun, end at the bytes of one that was not killed."""
    words = command(model, shards, tmp_path / "a.tsv", "--workers", "0")
    running = subprocess.Popen([sys.executable, *words[:-1], "1"], stderr=subprocess.DEVNULL)
    parts, end = tmp_path / "a.tsv.parts", time.monotonic() + 120
    while len(list(parts.glob("part-*"))) < 2 and running.poll() is None and time.monotonic() < end:
        time.sleep(0.002)
    os.kill(running.pid, signal.SIGKILL)
    assert (
        running.wait() == -signal.SIGKILL and list(parts.glob("part-*")) and not (tmp_path / "a.tsv").exists()
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    done = subprocess.run([*torchrun, *words], capture_output=True, text=True, timeout=300)
    assert "4 of 150 could not be read" in done.stderr, done.stderr
    assert (tmp_path / "a.tsv").read_bytes() == whole[".tsv"]
    assert sorted(os.listdir(tmp_path)) == ["a.tsv", "run.py"]


def test_the_command(model, shards, tmp_path, capsys, monkeypatch):
    path = tmp_path / "a.tsv"
    words = ["read", "--checkpoint", str(model), shards, "--output", str(path)]
    assert cli.main(words) == 1
    out, err = capsys.readouterr()
    assert out == "" and "4 of 150 could not be read" in err and f"150 images in {path}" in err
    assert cli.main(words) == 2 and "exists already" in capsys.readouterr().err
    good = f"{model.parent}/s-1.tar"
    for options, message in [
        (["--output", "a.txt"], "output is a.txt, expected a name that ends in .tsv, .jsonl, .parquet"),
        (["--output", "b.tsv", "--json"], "--json is given with --output"),
        (["--output", "b.tsv", "--explain", "c.png"], "--explain is given with --output"),
        (["--output", "b.tsv", "--beam-size", "4", "--nbest", "2"], "nbest is 2, but b.tsv has one text"),
    ]:
        assert cli.main(["read", "--checkpoint", str(model), good, *options]) == 2
        assert message in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert cli.main(["read", "--checkpoint", str(model), good]) == 2
    assert "several processes read, which needs --output" in capsys.readouterr().err


def test_containers_are_printed_too(model, shards, capsys):
    assert cli.main(["read", "--checkpoint", str(model), shards, "--workers", "0"]) == 1
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert len(lines) == COUNT - len(BAD) and lines[0].startswith(f"{model.parent}/s-0.tar/000.png\t")
    assert "s-2.tar/149.png: not a readable image" in err and "4 of 150 could not be read" in err


def test_texts_of_any_characters_survive_in_each_format(tmp_path):
    texts = ["a\tb\nc\\d\re", "é數🙂\u2028", "\udce9", ""]
    readings = [
        (f"{n}\t.png", Reading(text, -0.5, warning="w\n" if n else None)) for n, text in enumerate(texts)
    ]
    rows = [
        row_of(name, reading) for name, reading in [*readings, ("bad", Reading("", -np.inf, error="why\t"))]
    ]
    WRITERS[".tsv"](tmp_path / "a.tsv", iter(rows))
    lines = [line.split("\t") for line in (tmp_path / "a.tsv").read_text("utf-8").split("\n")[:-1]]
    assert {len(line) for line in lines} == {6} and len(lines) == 6
    shown = [line[1].encode("utf-8") for line in lines[1:]]
    assert shown == [rb"a\tb\nc\\d\re", "é數🙂\u2028".encode(), rb"\udce9", b"", b""]
    assert [line[5] for line in lines[1:]] == ["", "", "", "", r"why\t"]
    WRITERS[".jsonl"](tmp_path / "a.jsonl", iter(rows))
    assert [json.loads(line)["text"] for line in (tmp_path / "a.jsonl").read_text().splitlines()] == [
        *texts,
        None,
    ]
    parquet = pytest.importorskip("pyarrow.parquet")
    WRITERS[".parquet"](tmp_path / "a.parquet", iter(rows))
    table = parquet.read_table(tmp_path / "a.parquet").to_pydict()
    assert table["text"] == [*texts[:2], r"\udce9", "", None] and table["error"] == [None] * 4 + ["why\t"]
    assert table["score"] == [-0.5] * 4 + [None] and table["path"][0] == "0\t.png"


def test_parquet_is_resumed_to_the_same_bytes(recognizer, shards, tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    options: dict[str, Any] = SMALL | {"beam_size": 3, "nbest": 2}
    write_readings(recognizer, [shards], tmp_path / "a.parquet", **options)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(output, "Written", lambda *_: (_ for _ in ()).throw(Killed()))
        write_readings(recognizer, [shards], tmp_path / "b.parquet", **options)
    assert write_readings(recognizer, [shards], tmp_path / "b.parquet", **options) == Written(COUNT, len(BAD))
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
