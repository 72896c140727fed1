"""Files and functions stay short; a longer one gives its reason.

The reason stands in a comment line: "Long file: ...", or "Long function: ..." directly above the function and its
decorators. The docstring of a function does not count. In C++ only functions outside of classes are measured.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY

LONGEST_FILE = 450  # lines
LONGEST_FUNCTION = 60
CPP_SUFFIXES = {".h", ".cpp", ".cu"}
REASON = r"(#|//).*\bLong {}: *\S+( +\S+){{2}}"


def sources() -> list[Path]:
    folders = ("csrc", "fastctc", "benchmarks", "examples", "python_tests")
    files = (f for folder in folders for f in (REPOSITORY / folder).rglob("*"))
    return sorted(f for f in files if f.suffix in CPP_SUFFIXES | {".py"})


def name(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def gives_reason(text: str, what: str) -> bool:
    return re.search(REASON.format(what), text) is not None


def python_functions(text: str) -> Iterator[tuple[str, int, str]]:
    """Yield the name of each function, its lines without the docstring, and the comment above it."""
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        assert node.end_lineno is not None
        length = node.end_lineno - node.lineno + 1
        first = node.body[0]
        if ast.get_docstring(node) is not None and first.end_lineno is not None:
            length -= first.end_lineno - first.lineno + 1
        above = min([node.lineno, *(each.lineno for each in node.decorator_list)]) - 1
        yield node.name, length, comment_above(lines, above, "#")


def cpp_functions(text: str) -> Iterator[tuple[str, int, str]]:
    """Yield the same for C++. clang-format puts the first and the last line of a function in column 0."""
    lines = text.splitlines()
    for end, line in enumerate(lines):
        if line != "}":
            continue
        start = end - 1
        while not lines[start] or lines[start][0] in " #":  # the body and the rest of the signature
            start -= 1
        above = start - 1 if lines[start - 1].startswith("template") else start
        yield lines[start].removesuffix(" {"), end - start + 1, comment_above(lines, above, "//")


def comment_above(lines: list[str], index: int, mark: str) -> str:
    start = index
    while start > 0 and lines[start - 1].strip().startswith(mark):
        start -= 1
    return "\n".join(lines[start:index])


def too_long(path: Path) -> list[str]:
    """Return the functions of a file that are too long without a reason."""
    functions = python_functions if path.suffix == ".py" else cpp_functions
    return [
        function
        for function, length, comment in functions(path.read_text())
        if length > LONGEST_FUNCTION and not gives_reason(comment, "function")
    ]


@pytest.mark.parametrize("path", sources(), ids=name)
def test_sizes(path: Path) -> None:
    text = path.read_text()
    lines = len(text.splitlines())
    assert lines <= LONGEST_FILE or gives_reason(text, "file"), f"{name(path)} has {lines} lines"
    assert not too_long(path)


def test_long_functions_are_found(tmp_path: Path) -> None:
    def found(suffix: str, *lines: str) -> list[str]:
        path = tmp_path / f"file{suffix}"
        path.write_text("\n".join(lines) + "\n")
        return too_long(path)

    body = ["    x = 1"] * LONGEST_FUNCTION
    docstring = ['    """Do it.', *["    More."] * 90, '    """']
    reason = "# Long function: one table of cases."
    assert found(".py", "@cached", "def run(x):", *docstring, *body) == ["run"]
    assert found(".py", "def run(x):", *docstring, *body[1:]) == []
    assert found(".py", "class Long:", *[f"    {line}" for line in ("def run(x):", *body)]) == ["run"]
    assert found(".py", reason, "# It is read from top to bottom.", "@cached", "def run(x):", *body) == []
    assert found(".py", "# Long function: yes", "def run(x):", *body) == ["run"]
    assert found(".py", reason, "", "def run(x):", *body) == ["run"]
    for above in (["template <typename T>"], []):
        assert found(".cpp", *above, "void run(int a,", "         int b) {", *body, "}") == [
            "void run(int a,"
        ]
        assert found(".cpp", f"//{reason[1:]}", *above, "void run() {", *body, "}") == []
    assert found(".cpp", "namespace a {", "void run() {", *body[2:], "}", *body, "}  // namespace a") == []
