"""Alphabets, and the spans of characters and words."""

import math

import pytest

from fastctc import TokenSpan
from fastctc.text import Alphabet, TextSpan, character_spans, word_spans


@pytest.mark.parametrize("blank", [0, 1, 2, 3])
def test_classes_are_the_characters_in_order_around_the_blank(blank):
    alphabet = Alphabet("abc", blank=blank)
    classes = alphabet.encode("abc")
    assert classes == [c for c in range(4) if c != blank]
    assert alphabet.decode(classes) == "abc"
    assert alphabet.num_classes == 4


def test_any_unicode_goes_there_and_back():
    alphabet = Alphabet("äß中😀 -")
    assert alphabet.decode(alphabet.encode("😀ß 中-ä")) == "😀ß 中-ä"
    assert alphabet.encode("") == [] and alphabet.decode([]) == ""


def test_equality_and_repr():
    assert Alphabet("ab") == Alphabet("ab") != Alphabet("ab", blank=2)
    assert Alphabet("ab") != "ab"
    assert len({Alphabet("ab"), Alphabet("ab"), Alphabet("ba")}) == 2
    assert repr(Alphabet("ab", 1)) == "Alphabet('ab', blank=1)"


def test_errors_name_the_offender():
    with pytest.raises(ValueError, match="characters is empty"):
        Alphabet("")
    with pytest.raises(ValueError, match="'a' twice, the second time at position 2"):
        Alphabet("aba")
    with pytest.raises(ValueError, match="blank is 3, expected 0 to 2"):
        Alphabet("ab", blank=3)
    with pytest.raises(ValueError, match="blank is -1"):
        Alphabet("ab", blank=-1)
    with pytest.raises(ValueError, match="'x' at position 1 of 'axb' is not in the alphabet 'ab'"):
        Alphabet("ab").encode("axb")
    with pytest.raises(ValueError, match=r"tokens\[1\] is 0, the blank"):
        Alphabet("ab").decode([1, 0])
    with pytest.raises(ValueError, match=r"tokens\[0\] is 7, not one of the 3 classes"):
        Alphabet("ab").decode([7])


def test_characters_with_where_and_how_sure():
    spans = [TokenSpan(2, 3, 5, math.log(0.5)), TokenSpan(9, 5, 6, 0.0), TokenSpan(1, 8, 9, -math.inf)]
    assert character_spans(spans, Alphabet("ab"), scale=0.5, star=9) == [
        TextSpan("b", 1.5, 2.5, pytest.approx(0.5)),
        TextSpan("*", 2.5, 3.0, 1.0),
        TextSpan("a", 4.0, 4.5, 0.0),
    ]
    with pytest.raises(ValueError, match="9, not one of the 3 classes"):
        character_spans(spans, Alphabet("ab"))
    assert character_spans([], Alphabet("ab")) == []


def test_words_weigh_their_frames():
    alphabet = Alphabet("ab|")
    spans = [
        TokenSpan(token, start, end, score)
        for token, start, end, score in [
            (3, 0, 1, -9.0), (1, 1, 2, -4.0), (2, 2, 5, 0.0), (3, 5, 6, -9.0), (3, 7, 8, -9.0), (2, 8, 9, -1.0)
        ]
    ]  # fmt: skip
    assert word_spans(spans, alphabet, scale=2, separator="|") == [
        TextSpan("ab", 2, 10, pytest.approx(math.exp(-1.0))),
        TextSpan("b", 16, 18, pytest.approx(math.exp(-1.0))),
    ]
    whole = word_spans(spans, alphabet)
    assert [span.text for span in whole] == ["|ab||b"]
    assert word_spans([], alphabet) == []
