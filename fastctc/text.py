"""Characters to class numbers and back: the alphabet of a CTC model."""

from __future__ import annotations

from collections.abc import Iterable


class Alphabet:
    """Maps characters to the classes of a CTC model, leaving one class for the blank.

    The classes are the characters in the given order, with the blank inserted at its index:
    ``Alphabet("ab", blank=0)`` numbers blank 0, ``a`` 1, ``b`` 2.

    Args:
        characters: the characters, each once; Unicode code points, case matters.
        blank: class number of the blank, in ``[0, len(characters)]``.

    Raises:
        ValueError: no characters, one of them twice, or ``blank`` out of range.

    Example:
        >>> digits = Alphabet("0123456789")
        >>> digits.encode("42"), digits.decode([5, 3]), digits.num_classes
        ([5, 3], '42', 11)
    """

    def __init__(self, characters: str, blank: int = 0) -> None:
        if not characters:
            raise ValueError("characters is empty, expected at least one character")
        for position, character in enumerate(characters):
            if character in characters[:position]:
                raise ValueError(
                    f"characters has {character!r} twice, the second time at position {position}"
                )
        if not 0 <= blank <= len(characters):
            raise ValueError(
                f"blank is {blank}, expected 0 to {len(characters)} for {len(characters)} characters"
            )
        self.characters = characters
        self.blank = blank
        self._class_of = {c: i + (i >= blank) for i, c in enumerate(characters)}
        self._character_of = {i: c for c, i in self._class_of.items()}

    @property
    def num_classes(self) -> int:
        """Number of classes of the model: the characters and the blank."""
        return len(self.characters) + 1

    def encode(self, text: str) -> list[int]:
        """The class number of each character of ``text``; ``ValueError`` names a character that has none."""
        for position, character in enumerate(text):
            if character not in self._class_of:
                raise ValueError(
                    f"character {character!r} at position {position} of {text!r} is not in the alphabet"
                    f" {self.characters!r}"
                )
        return [self._class_of[character] for character in text]

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of class numbers that hold no blank and no padding, such as a decoder's tokens."""
        classes = [int(token) for token in tokens]
        for position, token in enumerate(classes):
            if token not in self._character_of:
                kind = "the blank" if token == self.blank else f"not one of the {self.num_classes} classes"
                raise ValueError(f"tokens[{position}] is {token}, {kind}")
        return "".join(self._character_of[token] for token in classes)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Alphabet):
            return NotImplemented
        return (self.characters, self.blank) == (other.characters, other.blank)

    def __hash__(self) -> int:
        return hash((self.characters, self.blank))

    def __repr__(self) -> str:
        return f"Alphabet({self.characters!r}, blank={self.blank})"
