"""How pyctcdecode normalizes labels, with the examples of its tests, and how labels spell words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fastctc.compat.pyctcdecode import Alphabet


@pytest.mark.parametrize(
    ("labels", "expected", "is_bpe"),
    [
        ([" ", "a", "b", ""], [" ", "a", "b", ""], False),
        ([" ", "a", "b"], [" ", "a", "b", ""], False),  # the blank is appended
        (["<pad>", "|", "a"], ["", " ", "a"], False),
        (["[PAD]", "|", " ", "a"], ["", "|", " ", "a"], False),  # there is a space
        (["_", " ", "a"], ["", " ", "a"], False),
        (["_", " ", "a", ""], ["_", " ", "a", ""], False),  # there is a blank
        (["<unk>", " ", "a", "[UNK]x"], ["⁇", " ", "a", "[UNK]x", ""], False),
        (["▁⁇▁", "▁B", "ugs", "▁", "▁bunny", ""], ["▁⁇▁", "▁B", "ugs", "▁", "▁bunny", ""], True),
        (["▁⁇▁", "▁B", "ugs"], ["▁⁇▁", "▁B", "ugs", ""], True),
        (["<unk>", "▁B", "ugs"], ["▁⁇▁", "▁B", "ugs", ""], True),
        (["<unk>", "B", "##ugs", ""], ["▁⁇▁", "▁B", "ugs", ""], True),
        (["B", "##ugs", "▁", "[PAD]", "_"], ["▁B", "ugs", "▁", "", "▁_"], True),
    ],
)
def test_labels(labels: list[str], expected: list[str], is_bpe: bool) -> None:
    before = labels[:]
    alphabet = Alphabet.build_alphabet(labels)
    assert (alphabet.labels, alphabet.is_bpe) == (expected, is_bpe)
    assert labels == before
    loaded = Alphabet.loads(alphabet.dumps())
    assert (loaded.labels, loaded.is_bpe) == (expected, is_bpe)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("abc", "labels must be a sequence of str, got 'abc'"),
        (["a", 1], "labels must be a sequence of str"),
        (["a", "b", "a"], "labels has 'a' more than once"),
        (["▁a", " "], "labels has a label with a space"),
        (["", "<pad>", "a"], "labels has 2 blanks '', expected one"),
    ],
)
def test_errors(labels: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Alphabet.build_alphabet(labels)


def test_json_of_something_else() -> None:
    with pytest.raises(ValueError, match="expected JSON with the keys 'labels' and 'is_bpe'"):
        Alphabet.loads(json.dumps({"labels": ["a"]}))


def test_spellings() -> None:
    letters = Alphabet.build_alphabet(["a", "b", " "])
    assert letters.spellings("abba") == [(0, 1, 1, 0)] and letters.spellings("abc") == []
    pieces = Alphabet.build_alphabet(["▁", "▁ab", "a", "b", "ba"])
    assert pieces.spellings("aba") == [(1, 2), (0, 2, 4), (0, 2, 3, 2)]
    assert len(pieces.spellings("abababababab")) == 8
    assert pieces.spellings("xa") == []


def test_text() -> None:
    letters = Alphabet.build_alphabet(["a", "b", " "])
    assert letters.text([2, 0, 2, 2, 1, 0, 2]) == "a ba"
    pieces = Alphabet.build_alphabet(["▁⁇▁", "▁ab", "a", ""])
    assert pieces.text([2, 1, 2, 0, 1]) == "a aba ⁇ ab"
