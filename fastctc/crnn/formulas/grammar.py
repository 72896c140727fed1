"""Formulas: their grammar, how they are sampled, and their values.

A formula is three single digits joined by two of the operators ``+ - *``, with no brackets or with one pair
around its first or last two terms, alone or followed by ``=`` and an integer::

    1+2*3      (1+2)*3      1+(2*3)      4-5*9=-41      (6*8)+3=99

The integer need not be right, since a reader of formulas must read what is drawn.
:func:`holds` tells the two apart.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from itertools import product
from typing import Literal, get_args

CHARACTERS = "0123456789+-*()="
"""Every character a formula may contain, in the order of a model's classes."""

Value = Literal["mixed", "none", "right", "wrong"]
"""What follows the expression: nothing, the right value, a wrong one, or (``mixed``) any of these."""

_DIGITS = "0123456789"
_SIGNS = "+-*"
_OPERATORS: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
}
_SHAPES = ("{}{}{}{}{}", "({}{}{}){}{}", "{}{}({}{}{})")

_FORMULA = re.compile(
    r"""(?P<open1>\()? (?P<a>[0-9]) (?P<first>[-+*]) (?P<open2>\()? (?P<b>[0-9]) (?(open1)\))
        (?P<second>[-+*]) (?P<c>[0-9]) (?(open2)\))
        (?: = (?P<value> 0 | -?[1-9][0-9]* ) )?""",
    re.VERBOSE | re.ASCII,
)

_VALUED_SHARE = 0.5
_RIGHT_SHARE = 0.75

KINDS = {"bare": "no value", "holds": "equation\nholds", "wrong": "wrong\nequation"}
"""The kinds of formulas, and what pictures call them."""


def kind(text: str) -> str | None:
    """Return which of the :data:`KINDS` a formula is; None if ``text`` is no formula.

    >>> [kind(text) for text in ("1+2*3", "1+2*3=7", "1+2*3=9", "1+2")]
    ['bare', 'holds', 'wrong', None]
    """
    match = _parse(text)
    if match is None:
        return None
    if match["value"] is None:
        return "bare"
    return "holds" if int(match["value"]) == evaluate(text) else "wrong"


def is_formula(text: str) -> bool:
    """Return True if ``text`` is a formula as defined at the top of this module.

    The integer after ``=`` is written without leading zeros, without ``+``, and zero has no sign.

    >>> [is_formula(text) for text in ("(1+2)*3", "1+2*3=0", "(1+2*3)", "1+2", "1+2*3=", "1+2*3=-0")]
    [True, True, False, False, False, False]
    """
    return kind(text) is not None


def evaluate(text: str) -> int:
    """Return the value of a formula's expression, whatever follows ``=``.

    Raises:
        ValueError: if ``text`` is not a formula.

    >>> evaluate("4-5*9"), evaluate("(4-5)*9=7")
    (-41, -9)
    """
    match = _parse(text)
    if match is None:
        raise ValueError(f"text must be a formula such as '(1+2)*3' or '1+2*3=7', got {text!r}")
    a, b, c = (int(match[name]) for name in "abc")
    first, second = _OPERATORS[match["first"]], _OPERATORS[match["second"]]
    product_binds_later = match["second"] == "*" and match["first"] != "*" and not match["open1"]
    if match["open2"] or product_binds_later:
        return first(a, second(b, c))
    return second(first(a, b), c)


def holds(text: str) -> bool:
    """Return True if ``text`` is a formula that states the right value.

    >>> holds("1+2*3=7"), holds("1+2*3=9"), holds("1+2*3"), holds("7")
    (True, False, False, False)
    """
    return kind(text) == "holds"


def all_expressions() -> list[str]:
    """Return the 27,000 formulas without ``=``: 3 places of the brackets x 9 operator pairs x 1000 digits."""
    return [
        shape.format(a, first, b, second, c)
        for shape in _SHAPES
        for first, second in product(_SIGNS, repeat=2)
        for a, b, c in product(_DIGITS, repeat=3)
    ]


def random_formula(rng: random.Random, *, value: Value = "mixed") -> str:
    """Draw one formula: every expression is equally likely.

    Args:
        rng: where the random numbers come from; nothing else decides the result.
        value: what follows the expression. ``"none"``: nothing; ``"right"``: ``=`` and its value;
            ``"wrong"``: ``=`` and some other integer; ``"mixed"``: nothing for half of the formulas, the
            right value for three quarters of the others, a wrong one for the rest.

    Raises:
        ValueError: if ``value`` is none of these.

    >>> random_formula(random.Random(0), value="right")
    '(6+4)*7=70'
    """
    if value not in get_args(Value):
        raise ValueError(f"value must be one of {', '.join(map(repr, get_args(Value)))}, got {value!r}")
    shape = rng.choice(_SHAPES)
    expression = shape.format(*(rng.choice(kind) for kind in (_DIGITS, _SIGNS, _DIGITS, _SIGNS, _DIGITS)))
    if value == "mixed":
        value = (
            ("right" if rng.random() < _RIGHT_SHARE else "wrong") if rng.random() < _VALUED_SHARE else "none"
        )
    if value == "none":
        return expression
    right = evaluate(expression)
    return f"{expression}={right if value == 'right' else _wrong_value(right, rng)}"


def _parse(text: str) -> re.Match[str] | None:
    match = _FORMULA.fullmatch(text)
    if match is not None and match["open1"] and match["open2"]:
        return None
    return match


def _wrong_value(right: int, rng: random.Random) -> int:
    """Draw an integer of at most three digits that is not ``right``: near it, or anything of 1-3 digits."""
    while True:
        kind = rng.randrange(4)
        if kind == 0:
            wrong = right + rng.randint(-10, 10)
        elif kind == 1:
            wrong = -right
        elif kind == 2:
            wrong = _with_one_digit_changed(right, rng)
        else:
            wrong = rng.choice((1, 1, -1)) * rng.randrange(10 ** rng.randint(1, 3))
        if wrong != right and abs(wrong) < 1000:
            return wrong


def _with_one_digit_changed(number: int, rng: random.Random) -> int:
    digits = list(str(abs(number)))
    digits[rng.randrange(len(digits))] = rng.choice(_DIGITS)
    return (-1 if number < 0 else 1) * int("".join(digits))
