"""Text and class numbers: the alphabet of a CTC model, and the characters and words of tokens with their frames."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, SupportsIndex

__all__ = ["Alphabet", "TextSpan", "character_spans", "word_spans"]


class Alphabet:
    """Maps characters to the classes of a CTC model, leaving one class for the blank.

    The classes are the characters in the given order, with the blank inserted at its index:
    ``Alphabet("ab", blank=0)`` numbers blank 0, ``a`` 1, ``b`` 2.

    An alphabet has no pieces of several characters, because text can be cut into pieces in several ways. For the
    vocabulary of a tokenizer, pass its list of strings to :meth:`fastctc.DecodeResult.to_text`,
    :func:`character_spans` or :func:`word_spans`, and encode text with the tokenizer.

    Args:
        characters: the characters, each once, as a str or a sequence of strings; Unicode code points, case matters.
        blank: class number of the blank, in ``[0, len(characters)]``.

    Raises:
        TypeError: ``characters`` are not strings, or ``blank`` is no integer.
        ValueError: no characters, one of them twice, a piece of several characters, or ``blank`` out of range.

    Example:
        >>> digits = Alphabet("0123456789")
        >>> digits.encode("42"), digits.decode([5, 3]), digits.num_classes
        ([5, 3], '42', 11)
    """

    def __init__(self, characters: str | Sequence[str], blank: SupportsIndex = 0) -> None:
        self.characters = _joined(characters)
        self.blank = _index(blank, "blank")
        if not 0 <= self.blank <= len(self.characters):
            raise ValueError(
                f"blank is {self.blank}, expected 0 to {len(self.characters)} for {len(self.characters)} characters"
            )
        self._class_of = {c: i + (i >= self.blank) for i, c in enumerate(self.characters)}
        self._character_of = {i: c for c, i in self._class_of.items()}

    @property
    def num_classes(self) -> int:
        """Return the number of classes of the model: the characters and the blank."""
        return len(self.characters) + 1

    def encode(self, text: str) -> list[int]:
        """Return the class number of each character of a text.

        Raises:
            ValueError: a character is not in the alphabet.
        """
        for position, character in enumerate(text):
            if character not in self._class_of:
                raise ValueError(
                    f"character {character!r} at position {position} of {text!r} is not in the alphabet"
                    f" {self.characters!r}"
                )
        return [self._class_of[character] for character in text]

    def decode(self, tokens: Iterable[SupportsIndex]) -> str:
        """Return the text of class numbers without blanks and padding, such as the tokens of a decoder.

        Raises:
            TypeError: a token is no integer.
            ValueError: a token is the blank, or no class of the alphabet.
        """
        classes = [_index(token, f"tokens[{position}]") for position, token in enumerate(tokens)]
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


def _joined(characters: str | Sequence[str]) -> str:
    """Return the characters of an alphabet as one str, each once."""
    pieces = list(characters)
    if not pieces:
        raise ValueError("characters is empty, expected at least one character")
    for position, piece in enumerate(pieces):
        if not isinstance(piece, str):
            raise TypeError(f"characters[{position}] must be a str, got {type(piece).__name__}")
        if len(piece) != 1:
            raise ValueError(
                f"characters[{position}] is {piece!r}, expected one character; for a vocabulary of longer pieces"
                " pass its list of strings instead of an Alphabet"
            )
        if piece in pieces[:position]:
            raise ValueError(f"characters has {piece!r} twice, the second time at position {position}")
    return "".join(pieces)


def _index(value: SupportsIndex, name: str) -> int:
    """Return an integer of any kind as an int."""
    try:
        return operator.index(value)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}") from None


class Span(Protocol):
    """A token with its frames, such as :class:`fastctc.TokenSpan`."""

    @property
    def token(self) -> int:
        """Return its class."""

    @property
    def start(self) -> int:
        """Return the first frame."""

    @property
    def end(self) -> int:
        """Return the frame after the last."""

    @property
    def score(self) -> float:
        """Return the mean of the natural-log probabilities of its frames."""


@dataclass(frozen=True)
class TextSpan:
    """A piece of text with its place and its confidence."""

    text: str
    start: float  #: in frames times a scale: seconds, or columns of an image
    end: float
    confidence: float  #: the geometric mean of the probabilities of its frames, in [0, 1]


def character_spans(
    spans: Iterable[Span], alphabet: Alphabet | Sequence[str], scale: float = 1.0, star: int | None = None
) -> list[TextSpan]:
    """Return the text, the place and the confidence of each token.

    Args:
        spans: tokens with frames, from :func:`fastctc.merge_tokens` or :meth:`fastctc.DecodeResult.spans`.
        alphabet: the characters of the tokens, or the string of each class in order, with one for the blank.
        scale: length of a frame, in the unit of the result: seconds, or columns of an image.
        star: the token that matches anything; its text is ``"*"``.

    Returns:
        One span for each token, with the string of its class as it is.

    Raises:
        ValueError: a token is no class of the alphabet.

    >>> import fastctc
    >>> tokens = [fastctc.TokenSpan(3, 0, 2, -0.1), fastctc.TokenSpan(1, 5, 6, 0.0)]
    >>> for span in character_spans(tokens, Alphabet("abc"), scale=0.02):
    ...     print(span.text, span.start, span.end, round(span.confidence, 3))
    c 0.0 0.04 0.905
    a 0.1 0.12 1.0
    """
    return [text_span([span], _text_of(span.token, alphabet, star), scale) for span in spans]


def word_spans(
    spans: Iterable[Span],
    alphabet: Alphabet | Sequence[str],
    scale: float = 1.0,
    star: int | None = None,
    separator: str | None = None,
) -> list[TextSpan]:
    """Return the text, the place and the confidence of each word, from its first token to its last one.

    Args:
        spans: tokens with frames, see :func:`character_spans`.
        alphabet: the characters of the tokens, or the string of each class in order, with one for the blank.
        scale: length of a frame, in the unit of the result.
        star: the token that matches anything; its text is ``"*"``.
        separator: the mark between words. None: the first convention of the table that a string of the alphabet
            follows, or else ``" "``.

            ==========  ======================================================  ==================================
            separator   a word begins                                           example
            ==========  ======================================================  ==================================
            ``"▁"``     with a piece that begins with it (SentencePiece)         ``"▁the"``, ``"▁cat"``, ``"s"``
            ``"##"``    with a piece that does not begin with it (WordPiece)     ``"the"``, ``"cat"``, ``"##s"``
            other       after a token that is the separator or ends with it,     ``"t"``, ``"o"``, ``" "``, ``"a"``
                        and with one that begins with it
            ==========  ======================================================  ==================================

    Returns:
        One span for each word. Separators are in no text, and tokens that are nothing else are in no span.

    Raises:
        ValueError: a token is no class of the alphabet, or ``separator`` is empty.

    >>> import fastctc
    >>> tokens = [fastctc.TokenSpan(c, t, t + 1, 0.0) for t, c in enumerate([1, 3, 1, 2, 2])]
    >>> [(span.text, span.start, span.end) for span in word_spans(tokens, Alphabet("ab "))]
    [('a', 0.0, 1.0), ('abb', 2.0, 5.0)]
    >>> [(span.text, span.start, span.end) for span in word_spans(tokens, ["<blank>", "▁the", "s", "▁cat"])]
    [('the', 0.0, 1.0), ('cat', 1.0, 2.0), ('thess', 2.0, 5.0)]
    """
    if separator is None:
        separator = _separator_of(alphabet)
    if not separator:
        raise ValueError("separator is '', expected at least one character")
    words: list[list[tuple[Span, str]]] = []
    begins = True  # the next token begins a word
    for span in spans:
        text = _text_of(span.token, alphabet, star)
        if separator == "##":
            begins, ends, text = begins or not text.startswith("##"), False, text.removeprefix("##")
        else:
            begins, ends = begins or text.startswith(separator), text.endswith(separator)
            text = _without(text, separator)
        if text and begins:
            words.append([])
        if text:
            words[-1].append((span, text))
        begins = ends or (begins and not text)
    return [text_span([span for span, _ in word], "".join(text for _, text in word), scale) for word in words]


def _separator_of(alphabet: Alphabet | Sequence[str]) -> str:
    """Return the separator of the convention that the strings of an alphabet follow."""
    pieces = alphabet.characters if isinstance(alphabet, Alphabet) else alphabet
    if any(piece.startswith("▁") for piece in pieces):
        return "▁"
    return "##" if any(len(piece) > 2 and piece.startswith("##") for piece in pieces) else " "


def _without(text: str, separator: str) -> str:
    """Return a text without the separators at its ends."""
    while text.startswith(separator):
        text = text.removeprefix(separator)
    while text.endswith(separator):
        text = text.removesuffix(separator)
    return text


def _text_of(token: int, alphabet: Alphabet | Sequence[str], star: int | None) -> str:
    """Return the string of a class."""
    if token == star:
        return "*"
    if isinstance(alphabet, Alphabet):
        return alphabet.decode([token])
    if not 0 <= token < len(alphabet):
        raise ValueError(f"there is a token {token}, but alphabet has only {len(alphabet)} strings")
    return alphabet[token]


def text_span(spans: Sequence[Span], text: str, scale: float) -> TextSpan:
    """Return a text with the place and the confidence of its tokens."""
    frames = sum(span.end - span.start for span in spans)
    score = sum(span.score * (span.end - span.start) for span in spans) / frames
    return TextSpan(text, spans[0].start * scale, spans[-1].end * scale, math.exp(min(score, 0.0)))
