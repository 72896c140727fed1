"""Measures beside exact match, and the paired test."""

import itertools
import math

import pytest

from fastctc.crnn.read import Evaluation, Outcome, compare, edit_distance, measures


def evaluation(*pairs: tuple[str, str]) -> Evaluation:
    outcomes = [
        Outcome(f"sample {i}", right, read, -0.1, edit_distance(right, read), 0.1)
        for i, (right, read) in enumerate(pairs)
    ]
    return Evaluation(outcomes)


def test_measures_by_hand():
    found = measures(evaluation(("The cat", "the Cat!"), ("a b c", "a x"), ("", ""), ("12", "")))
    assert found.alphanumeric_match == 2 / 4  # the cat, and the empty one
    assert found.word_error_rate == (2 + 2 + 0 + 1) / 6
    # edits of characters: T/t, c/C and ! of 8; b to x, " " and c of 5; none; both of 2
    assert found.normalized_edit_distance == pytest.approx((3 / 8 + 3 / 5 + 0 + 1) / 4)
    assert measures(evaluation()) == (0.0, 0.0, 0.0)


def test_letters_of_all_scripts_count():
    found = measures(evaluation(("STRASSE", "Straße"), ("日本-語", "日本語"), ("АБВ", "абв")))
    assert found.alphanumeric_match == 1


@pytest.mark.parametrize("only_first, only_second", [(0, 0), (1, 0), (3, 3), (2, 9), (0, 12), (15, 4)])
def test_the_paired_test_is_the_sum_over_all_splits(only_first, only_second):
    right, wrong = ("a", "a"), ("a", "b")
    first = [right] * 5 + [right] * only_first + [wrong] * only_second + [wrong] * 2
    second = [right] * 5 + [wrong] * only_first + [right] * only_second + [wrong] * 2
    found = compare(evaluation(*first), evaluation(*second))
    assert found[:4] == (5, only_first, only_second, 2)
    trials = only_first + only_second
    observed = abs(only_first - trials / 2)
    if trials <= 12:
        splits = itertools.product((0, 1), repeat=trials)
        expected = sum(abs(sum(split) - trials / 2) >= observed for split in splits) / 2**trials
    else:
        expected = sum(math.comb(trials, k) for k in range(trials + 1) if abs(k - trials / 2) >= observed)
        expected /= 2**trials
    assert found.p == pytest.approx(expected, rel=1e-9)


def test_only_samples_of_both_are_compared():
    first, second = evaluation(("a", "a"), ("b", "b")), evaluation(("a", "x"), ("other", "other"))
    assert compare(first, second)[:4] == (0, 1, 0, 0)
    with pytest.raises(ValueError, match="no sample in common"):
        compare(first, evaluation(("none", "none")))


def test_many_samples_do_not_overflow():
    pairs = [("a", "a")] * 4000
    assert compare(evaluation(*pairs), evaluation(*[("a", "b")] * 4000)).p < 1e-300
