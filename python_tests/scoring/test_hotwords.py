"""Hotwords against counting of substrings."""

from __future__ import annotations

import math
import random
import re

import pytest
import torch
from automata import quick_score
from torch import Tensor

from fastctc import Alphabet
from fastctc.scoring import AutomatonScorer, hotwords

LETTERS = Alphabet("abc ", blank=2)


def occurrences(phrase: str, text: str, whole_words: bool = False) -> int:
    """Return the number of occurrences, with those that overlap."""
    found = [m.start() for m in re.finditer(f"(?={re.escape(phrase)})", text)]
    if whole_words:
        text = f" {text} "
        found = [at for at in found if text[at] == text[at + 1 + len(phrase)] == " "]
    return len(found)


def random_text(rng: random.Random, longest: int, letters: str = "abc ") -> str:
    return "".join(rng.choices(letters, k=rng.randint(1, longest)))


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("whole_words", [False, True])
def test_scores_are_counts_of_substrings(seed: int, whole_words: bool) -> None:
    """Nested, overlapping and repeated phrases, negative bonuses too; all sums are exact."""
    rng = random.Random(seed)
    bonuses = {random_text(rng, 4): rng.randint(-20, 60) / 8 for _ in range(rng.randint(1, 8))}
    separator = " " if whole_words else None
    for partial_credit in (True, False):
        words = AutomatonScorer(
            hotwords(bonuses, LETTERS, separator=separator, partial_credit=partial_credit)
        )
        for text in ["", *(random_text(rng, 14) for _ in range(8))]:
            counted = sum(bonus * occurrences(phrase, text, whole_words) for phrase, bonus in bonuses.items())
            assert quick_score(words, LETTERS.encode(text)) == counted, (text, bonuses)


def test_bonuses_that_float32_does_not_hold_still_sum_exactly() -> None:
    """The sum over a long text is the count times one number."""
    words = hotwords({"ab": 0.1, "abcabc": 1 / 3}, LETTERS)
    once, twice = words.score(LETTERS.encode("ab")), words.score(LETTERS.encode("abcabc"))
    assert once == pytest.approx(0.1, abs=1e-7)
    assert twice - 2 * once == pytest.approx(1 / 3, abs=1e-7)
    scorer = AutomatonScorer(words)
    assert quick_score(scorer, LETTERS.encode("ab a" * 500)) == 500 * once
    assert quick_score(scorer, LETTERS.encode("abcab" * 100)) == 200 * once


def test_partial_credit_grows_and_is_taken_back() -> None:
    words = hotwords({"abcc": 4.0}, LETTERS)
    state, credits = words.start, []
    for label in LETTERS.encode("abca"):
        (state,), (weight,) = (each.tolist() for each in words.step(*tensors([state], [label])))
        credits.append(weight)
    assert credits == [1.0, 1.0, 1.0, -2.0]  # "abca" ends in a new "a"
    assert float(words.final(tensors([state])[0])) == -1.0


def tensors(*lists: list[int]) -> list[Tensor]:
    return [torch.tensor(each) for each in lists]


def test_labels_instead_of_texts() -> None:
    words = hotwords({(7, 300): 1.0, (300, 300): 0.5}, separator=None)
    assert words.score([7, 300, 300, 300]) == 1.0 + 0.5 + 0.5
    assert hotwords({(7, 8): 1.0}, separator=9).score([9, 7, 8, 9, 7, 8]) == 2.0
    assert hotwords({(7, 8): 1.0}, separator=9).score([7, 7, 8]) == 0.0


def test_no_phrases() -> None:
    assert hotwords({}).score([1, 2, 3]) == 0.0


def test_the_order_of_phrases_does_not_matter() -> None:
    bonuses = {"abc": 1.0, "a b": 0.3, "ba": 0.7}
    scores = [
        hotwords(dict(order), LETTERS).score(LETTERS.encode("abcba ba b"))
        for order in (bonuses.items(), reversed(bonuses.items()))
    ]
    assert scores[0] == scores[1]


def test_ten_thousand_phrases() -> None:
    rng = random.Random(0)
    alphabet = Alphabet("abcdefghijklmnopqrstuvwxyz ")
    phrases = {"".join(rng.choices(alphabet.characters, k=rng.randint(4, 12))) for _ in range(10_000)}
    words = hotwords(dict.fromkeys(phrases, 1.5), alphabet)
    text = "x".join(sorted(phrases)[::500])
    assert quick_score(AutomatonScorer(words), alphabet.encode(text)) == 1.5 * sum(
        occurrences(phrase, text) for phrase in phrases
    )


def test_faults_are_named() -> None:
    with pytest.raises(TypeError, match="bonuses has the text 'ab', expected an alphabet"):
        hotwords({"ab": 1.0})
    with pytest.raises(ValueError, match="bonuses has the phrase '', expected one label or more"):
        hotwords({"": 1.0}, LETTERS)
    with pytest.raises(ValueError, match=r"bonuses has the phrase \(1, -1\), expected one label or more"):
        hotwords({(1, -1): 1.0})
    with pytest.raises(ValueError, match="character 'z' at position 1"):
        hotwords({"az": 1.0}, LETTERS)
    for separator, message in (
        ("ab", "separator is 'ab', expected one character"),
        (-1, "separator has the phrase"),
    ):
        with pytest.raises(ValueError, match=message):
            hotwords({"a": 1.0}, LETTERS, separator=separator)
    for bonus in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match=rf"bonuses\['a'\] is {bonus}, expected a finite number"):
            hotwords({"a": bonus}, LETTERS)
