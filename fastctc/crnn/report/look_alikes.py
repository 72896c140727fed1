"""Characters that look alike: a data set that mixes them has labels that no model can tell apart."""

# ruff: noqa: RUF001

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

_GROUPS = (
    # Latin, Cyrillic and Greek letters, with digits and signs of the same shape
    "AАΑ", "BВΒ", "CСϹ", "EЕΕ", "HНΗ", "IІΙ1lⅠ|Ӏ", "JЈ", "KКΚ", "MМΜ", "NΝ", "OОΟ0", "PРΡ", "SЅ", "TТΤ",
    "XХΧ", "YУΥҮ", "ZΖ", "aаα", "cсϲ", "eе", "iіι", "jј", "oоοσ0", "pрρ", "sѕ", "vνѵ", "xхχ", "yуγ", "uυ", "wѡω",
    "kкκ", "tт", "ΔД∆", "ΩΩ", "µμ", "ÐĐ", "ßβ", "bЬ", "З3", "б6", "ч4",
    # signs
    "-‐‑‒–—―−⁃ー一", "'‘’‚‛ʼ`´′", "\"“”„‟″«»", "*×xх∗", "·•∙⋅・", ".․", ",‚،", ":：∶", "/⁄∕", "~∼～", "=＝", "…⋯",
    " \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000\t",
    # Arabic letters of one shape at the end of a word
    "يىی", "كک", "ةه",
)  # fmt: skip

_INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d"
    "\u202e\u2060\u2061\u2062\u2063\u2064\u2066\u2067\u2068\u2069\ufeff\uffa0"
)


def look_alikes(characters: Mapping[str, int]) -> list[list[str]]:
    """Return the groups of characters that look alike, the most frequent character of each group first.

    Two characters look alike if they are in one of the groups above, or have the same compatibility form, as full
    width letters have. An invisible character is a group of its own.

    Args:
        characters: how often each character occurs.
    """
    groups = [[c for c in dict.fromkeys(group) if c in characters] for group in _GROUPS]
    forms: dict[str, list[str]] = {}
    for character in characters:
        forms.setdefault(unicodedata.normalize("NFKC", character), []).append(character)
    groups += [group for group in forms.values() if not any(set(group) <= set(each) for each in groups)]
    found = [sorted(group, key=lambda c: (-characters[c], c)) for group in groups if len(group) > 1]
    return found + [[character] for character in characters if character in _INVISIBLE]


def named(character: str, count: int) -> str:
    """Return a character with its code point, its name and how often it occurs."""
    shown = f"{character} " if character.isprintable() and not character.isspace() else ""
    name = unicodedata.name(character, "no name").lower()
    return f"{shown}U+{ord(character):04X} {name} ({count:,})"
