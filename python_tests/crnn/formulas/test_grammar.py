"""Formulas: what belongs to the grammar, what each is worth, and what sampling yields."""

import random
from collections import Counter

import pytest

from fastctc.crnn.formulas import CHARACTERS, all_expressions, evaluate, holds, is_formula, random_formula
from fastctc.crnn.formulas import grammar as formulas


def test_all_expressions_are_27000_distinct_formulas():
    expressions = all_expressions()
    assert len(expressions) == len(set(expressions)) == 27_000
    assert all(is_formula(text) for text in expressions)
    assert set("".join(expressions)) == set(CHARACTERS) - {"="}


def test_evaluate_agrees_with_python_on_every_expression():
    assert [evaluate(text) for text in all_expressions()] == [eval(text) for text in all_expressions()]


@pytest.mark.parametrize(
    "text", ["1+2*3", "(1+2)*3", "1+(2*3)", "0-9*9=-81", "9*9*9=729", "1+2*3=0", "1+2*3=1234"]
)
def test_legal_formulas(text):
    assert is_formula(text)


@pytest.mark.parametrize(
    "text",
    ["", "1", "1+2", "1+2+3+4", "12+3*4", "1/2+3", "(1+2*3)", "((1+2)*3)", "(1+(2*3)", "(1+(2)*3)", "1+(2*3",
     "(1+2*3", "1+2)*3", "1(+2*3)", "-1+2*3", "1+2*3=", "1+2*3=-", "1+2*3=+7", "1+2*3=07", "1+2*3=-0",
     "1+2*3=--7", "1+2*3=7=7", "1+2*3=(7)", "=7", "1 + 2*3", "1+2*3\n", "1+2*3=7\n", "1+2*\u0663", "1+2*x"],
)  # fmt: skip
def test_illegal_formulas(text):
    assert not is_formula(text)
    assert not holds(text)
    with pytest.raises(ValueError, match="text must be a formula"):
        evaluate(text)


def test_holds_only_for_the_right_value():
    assert holds("(1+2)*3=9")
    assert holds("4-5*9=-41")
    assert not holds("4-5*9=41")
    assert not holds("(1+2)*3=7")
    assert not holds("(1+2)*3")


@pytest.mark.parametrize("value", ["mixed", "none", "right", "wrong"])
def test_random_formulas_are_formulas_and_repeat_with_the_seed(value):
    texts = [random_formula(random.Random(i), value=value) for i in range(2000)]
    assert texts == [random_formula(random.Random(i), value=value) for i in range(2000)]
    assert all(is_formula(text) for text in texts)
    if value != "mixed":
        assert all(("=" in text) == (value != "none") for text in texts)
    assert set("".join(texts)) >= set(CHARACTERS) - {"="}


def test_right_values_hold_and_wrong_ones_do_not():
    rng = random.Random(1)
    assert all(holds(random_formula(rng, value="right")) for _ in range(2000))
    assert not any(holds(random_formula(rng, value="wrong")) for _ in range(2000))


def test_mixed_is_half_without_value_and_three_quarters_of_the_rest_right():
    rng = random.Random(2)
    texts = [random_formula(rng) for _ in range(20_000)]
    valued = [text for text in texts if "=" in text]
    assert len(valued) / len(texts) == pytest.approx(0.5, abs=0.02)
    assert sum(map(holds, valued)) / len(valued) == pytest.approx(0.75, abs=0.02)


def test_wrong_values_are_diverse():
    rng = random.Random(3)
    texts = [random_formula(rng, value="wrong") for _ in range(5000)]
    wrong = [int(text.partition("=")[2]) for text in texts]
    assert len(set(wrong)) > 500
    assert all(abs(number) < 1000 for number in wrong)
    lengths = Counter(len(str(abs(number))) for number in wrong)
    assert min(lengths[1], lengths[2], lengths[3]) > 500
    assert sum(number < 0 for number in wrong) > 500
    assert sum(abs(number - evaluate(text)) <= 10 for number, text in zip(wrong, texts, strict=True)) > 1000


def test_expressions_are_sampled_evenly():
    rng = random.Random(4)
    texts = [random_formula(rng, value="none") for _ in range(12_000)]
    shapes = Counter("".join("9" if c.isdigit() else c if c in "()" else "+" for c in text) for text in texts)
    assert set(shapes) == {"9+9+9", "(9+9)+9", "9+(9+9)"}
    assert min(shapes.values()) > 3700
    operators = Counter(c for text in texts for c in text if c in "+-*")
    assert min(operators.values()) > 7600


def test_unknown_value_is_an_error():
    with pytest.raises(
        ValueError, match="value must be one of 'mixed', 'none', 'right', 'wrong', got 'some'"
    ):
        random_formula(random.Random(0), value="some")


def test_characters_are_the_sixteen_of_the_grammar():
    assert len(CHARACTERS) == len(set(CHARACTERS)) == 16
    assert formulas.CHARACTERS == "0123456789+-*()="
