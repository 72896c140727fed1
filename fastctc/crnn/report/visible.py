"""Texts as people can see them, in pictures and on pages."""

from __future__ import annotations

import unicodedata

from fastctc.figures import can_draw


def visible(text: str) -> str:
    """Return a text with invisible characters, such as control characters, as escapes; spaces stay."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def visible_character(character: str) -> str:
    """Return a character as :func:`visible` does, and a space as ␣."""
    return "␣" if character == " " else visible(character)


def drawable_character(character: str) -> str:
    """Return a visible character, or its code point if no installed font has it; needs matplotlib."""
    shown = visible_character(character)
    return shown if can_draw(shown) else f"U+{ord(character):04X}"


def columns(text: str) -> int:
    """Return the width of a text in columns of a monospaced font; Chinese characters take two.

    >>> columns("1+2"), columns("中文")
    (3, 4)
    """
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def cut(text: str, most: int) -> str:
    """Return a text of at most ``most`` columns, whose last is … if something was cut off.

    >>> cut("1+2*3", 5), cut("1+2*3", 4)
    ('1+2*3', '1+2…')
    """
    if columns(text) <= most:
        return text
    while columns(text) >= most and text:
        text = text[:-1]
    return f"{text}…"
