"""Characters to class numbers and back: the alphabet of a CTC model, and what it makes of aligned tokens."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Alphabet", "TextSpan", "character_spans", "word_spans"]


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


class Span(Protocol):
    """A token with its frames, as :class:`fastctc.TokenSpan`: score is the mean natural-log probability."""

    @property
    def token(self) -> int:
        """Its class."""

    @property
    def start(self) -> int:
        """The first frame."""

    @property
    def end(self) -> int:
        """The frame after the last."""

    @property
    def score(self) -> float:
        """The mean of the natural-log probabilities of its frames."""


@dataclass(frozen=True)
class TextSpan:
    """A piece of text, where it was seen or heard, and how sure that is."""

    text: str
    start: float  #: in frames times a scale: seconds, or columns of an image
    end: float
    confidence: float  #: the geometric mean of the probabilities of its frames, in [0, 1]


def character_spans(
    spans: Iterable[Span], alphabet: Alphabet, scale: float = 1.0, star: int | None = None
) -> list[TextSpan]:
    """The text of each token, where it is, and how sure.

    Args:
        spans: tokens with frames, of :func:`fastctc.merge_tokens`.
        alphabet: the characters of the tokens.
        scale: what a frame is long, in the unit that is wanted: seconds, columns of an image.
        star: the token that stands for anything; its text is ``"*"``.

    Returns:
        One span for each token.

    >>> import fastctc
    >>> tokens = [fastctc.TokenSpan(3, 0, 2, -0.1), fastctc.TokenSpan(1, 5, 6, 0.0)]
    >>> for span in character_spans(tokens, Alphabet("abc"), scale=0.02):
    ...     print(span.text, span.start, span.end, round(span.confidence, 3))
    c 0.0 0.04 0.905
    a 0.1 0.12 1.0
    """
    return [_text_span([span], alphabet, scale, star) for span in spans]


def word_spans(
    spans: Iterable[Span],
    alphabet: Alphabet,
    scale: float = 1.0,
    star: int | None = None,
    separator: str = " ",
) -> list[TextSpan]:
    """Each word, from where its first token starts to where its last one ends, and how sure it is.

    Args:
        spans: as of :func:`character_spans`, like the other arguments that are not described here.
        alphabet: likewise.
        scale: likewise.
        star: likewise.
        separator: the character between words.

    Returns:
        One span for each word; separators are in none.

    >>> import fastctc
    >>> tokens = [fastctc.TokenSpan(c, t, t + 1, 0.0) for t, c in enumerate([1, 3, 1, 2, 2])]
    >>> [(span.text, span.start, span.end) for span in word_spans(tokens, Alphabet("ab "))]
    [('a', 0.0, 1.0), ('abb', 2.0, 5.0)]
    """
    words: list[list[Span]] = [[]]
    for span in spans:
        if span.token != star and alphabet.decode([span.token]) == separator:
            words.append([])
        else:
            words[-1].append(span)
    return [_text_span(word, alphabet, scale, star) for word in words if word]


def _text_span(spans: list[Span], alphabet: Alphabet, scale: float, star: int | None) -> TextSpan:
    text = "".join("*" if span.token == star else alphabet.decode([span.token]) for span in spans)
    frames = sum(span.end - span.start for span in spans)
    score = sum(span.score * (span.end - span.start) for span in spans) / frames
    return TextSpan(text, spans[0].start * scale, spans[-1].end * scale, math.exp(score))
