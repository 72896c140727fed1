"""Right-to-left scripts: characters in the order that a line shows them, from left to right.

A network reads the columns of an image from left to right, so its targets are in visual order. Texts are in logical
order, in which they are typed. The Unicode bidirectional algorithm (UAX #9) gives the visual order; the package
``python-bidi`` implements it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from itertools import combinations, groupby, product
from typing import Literal, SupportsIndex

from fastctc.text import Alphabet

Direction = Literal["rtl", "ltr"]

_RIGHT_TO_LEFT = ("R", "AL")
_LEFT_TO_RIGHT = ("L", "EN", "AN")
_SEPARATORS = ("ES", "ET", "CS", "ON", "WS")  # what may join numbers


class VisualAlphabet(Alphabet):
    """An alphabet whose tokens are in visual order, and whose texts are in logical order.

    :meth:`encode` and :meth:`decode` reorder. The width of a text does not change, but brackets may be mirrored.

    Args:
        characters: the characters, each once.
        blank: class of the blank.
        direction: of lines: where a line begins, and which side neutral characters take.

    Raises:
        ModuleNotFoundError: the package ``python-bidi`` is missing.
        ValueError: as :class:`fastctc.Alphabet`.
    """

    def __init__(self, characters: str, blank: int = 0, *, direction: Direction = "rtl") -> None:
        super().__init__(characters, blank)
        self.direction: Direction = direction
        to_visual("", direction)  # fails here where the package is missing

    def encode(self, text: str) -> list[int]:
        """Return the classes of a text's characters, in visual order."""
        super().encode(text)  # names a character that has no class by its place in the text
        return super().encode(to_visual(text, self.direction))

    def decode(self, tokens: Iterable[SupportsIndex]) -> str:
        """Return the text, in logical order, of classes in visual order."""
        return to_logical(super().decode(tokens), self.direction)

    def __eq__(self, other: object) -> bool:
        same_direction = isinstance(other, VisualAlphabet) and other.direction == self.direction
        return same_direction and bool(super().__eq__(other))

    def __hash__(self) -> int:
        return hash((self.characters, self.blank, self.direction))

    def __repr__(self) -> str:
        return f"VisualAlphabet({self.characters!r}, blank={self.blank}, direction={self.direction!r})"


def make_alphabet(characters: str, blank: int = 0, direction: Direction | None = None) -> Alphabet:
    """Return an alphabet; of a direction, one whose tokens are in visual order."""
    if direction is None:
        return Alphabet(characters, blank)
    return VisualAlphabet(characters, blank, direction=direction)


def direction_of(alphabet: Alphabet) -> Direction | None:
    """Return the direction of an alphabet; None if its tokens are in the order of its texts."""
    return alphabet.direction if isinstance(alphabet, VisualAlphabet) else None


def direction_for(texts: Iterable[str], wanted: Literal["auto", "rtl", "ltr", "stored"]) -> Direction | None:
    """Return the direction of lines that show texts.

    Args:
        texts: labels in logical order.
        wanted: the direction; ``"auto"``: the direction of most strong characters, None without right-to-left ones;
            ``"stored"``: None.
    """
    if wanted != "auto":
        return None if wanted == "stored" else wanted
    kinds = [unicodedata.bidirectional(character) for text in texts for character in text]
    right_to_left = sum(kind in _RIGHT_TO_LEFT for kind in kinds)
    if right_to_left == 0:
        return None
    return "rtl" if 2 * right_to_left >= right_to_left + kinds.count("L") else "ltr"


def with_mirrored(characters: str) -> str:
    """Return characters, followed by the mirror images of brackets among them that are missing."""
    mirrors = "".join(map(_turned, characters))
    return characters + "".join(dict.fromkeys(c for c in mirrors if c not in characters))


def to_visual(text: str, direction: Direction) -> str:
    """Return a text of logical order in visual order, brackets mirrored where they stand right to left.

    Raises:
        ModuleNotFoundError: the package ``python-bidi`` is missing.
    """
    try:
        from bidi.algorithm import get_display
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "right-to-left text needs the package python-bidi: pip install fastctc[bidi]"
        ) from error
    return str(get_display(text, base_dir="R" if direction == "rtl" else "L")) if text else ""


def to_logical(text: str, direction: Direction) -> str:
    """Return a text of visual order in logical order.

    The algorithm has no inverse. So several candidates are tried, and the first one whose visual order is ``text``
    is returned. If there is none, it is the first candidate. In a line of direction ``"ltr"``, two texts may look
    the same, such as a word and a number in either order.
    """
    found = None
    for candidate in _candidates(text, direction):
        if to_visual(candidate, direction) == text:
            return candidate
        found = found or candidate
    return found or text


def _candidates(text: str, direction: Direction) -> Iterator[str]:
    """Yield texts whose visual order may be ``text``: itself reordered, then runs reversed by their kinds."""
    yield to_visual(text, direction)
    words = (n for n, c in enumerate(text) if unicodedata.bidirectional(c) in _RIGHT_TO_LEFT)
    last_word = max(words, default=-1)
    for count in range(len(_SEPARATORS), -1, -1):
        for joined, first in product(combinations(_SEPARATORS, count), (0, last_word + 1)):
            runs = _runs(text, (*joined, "NSM"), first)
            ordered = runs[::-1] if direction == "rtl" else runs
            yield "".join(_turned(run) if turned else run for run, turned in ordered)


def _turned(text: str) -> str:
    """Return a text reversed, its brackets mirrored."""
    from bidi.mirror import MIRRORED

    return "".join(MIRRORED.get(character, character) for character in reversed(text))


def _runs(text: str, joined: tuple[str, ...], first: int) -> list[tuple[str, bool]]:
    """Return pieces of one direction, each with whether it is right to left.

    Args:
        text: in visual order.
        joined: bidirectional classes of the signs that take the direction of the numbers beside them.
        first: place from which + and - (class ES) and signs such as % (class ET) do.
    """
    kinds = [unicodedata.bidirectional(character) for character in text]
    sides = [kind in _LEFT_TO_RIGHT for kind in kinds]
    for place, kind in enumerate(kinds):
        after = place + 1 < len(kinds) and kinds[place + 1] in _LEFT_TO_RIGHT
        if kind in joined and kind == "ET":
            sides[place] = place >= first and (after or (place > 0 and sides[place - 1]))
        elif kind in joined and after:
            sides[place] = place > 0 and sides[place - 1] and (kind != "ES" or place >= first)
    return [
        ("".join(character for character, _ in run), not is_left)
        for is_left, run in groupby(zip(text, sides, strict=True), lambda pair: pair[1])
    ]
