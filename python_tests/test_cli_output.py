"""What the fastctc command prints: any name in any encoding, no NaN as success, no noise where nobody reads."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from fastctc import cli
from fastctc.crnn import (
    CRNN,
    Checkpoint,
    CRNNConfig,
    PreprocessConfig,
    Recognizer,
    evaluate,
    load_checkpoint,
    save_checkpoint,
    write_folder,
)
from fastctc.crnn.formulas import FormulaConstraint, FormulaSource
from fastctc.text import Alphabet

NAMES = ["résumé.png", "數.png", "a\nb.png", "tab\t.png", os.fsdecode(b"latin-\xe9.png"), "🙂.png"]


def strict(text: str) -> object:
    """Parse JSON as its standard has it."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("output") / "data"
    write_folder(FormulaSource(renderer="captcha", seed=3), path, 6)
    return path


@pytest.fixture(scope="module")
def odd(folder: Path) -> Path:
    """Write images with odd names, and labels with texts that an encoding may lack."""
    path = folder.parent / "odd"
    path.mkdir()
    for name in NAMES:
        shutil.copy(folder / "000000.png", path / name)
    (path / "labels.json").write_text(json.dumps(dict.fromkeys(NAMES[:4], "é數🙂")))
    return path


@pytest.fixture(scope="module")
def foreign(folder: Path) -> Path:
    """Write a checkpoint that reads é, 數 and 🙂, which are not in every encoding."""
    torch.manual_seed(0)
    model = CRNN(CRNNConfig(4, channels=4, hidden=8))
    path = folder.parent / "foreign.safetensors"
    save_checkpoint(Checkpoint(model, Alphabet("é數🙂"), PreprocessConfig()), path)
    return path


def run(encoding: str, *words: object) -> subprocess.CompletedProcess[bytes]:
    environment = os.environ | {"PYTHONIOENCODING": encoding, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "fastctc.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, env=environment, check=False)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1:strict", "utf-8", "cp1252"])
def test_names_that_the_encoding_of_stdout_cannot_show_are_escaped(encoding, odd):
    ended = run(encoding, "read", odd, odd / "none-é.png")
    assert ended.returncode == 1 and b"Traceback" not in ended.stderr, ended.stderr
    codec = encoding.partition(":")[0]
    lines = ended.stdout.decode(codec).splitlines()
    assert len(lines) == len(NAMES) and len({line.split("\t")[1] for line in lines}) == 1
    assert any("a\\nb.png" in line for line in lines) and any("tab\\t.png" in line for line in lines)
    assert any("latin-\\udce9.png" in line for line in lines)
    shown = "résumé.png" if codec != "ascii" else "r\\xe9sum\\xe9.png"
    assert any(shown in line for line in lines)
    assert b"no such file" in ended.stderr and b"1 of 7 could not be read" in ended.stderr


COMMANDS = {
    "read texts": ["read", "--checkpoint", "{foreign}", "{odd}"],
    "read json": ["read", "--json", "--checkpoint", "{foreign}", "{odd}"],
    "read n-best": ["read", "--checkpoint", "{foreign}", "--beam-size", "2", "--nbest", "2", "{odd}"],
    "evaluate": ["evaluate", "{foreign}", "{odd}", "--mistakes", "9", "--report", "{out}/report"],
    "evaluate json": ["evaluate", "{foreign}", "{odd}", "--mistakes", "9", "--json"],
    "explore": ["explore", "{odd}", "--out", "{out}"],
    "summary": ["summary", "{foreign}"],
    "generate": ["generate", "{out}", "--count", "1"],
    "export": ["export", "{foreign}", "{out}/a.pt2"],
    "train": ["train", "--out", "{out}", "--data", "{odd}", "--steps", "1", "--batch-size", "2"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_stops_at_what_stdout_cannot_show(name, odd, foreign, tmp_path):
    out = os.path.join(str(tmp_path), os.fsdecode(b"\xff\xc3\xa9\n"))
    words = [word.format(odd=odd, foreign=foreign, out=out) for word in COMMANDS[name]]
    ended = run("ascii", *words)
    assert ended.returncode in (0, 1) and b"Traceback" not in ended.stderr, ended.stderr.decode()
    assert ended.returncode == 0, ended.stderr.decode()
    assert ended.stdout.decode("ascii") and b"\xff" not in ended.stdout


@pytest.fixture(scope="module")
def broken(folder: Path) -> Path:
    """Write a checkpoint whose output is NaN."""
    checkpoint = load_checkpoint("formula")
    with torch.no_grad():
        checkpoint.model.classify.bias.fill_(math.nan)
    path = folder.parent / "broken.safetensors"
    save_checkpoint(checkpoint, path)
    return path


@pytest.mark.parametrize("options", [[], ["--beam-size", "5"], ["--constraint", "formula"]])
def test_nan_scores_are_null_with_an_error_and_status_1(options, broken, folder, capsys):
    images = sorted(map(str, folder.glob("*.png")))
    assert cli.main(["read", "--json", "--checkpoint", str(broken), *options, *images]) == 1
    out, err = capsys.readouterr()
    lines = [strict(line) for line in out.splitlines()]
    assert [line["path"] for line in lines] == images
    for line in lines:
        assert line["score"] is None and line["text"] is None and line["nbest"] == []
        assert "not a number (NaN)" in line["error"]
    assert "6 of 6 could not be read" in err
    assert cli.main(["read", "--checkpoint", str(broken), *options, *images]) == 1
    assert capsys.readouterr().out == ""


def test_nan_scores_of_an_evaluation_are_problems_and_status_1(broken, folder, tmp_path, capsys):
    assert cli.main(["evaluate", str(broken), str(folder), "--json", "--mistakes", "9"]) == 1
    out, err = capsys.readouterr()
    figures = strict(out)
    assert figures["unreadable"] == 6 and figures["count"] == 0 and "not a number (NaN)" in err
    assert cli.main(["evaluate", str(broken), str(folder), "--report", str(tmp_path)]) == 1
    assert "not a number (NaN)" in (tmp_path / "report.html").read_text()


def test_one_image_with_nan_scores_does_not_stop_the_others(folder, monkeypatch):
    recognizer = Recognizer.load("formula")
    images = sorted(folder.glob("*.png"))
    expected = recognizer.read(images)
    logits = recognizer.model.logits

    def with_nan(*given: object) -> tuple[torch.Tensor, torch.Tensor]:
        values, lengths = logits(*given)
        values[2, 3, 4] = math.nan
        return values, lengths

    monkeypatch.setattr(recognizer.model, "logits", with_nan)
    for options in ({}, {"beam_size": 5}, {"constraint": FormulaConstraint()}):
        found = recognizer.read(images, **options)
        assert [each.error is None for each in found] == [n != 2 for n in range(6)]
        assert "NaN" in found[2].error and found[2].score == -math.inf
    assert [each.text for n, each in enumerate(recognizer.read(images)) if n != 2] == [
        each.text for n, each in enumerate(expected) if n != 2
    ]
    evaluation = evaluate(recognizer, folder)
    assert evaluation.count == 5 and len(evaluation.samples) == 5 and len(evaluation.problems) == 1
    assert evaluation.problems[0].name == "000002.png"


def test_json_has_a_line_for_each_image_that_cannot_be_read(folder, tmp_path, capsys):
    (tmp_path / "bad.png").write_bytes(b"junk")
    images = [str(tmp_path / "bad.png"), str(folder / "000000.png"), str(tmp_path / "none.png")]
    assert cli.main(["read", "--json", *images]) == 1
    lines = [strict(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["path"] for line in lines] == images
    assert "not a readable image" in lines[0]["error"] and "no such file" in lines[2]["error"]
    assert "error" not in lines[1] and lines[1]["score"] <= 0


DESCRIPTIONS = [
    ("training", [1]), ("training", "text"), ("training", None), ("training", 3),
    ("training", {"exact_match": math.nan}), ("training", {"recipe": {"deep": [math.inf]}}),
    ("training", {"a\nb": "c\td"}), ("training", {"": None}),
]  # fmt: skip
REFUSED = [
    ("alphabet", 3), ("alphabet", "aa"), ("alphabet", "ab"), ("alphabet", None), ("blank", "x"), ("blank", -1),
    ("preprocess", []), ("preprocess", {"height": "x"}), ("preprocess", {"height": 8}), ("preprocess", None),
    ("architecture", "conv"), ("architecture", {"num_classes": 10**12}), ("architecture", {"height": math.inf}),
    ("architecture", {"num_classes": 17, "channels": 2.5}), ("version", "one"), ("version", math.inf),
    ("version", [1]), ("format", None),
]  # fmt: skip


def rewritten(path: Path, key: str, value: object) -> str:
    """Write the shipped checkpoint with another value in its description; return its path."""
    from fastctc.crnn.data import shipped_checkpoints

    with safe_open(shipped_checkpoints()["formula"], framework="pt") as file:
        description = json.loads(file.metadata()["fastctc"]) | {key: value}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, path, {"fastctc": json.dumps(description)})
    return str(path)


@pytest.mark.parametrize("key, value", DESCRIPTIONS)
def test_summary_of_a_damaged_record_shows_the_rest(key, value, tmp_path, capsys):
    path = rewritten(tmp_path / "a.safetensors", key, value)
    status = cli.main(["summary", path])
    out, err = capsys.readouterr()
    assert "\ntotal " in out and "\npreprocess\n" in out and "NaN" not in out and "Infinity" not in out
    if isinstance(value, dict) and not {"exact_match", "recipe"} & set(value):
        assert status == 0
    else:
        assert status == 1 and path in err
        assert ("the training record is damaged" if not isinstance(value, dict) else "not finite") in err
    assert Recognizer.load(path).read(FormulaSource(seed=3)(0)[0]).text  # the record does not matter


@pytest.mark.parametrize("key, value", REFUSED)
def test_summary_of_a_damaged_description_names_the_file(key, value, tmp_path, capsys):
    path = rewritten(tmp_path / "a.safetensors", key, value)
    assert cli.main(["summary", path]) == 2
    assert path in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '"x"', "[" * 100_000])
def test_a_description_that_is_no_object_is_refused(text, tmp_path, capsys):
    path = str(tmp_path / "a.safetensors")
    save_file({"weight": torch.zeros(1)}, path, {"fastctc": text})
    assert cli.main(["summary", path]) == 2
    assert path in capsys.readouterr().err


NFC, NFD = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))


def test_a_missing_file_hints_at_unicode_forms_and_backslashes_in_every_command(folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / NFC)
    shutil.copy(load_checkpoint_path(), tmp_path / f"{NFC}.safetensors")
    other = str(tmp_path / NFD)
    image, checkpoint = f"{other}/000000.png", f"{other}.safetensors"
    for command in (
        ["read", image], ["read", f"{tmp_path}\\{NFC}\\000000.png"], ["read", "--checkpoint", checkpoint, image],
        ["summary", checkpoint], ["export", checkpoint, str(tmp_path / "x.pt2")], ["evaluate", "formula", other],
        ["explore", other, "--out", str(tmp_path / "x")], ["train", "--out", str(tmp_path / "x"), "--data", other],
        ["train", "--out", str(tmp_path / "x"), "--data", str(folder), "--from", checkpoint],
    ):  # fmt: skip
        assert cli.main(command) in (1, 2)
        err = capsys.readouterr().err
        assert "in another Unicode form" in err or "with / instead of \\" in err, (command, err)
    labels = tmp_path / "labels"
    labels.mkdir()
    (labels / "a").mkdir()
    shutil.copy(folder / "000000.png", labels / "a" / "b.png")
    (labels / "labels.tsv").write_text("a\\b.png\t1\n")
    assert cli.main(["evaluate", "formula", str(labels)]) == 1
    assert "written with / instead of \\" in capsys.readouterr().err


def load_checkpoint_path() -> Path:
    from fastctc.crnn.data import shipped_checkpoints

    return shipped_checkpoints()["formula"]


def test_a_recognizer_takes_one_path(folder):
    recognizer = Recognizer.load("formula")
    path = folder / "000000.png"
    one = recognizer.read(str(path))
    assert one == recognizer.read(path) and [one] == recognizer.read([path])
    assert one.text


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_cannot_be_written_is_an_error(folder):
    command = [sys.executable, "-m", "fastctc.cli", "read", str(folder)]
    with open("/dev/full", "w") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr == "fastctc: cannot write the standard output: No space left on device\n"


def test_running_out_of_memory_is_an_error_not_a_traceback(monkeypatch, capsys):
    def fail(*_: object, **__: object) -> None:
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setattr(Image, "open", fail)
    monkeypatch.setattr(Recognizer, "load", fail)
    assert cli.main(["read", "a.png"]) == 2
    assert capsys.readouterr().err == "fastctc: out of memory: Unable to allocate 9 TiB\n"


def test_drawing_options_are_refused_where_images_are_read(folder, tmp_path, capsys):
    for command in (["evaluate", "formula", str(folder)], ["explore", str(folder), "--out", str(tmp_path)]):
        assert cli.main([*command, "--look", "default"]) == 2
        assert "--look is about drawn images, but" in capsys.readouterr().err
