"""The examples in the docstrings give the results that they show."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import fastctc

PACKAGE = Path(fastctc.__file__).parent
SOURCES = {
    ".".join(("fastctc", *path.relative_to(PACKAGE).with_suffix("").parts)): path.read_text(encoding="utf-8")
    for path in sorted(PACKAGE.rglob("*.py"))
}
MODULES = [name for name, text in SOURCES.items() if ">>> " in text]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    module = importlib.import_module(name)
    found = sum(len(each.examples) for each in doctest.DocTestFinder().find(module))
    assert found == SOURCES[name].count(">>> "), "an example is not found by doctest"
    result = doctest.testmod(module)
    assert result.failed == 0
    assert result.attempted == found, "an example is skipped"


def test_modules_are_found() -> None:
    assert {"fastctc.alignment", "fastctc.loss", "fastctc.reference"} <= set(MODULES)
