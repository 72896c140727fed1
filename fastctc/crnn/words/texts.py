"""Texts of drawn images: words of a list, numbers, codes, lines of words, random characters."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from fastctc.crnn.data import is_unseen

LANGUAGES = ("en", "de", "fr", "es", "it", "pt", "nl", "sv", "pl", "id")
WORDS_PER_LANGUAGE = 40_000
SIGNS = "".join(sorted(set(string.punctuation + string.digits + " ")))
KINDS = {"letters": "letters", "digits": "digits", "mixed": "letters,\ndigits, signs", "line": "with\nspaces"}
"""The kinds of texts, and what pictures call them."""

Part = Literal["seen", "unseen"]
Texts = Literal["mixed", "words", "numbers", "codes", "lines", "list"]


def kind(text: str) -> str | None:
    """Return which of the :data:`KINDS` a text is; None if it is empty or has a character that is not printable.

    >>> [kind(text) for text in ("Word", "-1.50", "B-52", "two words", "")]
    ['letters', 'digits', 'mixed', 'line', None]
    """
    if not text.strip() or not text.isprintable():
        return None
    if " " in text:
        return "line"
    if text.isalpha():
        return "letters"
    return "mixed" if any(c.isalpha() for c in text) or not any(c.isdigit() for c in text) else "digits"


@cache
def word_list(path: str | None, part: Part) -> tuple[str, ...]:
    """Return the words of a part, each once, in the order of the list. A part that would be empty has all words.

    Args:
        path: text file with one word a line; None: frequent words of several languages in ASCII letters,
            from the ``wordfreq`` package.
        part: ``"seen"`` or ``"unseen"``.

    Raises:
        ValueError: the file has no word.
        ModuleNotFoundError: ``wordfreq`` is missing.
    """
    words = _read(path) if path is not None else _frequent()
    return tuple(word for word in words if is_unseen(word) == (part == "unseen")) or tuple(words)


def _read(path: str) -> list[str]:
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    words = list(dict.fromkeys(word for line in lines if (word := line.strip()) and word.isprintable()))
    if not words:
        raise ValueError(f"words is {path!r}, expected a file with one word a line, got none")
    return words


@cache
def _frequent() -> tuple[str, ...]:
    try:
        from wordfreq import top_n_list  # type: ignore[import-not-found]
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "drawing words without a list needs the wordfreq package: pip install fastctc[words],"
            " or name a file with one word a line",
            name="wordfreq",
        ) from error
    words = (word for language in LANGUAGES for word in top_n_list(language, WORDS_PER_LANGUAGE))
    return tuple(dict.fromkeys(word for word in words if word.isascii() and word.isalpha()))


@cache
def letters_of(path: str | None) -> str:
    """Return the letters that texts of a word list have, in both cases, sorted."""
    if path is None:
        return string.ascii_letters
    characters = set("".join(_read(path)))
    cased = {c for each in characters for c in (each.upper(), each.lower()) if len(c) == 1}
    return "".join(sorted((characters | cased) - set(SIGNS)))


class TextDraw:
    """Texts at random, of words and of the letters that these have.

    Args:
        words: to choose from.
        letters: for random texts.
        texts: what is written: one kind, ``"mixed"``, or ``"list"``: the words as they are.
        longest: characters of a text at most, unless it is of the list.
    """

    def __init__(self, words: Sequence[str], letters: str, texts: Texts, longest: int) -> None:
        self.words, self.letters = words, letters
        self.longest = longest if texts != "list" else max(map(len, words))
        self._draws, self._weights = zip(*self._kinds(texts), strict=True)

    def __call__(self, rng: random.Random) -> str:
        """Return a text of 1 to ``longest`` characters without a space at its ends."""
        draw = rng.choices(self._draws, self._weights)[0]
        return draw(rng)[: self.longest].strip() or self.words[0][: self.longest]

    def _kinds(self, texts: Texts) -> list[tuple[Callable[[random.Random], str], float]]:
        kinds: dict[str, list[tuple[Callable[[random.Random], str], float]]] = {
            "words": [(self._word, 0.8), (self._pseudo_word, 0.2)],
            "numbers": [(_integer, 0.45), (_amount, 0.35), (_date, 0.2)],
            "codes": [(self._code, 0.6), (self._address, 0.2), (self._any, 0.2)],
            "lines": [(self._line, 1.0)],
            "list": [(lambda rng: rng.choice(self.words), 1.0)],
        }
        if texts != "mixed":
            return kinds[texts]
        shares = dict(zip(get_args(Texts)[1:-1], (0.52, 0.18, 0.1, 0.2), strict=True))
        return [(draw, shares[name] * share) for name in shares for draw, share in kinds[name]]

    def _word(self, rng: random.Random) -> str:
        word = _in_case(rng.choice(self.words), rng)
        if rng.random() < 0.1:
            before, after = rng.choice(_AROUND)
            word = before + word + after
        return word

    def _pseudo_word(self, rng: random.Random) -> str:
        """Return a text of letters that is no word, so that a model cannot guess what it does not see."""
        halves = [rng.choice(self.words) for _ in range(2)]
        mixed = halves[0][: rng.randint(1, 5)] + halves[1][-rng.randint(1, 5) :]
        if rng.random() < 0.4:
            mixed = "".join(rng.choice(self.letters) for _ in range(rng.randint(1, 9)))
            return mixed if rng.random() < 0.5 else _in_case(mixed, rng)
        return _in_case(mixed, rng)

    def _code(self, rng: random.Random) -> str:
        letters = rng.choice((self.letters, self.letters.upper(), self.letters.lower()))
        groups = rng.choice((1, 1, 1, 2, 3))
        pool = letters + string.digits * max(1, len(letters) // 10)
        sign = rng.choice("-- /.:_")
        return sign.join(
            "".join(rng.choice(pool) for _ in range(rng.randint(2, max(3, 9 // groups))))
            for _ in range(groups)
        )

    def _address(self, rng: random.Random) -> str:
        first, second = rng.choice(self.words), rng.choice(self.words)
        end = rng.choice((".com", ".org", ".net", ".de", ".co.uk", ".io"))
        return rng.choice(
            (f"www.{first}{end}", f"{first}@{second}{end}", f"{first}{end}", f"@{first}{second}", f"#{first}")
        )

    def _any(self, rng: random.Random) -> str:
        pool = self.letters + SIGNS
        return "".join(rng.choice(pool) for _ in range(rng.randint(1, 10)))

    def _line(self, rng: random.Random) -> str:
        style = rng.random()
        parts: list[str] = []
        target = rng.randint(6, self.longest)
        while sum(map(len, parts)) + len(parts) < target:
            number = rng.random() < 0.12
            word = (_integer if rng.random() < 0.5 else _amount)(rng) if number else rng.choice(self.words)
            if style < 0.2:
                word = word.upper()
            elif style < 0.4 or (not parts and style < 0.8):
                word = word.capitalize()
            if rng.random() < 0.12:
                word += rng.choice(",,,.;:!?")
            parts.append(word)
        line = " ".join(parts)
        if len(line) > self.longest:
            line = line[: self.longest + 1].rpartition(" ")[0] or line
        return line + (rng.choice(".!?") if style > 0.7 and len(line) < self.longest else "")


_AROUND = [
    ("", "."), ("", ","), ("", "!"), ("", "?"), ("", ":"), ("", "'s"), ('"', '"'), ("(", ")"), ("'", "'"),
    ("", ";"), ("", "..."), ("", "-"), ("&", ""), ("[", "]"), ("-", ""), ("", "*"), ("$", ""), ("", "+"),
]  # fmt: skip


def _in_case(word: str, rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.34:
        return word
    if draw < 0.64:
        return word[:1].upper() + word[1:]
    if draw < 0.94:
        return word.upper()
    return "".join(rng.choice((c.upper(), c.lower())) for c in word)


def _digits(rng: random.Random, count: int) -> str:
    return "".join(rng.choice(string.digits) for _ in range(count))


def _integer(rng: random.Random) -> str:
    return _digits(rng, rng.randint(1, 4) if rng.random() < 0.4 else rng.randint(3, 25))


def _amount(rng: random.Random) -> str:
    whole = rng.randrange(10 ** rng.randint(1, 6))
    number = rng.choice((f"{whole:,}", f"{whole}")) + rng.choice(
        ("", "", f".{_digits(rng, 2)}", f".{_digits(rng, 1)}")
    )
    if rng.random() < 0.2:
        number = number.translate(str.maketrans(",.", ".,"))
    return rng.choice(
        ("{}", "${}", "{}%", "-{}", "+{}", "{}$", "#{}", "{}x", "{}kg", "({})", "={}", "<{}", "*{}")
    ).format(number)


def _date(rng: random.Random) -> str:
    """Return a date, a time, a year or a telephone number."""
    day, month, year = rng.randint(1, 31), rng.randint(1, 12), rng.randint(1900, 2099)
    hour, minute = rng.randrange(24), rng.randrange(60)
    return rng.choice(
        (
            f"{day:02}/{month:02}/{year}",
            f"{year}-{month:02}-{day:02}",
            f"{day}.{month}.{year}",
            f"{hour:02}:{minute:02}",
            f"{month}/{day}/{year % 100:02}",
            f"{hour}:{minute:02}:{rng.randrange(60):02}",
            f"{year}",
            f"'{year % 100:02}",
            f"({_digits(rng, 3)}) {_digits(rng, 3)}-{_digits(rng, 4)}",
            f"+{_digits(rng, 2)} {_digits(rng, 9)}",
            f"{_digits(rng, 3)}-{_digits(rng, 4)}",
            f"{hour % 12 + 1}:{minute:02}{rng.choice(('AM', 'PM', ' am', ' pm'))}",
        )
    )
