"""Alphabets, and the spans of characters and words."""

import math

import numpy as np
import pytest
import torch

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


@pytest.mark.parametrize("pieces", [["ab", "c"], ["a", "▁b"], ["a", ""]])
def test_an_alphabet_refuses_pieces_of_several_characters(pieces):
    wrong = next(i for i, piece in enumerate(pieces) if len(piece) != 1)
    with pytest.raises(ValueError, match=rf"characters\[{wrong}\] is '.*', expected one character; .* list"):
        Alphabet(pieces)


def test_an_alphabet_takes_a_sequence_of_characters():
    assert Alphabet(["a", "b"]) == Alphabet(("a", "b")) == Alphabet("ab")
    assert Alphabet(list("ab")).characters == "ab" and hash(Alphabet(["a", "b"])) == hash(Alphabet("ab"))
    assert Alphabet(["a", "b"]).encode("ba") == [2, 1]
    with pytest.raises(TypeError, match=r"characters\[0\] must be a str, got int"):
        Alphabet(b"ab")


def test_an_alphabet_takes_integers_of_any_kind():
    for blank in (np.int64(1), torch.tensor(1)):
        assert Alphabet("ab", blank=blank) == Alphabet("ab", 1)
    assert type(Alphabet("ab", np.uint8(1)).blank) is int
    assert (
        Alphabet("ab").decode([np.int32(1), torch.tensor(2)])
        == Alphabet("ab").decode(torch.tensor([1, 2]))
        == "ab"
    )
    with pytest.raises(TypeError, match=r"blank must be an integer, got float"):
        Alphabet("ab", 1.0)
    with pytest.raises(TypeError, match=r"tokens\[1\] must be an integer, got float"):
        Alphabet("ab").decode([1, 1.5])


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
    whole = word_spans(spans, alphabet, separator=" ")
    assert [span.text for span in whole] == ["|ab||b"]
    assert word_spans([], alphabet) == []


def spelled(pieces, vocabulary, **options):
    """Return the words of pieces of a vocabulary, a frame for each, as (text, start, end)."""
    spans = [TokenSpan(vocabulary.index(piece), t, t + 1, -1.0) for t, piece in enumerate(pieces)]
    found = word_spans(spans, vocabulary, **options)
    assert all(span.confidence == pytest.approx(math.exp(-1)) for span in found)
    return [(span.text, span.start, span.end) for span in found]


SENTENCE_PIECES = ["<blank>", "▁the", "▁cat", "s", "▁", "▁▁a", "'"]
WORD_PIECES = ["[PAD]", "the", "cat", "##s", "##'", "[UNK]", "#"]
BYTE_PIECES = ["<pad>", "Ġthe", "cat", "s", "Ċ"]
LETTERS = ["-", "a", "b", "|", "c|"]


def test_words_of_sentence_pieces():
    assert spelled(["▁the", "▁cat", "s"], SENTENCE_PIECES) == [("the", 0, 1), ("cats", 1, 3)]
    assert spelled(["s", "▁", "s", "'", "▁▁a"], SENTENCE_PIECES) == [("s", 0, 1), ("s'", 2, 4), ("a", 4, 5)]
    assert spelled(["▁", "▁"], SENTENCE_PIECES) == []
    assert spelled(["▁the", "s"], tuple(SENTENCE_PIECES), separator="▁") == [("thes", 0, 2)]


def test_words_of_word_pieces():
    assert spelled(["the", "cat", "##s", "##'"], WORD_PIECES) == [("the", 0, 1), ("cats'", 1, 4)]
    assert spelled(["##s", "#", "[UNK]"], WORD_PIECES) == [("s", 0, 1), ("#", 1, 2), ("[UNK]", 2, 3)]
    assert spelled(["the", "##s"], WORD_PIECES, separator=" ") == [("the##s", 0, 2)]


def test_words_between_separators_alone_or_at_the_ends_of_pieces():
    assert spelled(["a", "|", "|", "b", "c|", "a"], LETTERS, separator="|") == [
        ("a", 0, 1), ("bc", 3, 5), ("a", 5, 6)
    ]  # fmt: skip
    assert spelled(["Ġthe", "s", "Ġthe", "cat"], BYTE_PIECES, separator="Ġ") == [
        ("thes", 0, 2),
        ("thecat", 2, 4),
    ]
    assert spelled(["a", "b"], LETTERS) == [("ab", 0, 2)]
    with pytest.raises(ValueError, match="separator is '', expected at least one character"):
        spelled(["a"], LETTERS, separator="")


def test_words_with_a_star():
    spans = [TokenSpan(1, 0, 1, 0.0), TokenSpan(7, 1, 3, 0.0), TokenSpan(2, 3, 4, 0.0)]
    assert [span.text for span in word_spans(spans, SENTENCE_PIECES, star=7)] == ["the*", "cat"]
    assert [span.text for span in word_spans(spans, WORD_PIECES, star=7)] == ["the", "*", "cat"]


def test_characters_of_a_vocabulary():
    spans = [TokenSpan(2, 3, 5, math.log(0.5)), TokenSpan(9, 5, 6, 1e-7)]
    assert character_spans(spans, SENTENCE_PIECES, star=9) == [
        TextSpan("▁cat", 3, 5, pytest.approx(0.5)), TextSpan("*", 5, 6, 1.0)
    ]  # fmt: skip
    for spans_of in (character_spans, word_spans):
        with pytest.raises(ValueError, match="there is a token 9, but alphabet has only 7 strings"):
            spans_of(spans, SENTENCE_PIECES)
