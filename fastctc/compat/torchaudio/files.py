"""The files of torchaudio's decoders: lists of tokens, lexicons and dictionaries."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from fastctc.errors import ArgumentTypeError, ArgumentValueError

__all__ = ["TokenList", "read_lexicon", "read_words"]

Path = str | os.PathLike[str]


class TokenList:
    """The names of the classes in order. A class may have several names.

    Args:
        tokens: a list of names, or a file with a line for each class. Names in one line are of one class.
    """

    def __init__(self, tokens: Path | Sequence[str]) -> None:
        if isinstance(tokens, (str, os.PathLike)):
            lines = [names for _, names in _fields(tokens)]
        else:
            lines = [[_encoded(token, f"tokens[{i}]")] for i, token in enumerate(tokens)]
        if not lines:
            raise ArgumentValueError("tokens is empty, expected the name of each class")
        self.names = [names[0].decode() for names in lines]
        self._class_of: dict[bytes, int] = {}
        for number, names in enumerate(lines):
            for name in names:
                if name in self._class_of:
                    raise ArgumentValueError(
                        f"tokens has {name.decode()!r} for class {self._class_of[name]} and for class {number},"
                        " expected different names"
                    )
                self._class_of[name] = number

    def __len__(self) -> int:
        return len(self.names)

    def class_of(self, token: str, argument: str) -> int:
        """Return the class of a token; ``argument`` is the name of the option."""
        number = self._class_of.get(_encoded(token, argument))
        if number is None:
            raise ArgumentValueError(f"{argument} is {token!r}, expected one of the {len(self)} tokens")
        return number

    def classes_of(self, names: list[bytes], where: str) -> list[int]:
        """Return the classes of a spelling."""
        try:
            return [self._class_of[name] for name in names]
        except KeyError as error:
            name = error.args[0].decode(errors="replace")
            raise ArgumentValueError(f"{where}: expected names of tokens, got {name!r}") from None


def read_lexicon(path: Path, tokens: TokenList) -> Iterator[tuple[str, list[int]]]:
    """Yield the word and the classes of each line.

    Raises:
        ValueError: a line has no token, or one that is not in ``tokens``; the message names the line.
    """
    for where, (word, *names) in _fields(path):
        if not names:
            raise ArgumentValueError(f"{where}: expected a word and its tokens, got {word.decode()!r} alone")
        yield word.decode(), tokens.classes_of(names, where)


def read_words(path: Path) -> list[str]:
    """Return the words of a file with a word in each line."""
    return [word.decode() for _, fields in _fields(path) for word in fields]


def _fields(path: Path) -> Iterator[tuple[str, list[bytes]]]:
    """Yield the place and the fields of each line that is not blank. ASCII blanks alone separate fields."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            fields = line.split()
            if fields:
                yield f"{os.fspath(path)}, line {number}", fields


def _encoded(token: object, argument: str) -> bytes:
    if not isinstance(token, str):
        raise ArgumentTypeError(f"{argument} must be a str, got {type(token).__name__}")
    return token.encode()
