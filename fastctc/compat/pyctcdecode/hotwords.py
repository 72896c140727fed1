"""The hotwords of pyctcdecode as an automaton."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import NamedTuple

from fastctc.arguments import check_number
from fastctc.compat.pyctcdecode.alphabet import Alphabet
from fastctc.errors import ArgumentTypeError
from fastctc.scoring import Automaton
from fastctc.scoring import hotwords as automaton_of

__all__ = ["HotwordCache", "Hotwords"]

MOST_SPELLINGS = 8  # of a phrase


class Hotwords(NamedTuple):
    """Phrases with a bonus."""

    automaton: Automaton | None  #: None without a phrase that the labels spell
    labels: list[int]  #: the classes of the phrases


class HotwordCache:
    """The automaton of the hotwords of the last search."""

    def __init__(self, alphabet: Alphabet) -> None:
        self._alphabet = alphabet
        self._key: object = None
        self._hotwords = Hotwords(None, [])

    def find(self, hotwords: Iterable[str] | None, weight: float) -> Hotwords:
        """Return the hotwords. A phrase has ``weight`` for each of its words.

        Raises:
            TypeError: ``hotwords`` is a str, or has something else than a str.
            ValueError: ``weight`` is not finite.
        """
        if isinstance(hotwords, str):
            raise ArgumentTypeError(f"hotwords must be a list of words, got the str {hotwords!r:.60}")
        words = list(hotwords or ())
        for place, word in enumerate(words):
            if not isinstance(word, str):
                raise ArgumentTypeError(f"hotwords[{place}] must be a str, got {type(word).__name__}")
        phrases = sorted({tuple(word.split()) for word in words} - {()})
        key = (phrases, check_number(weight, "hotword_weight"))
        if key != self._key:
            bonuses = {
                labels: weight * len(phrase) for phrase in phrases for labels in self._spellings(phrase)
            }
            automaton = automaton_of(bonuses, separator=self._alphabet.separator) if bonuses else None
            used = sorted({label for labels in bonuses for label in labels})
            self._key, self._hotwords = key, Hotwords(automaton, used)
        return self._hotwords

    def _spellings(self, phrase: tuple[str, ...]) -> Iterable[tuple[int, ...]]:
        """Return the ways to spell a phrase, at most 8."""
        separator = self._alphabet.separator
        gap = () if separator is None else (separator,)
        ways = itertools.product(*(self._alphabet.spellings(word) for word in phrase))
        for way in itertools.islice(ways, MOST_SPELLINGS):
            yield tuple(label for word in way for label in (*word, *gap))[: None if not gap else -1]
