"""Scorers from files and texts of a user: a format, a lexicon, a model of language, hotwords."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from fastctc.crnn.data import VisualAlphabet
from fastctc.files import no_such_file
from fastctc.scoring import Automaton, Lexicon, LexiconScorer, hotwords, read_arpa, regular_expression
from fastctc.scoring.estimate import SPACE
from fastctc.scoring.ngram import over_tokens
from fastctc.scoring.packed import SearchScorer
from fastctc.text import Alphabet

__all__ = ["HOTWORD_BONUS", "lines_of", "model_of_characters", "scorers_from_files"]

HOTWORD_BONUS = 5.0
"""Bonus of a hotword without a weight, a natural logarithm."""

SPACE_IN_MODELS = (SPACE, "▁", "|", "_")  # what stands for the space in models of characters


def scorers_from_files(
    alphabet: Alphabet,
    *,
    pattern: str | None = None,
    lexicon: str | Path | None = None,
    lm: str | Path | None = None,
    hotwords_file: str | Path | None = None,
    lm_weight: float | None = None,
    word_bonus: float | None = None,
) -> list[SearchScorer]:
    """Return the scorers of a search for a recognizer's texts.

    Args:
        alphabet: of the recognizer.
        pattern: a regular expression that the whole text matches, see :func:`fastctc.scoring.regular_expression`.
        lexicon: a file with a word in each line. A text is words with spaces between them, or one word if the
            alphabet has no space.
        lm: an ARPA file, plain or compressed: of words with ``lexicon``, of characters without it. The space of a
            model of characters is ``<space>``, ``▁``, ``|`` or ``_``.
        hotwords_file: a file with a word and an optional bonus in each line. If the alphabet has a space, only
            whole words count.
        lm_weight: of the model of language; None: 1.
        word_bonus: of each word of the lexicon; None: 0.

    Raises:
        ValueError: a file is malformed, or it has characters that the alphabet lacks; the message names the file
            and the line. Or a weight without the file that it is about. Or the alphabet is written from right to
            left, and the scorer needs the order of reading.
        FileNotFoundError: there is no such file.
    """
    if lm_weight is not None and lm is None:
        raise ValueError("lm_weight is given without lm, expected a model of language that it weighs")
    if word_bonus is not None and lexicon is None:
        raise ValueError("word_bonus is given without lexicon, expected a list of words")
    for name, value in (("pattern", pattern), ("lm", lm)):
        if value is not None and isinstance(alphabet, VisualAlphabet):
            raise ValueError(
                f"{name} is given, but the model reads from right to left: expected lexicon or hotwords_file alone"
            )
    scorers: list[SearchScorer] = []
    if pattern is not None:
        scorers.append(regular_expression(pattern, alphabet))
    weight = 1.0 if lm_weight is None else lm_weight
    if lexicon is not None:
        model = None if lm is None else read_arpa(_found(lm))
        scorers.append(_lexicon_scorer(lexicon, alphabet, model, weight, word_bonus or 0.0))
    elif lm is not None:
        scorers.append(model_of_characters(lm, alphabet).scaled(weight))
    if hotwords_file is not None:
        scorers.append(_hotwords(hotwords_file, alphabet))
    return scorers


def _lexicon_scorer(
    path: str | Path, alphabet: Alphabet, model: Automaton | None, lm_weight: float, word_bonus: float
) -> LexiconScorer:
    entries = []
    for where, line in lines_of(path):
        if len(line.split()) > 1:
            raise ValueError(f"{where}: expected one word, got {line!r}")
        entries.append((line, _encode(line, alphabet, where)))
    if not entries:
        raise ValueError(f"{path} has no word, expected one in each line")
    # Without a space the separator is a label that no frame has: so there is one word.
    separator = alphabet.encode(" ")[0] if " " in alphabet.characters else alphabet.num_classes
    return LexiconScorer(
        Lexicon(entries), model, lm_weight=lm_weight, word_bonus=word_bonus, separator=separator
    )


def model_of_characters(path: str | Path, alphabet: Alphabet) -> Automaton:
    """Return the automaton of an n-gram model of characters, whose labels are the classes of an alphabet.

    Raises:
        ValueError: the file is malformed, or has none of the characters.
        FileNotFoundError: there is no such file.
    """
    model = read_arpa(_found(path))
    words = set(model.symbols or ())
    space = next((each for each in SPACE_IN_MODELS if each in words), SPACE_IN_MODELS[0])
    tokens: list[str | None] = [space if each == " " else each for each in alphabet.characters]
    if not words.intersection(tokens):
        raise ValueError(
            f"{path} has none of the model's characters {alphabet.characters!r} among its 1-grams: a model of"
            " words needs a lexicon"
        )
    tokens.insert(alphabet.blank, None)
    return over_tokens(model, tokens)


def _hotwords(path: str | Path, alphabet: Alphabet) -> Automaton:
    bonuses: dict[str, float] = {}
    for where, line in lines_of(path):
        phrase, bonus = line, HOTWORD_BONUS
        parts = line.rsplit("\t" if "\t" in line else None, 1)
        if len(parts) == 2:
            number = _number(parts[1])
            if number is not None:
                phrase, bonus = parts[0].strip(), number
            elif "\t" in line:
                raise ValueError(f"{where}: expected a finite number behind the tab, got {parts[1]!r}")
        _encode(phrase, alphabet, where)
        if phrase in bonuses:
            raise ValueError(f"{where}: {phrase!r} is there twice, expected each word once")
        bonuses[phrase] = bonus
    if not bonuses:
        raise ValueError(f"{path} has no word, expected one in each line")
    return hotwords(bonuses, alphabet, separator=" " if " " in alphabet.characters else None)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def lines_of(path: str | Path) -> Iterator[tuple[str, str]]:
    """Yield (file and line number, line) of each line that is not empty."""
    try:
        with open(_found(path), encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield f"{path}, line {number}", line.strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not in UTF-8: {error}") from None


def _encode(text: str, alphabet: Alphabet, where: str) -> list[int]:
    try:
        return alphabet.encode(text)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _found(path: str | Path) -> str | Path:
    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: {no_such_file(path)}")
    return path
