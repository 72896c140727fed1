"""The options of `fastctc read` and `fastctc evaluate` for what is known about the texts."""

from __future__ import annotations

import gzip
import json
import math
import re
from pathlib import Path

import pytest

from fastctc import cli
from fastctc.crnn import Recognizer, write_folder
from fastctc.crnn.formulas import FormulaSource
from fastctc.crnn.read import confidence_of
from fastctc.scoring import hotwords

Lines = list[list[str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("knowledge") / "data"
    write_folder(FormulaSource(renderer="captcha", seed=3), path, 6)
    return path


@pytest.fixture(scope="module")
def texts(folder: Path) -> list[str]:
    return [line.split("\t")[1] for line in (folder / "labels.tsv").read_text().splitlines()]


def read(capsys: pytest.CaptureFixture[str], *options: object) -> Lines:
    assert cli.main(["read", *map(str, options)]) == 0
    return [line.split("\t") for line in capsys.readouterr().out.splitlines()]


def test_a_regular_expression_is_a_constraint(folder, texts, capsys):
    pattern = r"\d-.*"
    lines = read(capsys, folder, "--constraint", pattern, "--nbest", 3)
    assert {path for path, _, _ in lines} == {str(each) for each in folder.glob("*.png")}
    assert all(re.fullmatch(pattern, text) for _, text, _ in lines)
    best = dict(reversed([(path, text) for path, text, _ in lines]))
    for path, text in zip(sorted(folder.glob("*.png")), texts):
        assert best[str(path)] == text or not re.fullmatch(pattern, text)


def test_a_name_goes_before_a_regular_expression(folder, capsys):
    assert read(capsys, folder, "--constraint", "formula") == read(capsys, folder)


def test_a_lexicon_allows_its_texts(folder, texts, tmp_path, capsys):
    (tmp_path / "words.txt").write_text("\n".join(texts[1:]))
    found = [text for _, text in read(capsys, folder, "--lexicon", tmp_path / "words.txt")]
    assert found[1:] == texts[1:] and found[0] in ["", *texts[1:]]


ARPA = "\\data\\\nngram 1=4\n\n\\1-grams:\n-99\t<s>\n-1\t</s>\n-5\t<unk>\n-0.5\t{}\n\n\\end\\\n"


def test_a_model_of_words_and_its_weights(folder, texts, tmp_path, capsys):
    (tmp_path / "words.txt").write_text("\n".join(texts))
    (tmp_path / "lm.arpa").write_text(ARPA.format(texts[0]))
    (tmp_path / "lm.arpa.gz").write_bytes(gzip.compress(ARPA.format(texts[0]).encode()))
    for name in ("lm.arpa", "lm.arpa.gz"):
        options = ["--lexicon", tmp_path / "words.txt", "--lm", tmp_path / name]
        options += ["--lm-weight", 0.5, "--word-bonus", 2, "--json"]
        assert cli.main(["read", *map(str, [*options, folder / "000000.png", folder / "000001.png"])]) == 0
        readings = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        for reading, text, weight in zip(readings, texts, (-0.5 - 1, -5 - 1)):
            (best,) = reading["nbest"]
            assert reading["text"] == best["text"] == text
            assert best["model_score"] == pytest.approx(0.5 * weight * math.log(10) + 2, abs=1e-5)
            assert reading["score"] == best["log_prob"] + best["model_score"] and best["log_prob"] <= 0


def test_a_model_of_characters(folder, tmp_path, capsys):
    (tmp_path / "lm.arpa").write_text(ARPA.format("7"))
    image = str(folder / "000000.png")
    assert cli.main(["read", "--json", "--lm", str(tmp_path / "lm.arpa"), image]) == 0
    reading = json.loads(capsys.readouterr().out)
    text, sevens = reading["text"], reading["text"].count("7")
    weight = -0.5 * sevens - 5 * (len(text) - sevens) - 1
    assert reading["nbest"][0]["model_score"] == pytest.approx(weight * math.log(10), abs=1e-4)


def test_hotwords_are_what_python_makes_of_them(folder, tmp_path, capsys):
    (tmp_path / "hot.txt").write_text("1+ 4\n7\n")
    assert (
        cli.main(["read", "--json", "--nbest", "3", "--hotwords", str(tmp_path / "hot.txt"), str(folder)])
        == 0
    )
    readings = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    recognizer = Recognizer.load("formula")
    scorer = hotwords({"1+": 4.0, "7": 5.0}, recognizer.alphabet)
    expected = recognizer.read(sorted(folder.glob("*.png")), nbest=3, scorer=scorer)
    for found, wanted in zip(readings, expected, strict=True):
        assert found["score"] == wanted.score == wanted.nbest[0].score
        assert [each["text"] for each in found["nbest"]] == [each.text for each in wanted.nbest]
        assert [each["model_score"] for each in found["nbest"]] == [
            4.0 * each.text.count("1+") + 5.0 * each.text.count("7") for each in wanted.nbest
        ]
        assert wanted.confidence == confidence_of(wanted.nbest[0].log_prob, recognizer.checkpoint.temperature)


def test_the_options_combine(folder, texts, tmp_path, capsys):
    (tmp_path / "words.txt").write_text("\n".join(["1+1", *texts]))
    (tmp_path / "hot.txt").write_text("1+1 900\n")
    options = ["--lexicon", tmp_path / "words.txt", "--hotwords", tmp_path / "hot.txt"]
    assert {text for _, text in read(capsys, folder, *options)} == {"1+1"}
    found = [text for _, text in read(capsys, folder, *options, "--constraint", "formula")]
    assert "1+1" not in found and len(set(found) & set(texts)) >= 3


def test_evaluate_has_the_same_options(folder, texts, tmp_path, capsys):
    (tmp_path / "words.txt").write_text("\n".join(texts[3:]))
    command = ["evaluate", "formula", str(folder), "--json", "--workers", "0"]
    for options in (
        ["--lexicon", str(tmp_path / "words.txt")],
        ["--constraint", "|".join(map(re.escape, texts[3:]))],
    ):
        assert cli.main([*command, *options]) == 0
        assert json.loads(capsys.readouterr().out)["exact_match"] == 0.5


@pytest.mark.parametrize(
    "options, message",
    [
        (
            ["--constraint", "formla"],
            "--constraint is none of formula, and as a regular expression: pattern 'formla'",
        ),
        (
            ["--constraint", "(1"],
            "--constraint is none of formula, and as a regular expression: pattern '(1' at",
        ),
        (["--lm-weight", "2"], "--lm-weight is given without --lm"),
        (["--word-bonus", "2"], "--word-bonus is given without --lexicon"),
        (["--lexicon", "none.txt"], "none.txt: no such file"),
        (["--hotwords", "none.txt"], "none.txt: no such file"),
        (["--lm", "none.txt"], "none.txt: no such file"),
        (
            ["--lexicon", "bad.txt"],
            "bad.txt, line 2: character 'x' at position 1 of '1x' is not in the alphabet",
        ),
        (["--hotwords", "bad.txt"], "bad.txt, line 2: character 'x' at position 1 of '1x'"),
        (["--lm", "bad.txt"], "bad.txt, line "),
        (["--constraint", r"\d+", "--nbest", "21"], "nbest is 21, expected 1 to beam_size, which is 20"),
    ],
)
def test_errors_name_the_option_or_the_file_and_the_line(
    options, message, folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("bad.txt").write_text("1+1\n1x\n")
    for command in (["read", str(folder)], ["evaluate", "formula", str(folder), "--workers", "0"]):
        if command[0] == "evaluate" and "--nbest" in options:
            continue
        assert cli.main([*command, *options]) == 2
        assert message in capsys.readouterr().err


def test_a_model_of_characters_from_texts_and_labels(folder, texts, tmp_path, capsys):
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n\n")
    for out, source in (("a.arpa.gz", tmp_path / "texts.txt"), ("b.arpa", folder)):
        assert cli.main(["lm", str(tmp_path / out), str(source), "--order", "6"]) == 0
        assert capsys.readouterr().out.startswith(f"{len(texts)} texts, {tmp_path / out} has ")
    assert gzip.decompress((tmp_path / "a.arpa.gz").read_bytes()) == (tmp_path / "b.arpa").read_bytes()
    lines = read(capsys, folder, "--lm", tmp_path / "a.arpa.gz", "--json")
    assert [json.loads(line[0])["text"] for line in lines] == texts
    assert all(json.loads(line[0])["nbest"][0]["model_score"] < 0 for line in lines)


def test_a_model_of_characters_without_texts_is_of_drawn_ones(tmp_path, capsys):
    pytest.importorskip("wordfreq")
    first, second = tmp_path / "a.arpa", tmp_path / "b.arpa"
    for path in (first, second):
        assert cli.main(["lm", str(path), "--count", "300", "--order", "3", "--min-count", "2"]) == 0
    assert first.read_bytes() == second.read_bytes()


def test_texts_that_cannot_be_read(tmp_path, capsys):
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    (tmp_path / "empty.txt").write_text("\n")
    for name, message in (
        ("none.txt", "none.txt: no such file"),
        ("latin.txt", "latin.txt is not in UTF-8"),
        ("empty.txt", "texts is empty, expected at least one text"),
    ):
        assert cli.main(["lm", str(tmp_path / "lm.arpa"), str(tmp_path / name)]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "lm.arpa").exists()


def test_the_model_of_language_of_words(folder, tmp_path, capsys):
    read_with = [json.loads(line[0]) for line in read(capsys, folder, "--checkpoint", "words", "--json")]
    without = [
        json.loads(line[0])
        for line in read(capsys, folder, "--checkpoint", "words", "--lm", "none", "--json")
    ]
    assert all("model_score" in each["nbest"][0] for each in read_with)
    assert all("model_score" not in each["nbest"][0] for each in without)
    greedy = Recognizer.load("words").read(sorted(folder.glob("*.png")), scorer=())
    assert [each["text"] for each in without] == [each.text for each in greedy]
    out = tmp_path / "texts.jsonl"
    assert read(capsys, folder, "--checkpoint", "words", "--output", out) == []
    assert [json.loads(line)["text"] for line in out.read_text().splitlines()] == [
        each["text"] for each in read_with
    ]
