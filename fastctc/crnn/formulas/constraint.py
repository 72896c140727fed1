"""The constraint of formulas: the stated value is right."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from fastctc.crnn.formulas.grammar import all_expressions, evaluate, is_formula


class FormulaConstraint:
    """Allow formulas as in :mod:`fastctc.crnn.formulas.grammar`, without ``=`` or with the right value after it.

    A reader under this constraint never returns a false equation, even where an image shows one.

    >>> FormulaConstraint().candidates(["1+2*3=9", "1+2*3=", "1+2*=7"])
    ['1+2*3', '1+2*3=7']
    >>> len(FormulaConstraint().all_texts())
    54000
    """

    def candidates(self, nbest: Sequence[str], /) -> list[str]:
        """Return the expressions left of ``=``, without and with their values."""
        expressions = dict.fromkeys(text.partition("=")[0] for text in nbest)
        return [text for each in expressions if is_formula(each) for text in _bare_and_valued(each)]

    def all_texts(self) -> tuple[str, ...]:
        """Return the 27,000 expressions, each without and with its value."""
        return _all_texts()


@cache
def _all_texts() -> tuple[str, ...]:
    return tuple(text for each in all_expressions() for text in _bare_and_valued(each))


def _bare_and_valued(expression: str) -> tuple[str, str]:
    return expression, f"{expression}={evaluate(expression)}"
