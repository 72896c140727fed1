"""The examples in the docstrings do what they say."""

import doctest
import importlib

import pytest

MODULES = [
    "alignment",
    "build",
    "decode",
    "loss",
    "streaming",
    "text",
    "crnn.read.constraint",
    "crnn.formulas.constraint",
    "crnn.read.evaluation",
    "crnn.formulas.grammar",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"fastctc.{name}"))
    assert result.attempted > 0
    assert result.failed == 0
