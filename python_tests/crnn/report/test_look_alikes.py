"""Characters that look alike are reported, and labels that the Unicode form changed."""

import unicodedata
from collections import Counter

import pytest
from PIL import Image

from fastctc import cli
from fastctc.crnn.data import PreprocessConfig, open_source
from fastctc.crnn.report.exploration import explore
from fastctc.crnn.report.look_alikes import look_alikes, named

ALIKE = {
    "Latin and Cyrillic a": "a\u0430",
    "Latin and Greek o": "o\u03bf",
    "Latin, Cyrillic and Greek capitals": "A\u0410\u0391",
    "O and 0": "O0",
    "l, 1 and I": "l1I",
    "dashes": "-\u2013\u2014\u2212",
    "double quotes": '"\u201c\u201d',
    "single quotes": "'\u2019",
    "spaces": " \u00a0\u2009",
    "full width": "A\uff21",
    "micro and mu": "\u00b5\u03bc",
    "an invisible character": "\u200b",
}


@pytest.mark.parametrize("kind", ALIKE)
def test_characters_that_look_alike_are_one_group(kind):
    others = "xyz+89"
    (group,) = look_alikes(Counter(ALIKE[kind] + others))
    assert set(group) == set(ALIKE[kind])


def test_the_most_frequent_comes_first_and_different_ones_are_not_alike():
    assert look_alikes({"0": 1, "O": 5, "a": 3}) == [["O", "0"]]
    assert look_alikes(Counter("abcdefgh23456789+*()=")) == []
    assert named("\u0430", 1200) == "\u0430 U+0430 cyrillic small letter a (1,200)"
    assert named("\u00a0", 1) == "U+00A0 no-break space (1)"


@pytest.fixture
def folder(tmp_path):
    texts = [unicodedata.normalize("NFD", "caf\u00e9"), "caf\u00e9", "\u0430bc", "abc"]
    for number, _ in enumerate(texts):
        Image.new("L", (90, 30), 255).save(tmp_path / f"{number}.png")
    lines = "".join(f"{number}.png\t{text}\n" for number, text in enumerate(texts))
    (tmp_path / "labels.tsv").write_text(lines + "none.png\tx\n", encoding="utf-8")
    return tmp_path


def test_exploring_reports_what_nfc_changed_and_what_looks_alike(folder):
    found = explore(open_source(folder), PreprocessConfig(), lambda width: width // 4)
    assert [str(each) for each in found.changed] == ["0.png: 'caf\u00e9': U+0301 became U+00E9"]
    (alike,) = found.look_alikes
    assert "U+0061 latin small letter a (3), \u0430 U+0430 cyrillic small letter a (1)" in str(alike)
    assert [str(each) for each in found.unreadable] == ["none.png: no such file (labels.tsv, line 5)"]
    words = found.summary()
    assert "changed by the Unicode form: 1" in words["labels"] and "look alike: 1" in words["alphabet"]


def test_the_report_and_the_options(folder, capsys):
    assert cli.main(["explore", str(folder), "--out", str(folder / "look"), "--limit", "3"]) == 1
    page = (folder / "look" / "report.html").read_text(encoding="utf-8")
    assert "Labels that the Unicode form changed" in page and "Characters that look alike" in page
    assert "changed by the Unicode form: 1" in capsys.readouterr().out
    (folder / "labels.tsv").unlink()
    arguments = ["--label-pattern", "(.)", "--unicode-form", "NFKC"]
    assert cli.main(["explore", str(folder), "--out", str(folder / "again"), *arguments]) == 0
    assert cli.main(["evaluate", "formula", str(folder), *arguments]) == 0
    assert "of 4)" in capsys.readouterr().out
