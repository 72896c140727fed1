"""The syntax of regular expressions: from a pattern to a tree over sets of symbols."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NoReturn

__all__ = ["Choice", "Repeat", "Series", "Symbols", "Tree", "parse"]

DEEPEST = 100  # groups in groups
LARGEST_COUNT = 100_000

QUANTIFIER = re.compile(r"[*+?]|\{(?:\d+(?:,\d*)?|,\d*)\}")
CLASS = re.compile(r"\[\^?\]?(?:[^\]\\]|\\.)*\]", re.DOTALL)
ESCAPE = re.compile(
    r"\\(?:[dDwWsSafnrtv]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[^0-9a-zA-Z])", re.DOTALL
)
NAME = re.compile(r"(?:[^\s()\[\]{}|*+?.\\^$]|\\.)+", re.DOTALL)


@dataclass(frozen=True)
class Symbols:
    """One symbol of a set, given by their numbers."""

    numbers: frozenset[int]


@dataclass(frozen=True)
class Series:
    """All parts, one after the other."""

    parts: tuple[Tree, ...]


@dataclass(frozen=True)
class Choice:
    """One of the parts."""

    parts: tuple[Tree, ...]


@dataclass(frozen=True)
class Repeat:
    """The part ``least`` to ``most`` times; None: without end."""

    part: Tree
    least: int
    most: int | None


Tree = Symbols | Series | Choice | Repeat


def parse(pattern: str, symbols: Sequence[str], *, by_character: bool) -> Tree:
    """Return the tree of a pattern over the symbols; ValueError gives the position of what is wrong."""
    return _Parser(pattern, symbols, by_character).parse()


class _Parser:
    def __init__(self, pattern: str, symbols: Sequence[str], by_character: bool) -> None:
        self.pattern, self.symbols, self.by_character = pattern, symbols, by_character
        self.at = self.depth = 0

    @cached_property
    def number(self) -> dict[str, int]:
        return {symbol: i for i, symbol in enumerate(self.symbols)}

    def fail(self, problem: str) -> NoReturn:
        raise ValueError(f"pattern {self.pattern!r} at position {self.at}: {problem}")

    @property
    def next(self) -> str:
        return self.pattern[self.at : self.at + 1]

    def skip_blanks(self) -> None:
        while not self.by_character and self.next.isspace():
            self.at += 1

    def parse(self) -> Tree:
        tree = self.choice()
        if self.next:
            self.fail("a ) without its (")
        return tree

    def choice(self) -> Tree:
        parts = [self.series()]
        while self.next == "|":
            self.at += 1
            parts.append(self.series())
        return parts[0] if len(parts) == 1 else Choice(tuple(parts))

    def series(self) -> Tree:
        parts = []
        self.skip_blanks()
        while self.next not in ("", "|", ")"):
            parts.append(self.repeat())
            self.skip_blanks()
        return Series(tuple(parts))

    def repeat(self) -> Tree:
        part = self.element()
        self.skip_blanks()
        found = QUANTIFIER.match(self.pattern, self.at)
        if not found:
            return part
        self.at = found.end()
        least, most = _counts(found.group())
        if max(least, most or 0) > LARGEST_COUNT or (most is not None and least > most):
            self.at = found.start()
            self.fail(f"{found.group()} is no range of counts up to {LARGEST_COUNT}")
        if QUANTIFIER.match(self.pattern, self.at):
            self.fail(
                f"{self.next} after {found.group()}; lazy, possessive and repeated quantifiers are not supported"
            )
        return Repeat(part, least, most)

    def element(self) -> Tree:
        if self.next == "(":
            return self.group()
        if self.next == "[":
            return Symbols(self.members())
        if self.next in ("*", "+", "?"):
            self.fail(f"{self.next} with nothing before it to repeat")
        if self.next in ("^", "$"):
            self.fail(f"the anchor {self.next} is not supported; the whole text is matched")
        if self.by_character:
            return Symbols(self.matched(self.character()))
        if self.next == ".":
            self.at += 1
            return Symbols(frozenset(range(len(self.symbols))))
        return Symbols(frozenset([self.named()]))

    def group(self) -> Tree:
        start = self.at
        self.at += 1
        if self.pattern.startswith("?", self.at):
            if not self.pattern.startswith("?:", self.at):
                self.fail("a group that begins with (? is only supported as (?:...)")
            self.at += 2
        self.depth += 1
        if self.depth > DEEPEST:
            self.fail(f"more than {DEEPEST} groups in groups")
        tree = self.choice()
        if self.next != ")":
            self.at = start
            self.fail("a ( without its )")
        self.depth -= 1
        self.at += 1
        return tree

    def character(self) -> str:
        """Return the text of one element that Python's ``re`` understands: a character, an escape or a dot."""
        if self.next != "\\":
            self.at += 1
            text = self.pattern[self.at - 1]
            return text if text == "." else re.escape(text)
        found = ESCAPE.match(self.pattern, self.at)
        if not found:
            self.fail(f"the escape {self.pattern[self.at : self.at + 2]} is not supported")
        self.at = found.end()
        return found.group()

    def members(self) -> frozenset[int]:
        found = CLASS.match(self.pattern, self.at)
        if not found:
            self.fail("a [ without its ]")
        if self.by_character:
            chosen = self.matched(found.group())
            self.at = found.end()
            return chosen
        self.at += 1
        excludes = self.next == "^"
        self.at += excludes
        named: set[int] = set()
        self.skip_blanks()
        while self.next != "]":
            named.add(self.named())
            self.skip_blanks()
        self.at += 1
        return frozenset(set(range(len(self.symbols))) - named if excludes else named)

    def matched(self, element: str) -> frozenset[int]:
        """Return the symbols that an element of Python's ``re`` matches."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # of sets in sets, which are not there yet
                compiled = re.compile(element)
        except re.error as error:
            self.fail(f"{element}: {error}")
        return frozenset(i for i, symbol in enumerate(self.symbols) if compiled.fullmatch(symbol))

    def named(self) -> int:
        """Return the number of the token whose name comes next."""
        found = NAME.match(self.pattern, self.at)
        if not found:
            self.fail(f"expected the name of a token, got {self.next!r}")
        name = re.sub(r"\\(.)", r"\1", found.group(), flags=re.DOTALL)
        if name not in self.number:
            self.fail(f"there is no token {name!r}")
        self.at = found.end()
        return self.number[name]


def _counts(quantifier: str) -> tuple[int, int | None]:
    if quantifier in ("*", "+", "?"):
        return int(quantifier == "+"), 1 if quantifier == "?" else None
    least, comma, most = quantifier[1:-1].partition(",")
    if not comma:
        return int(least), int(least)
    return int(least or 0), int(most) if most else None
