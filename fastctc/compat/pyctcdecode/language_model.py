"""The word model of pyctcdecode as the scorer of a search."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fastctc.arguments import check_number
from fastctc.compat.pyctcdecode.alphabet import Alphabet
from fastctc.compat.skipped_word import SKIPPED_WORD, skipping
from fastctc.errors import ArgumentTypeError, ArgumentValueError
from fastctc.files import write_atomically
from fastctc.scoring import UNKNOWN_WORD, Automaton, Lexicon, LexiconScorer, read_arpa

__all__ = ["LanguageModel"]

ATTRIBUTES = ("alpha", "beta", "unk_score_offset", "score_boundary")
ATTRIBUTES_FILE, UNIGRAMS_FILE = "attrs.json", "unigrams.txt"
LN_10 = math.log(10)  # the models of pyctcdecode have logarithms of base 10


class LanguageModel:
    """An n-gram model of words with the weights of pyctcdecode.

    With a = ``alpha`` * ln 10, the weight of a text is the sum of

    - a * log10 P(word | words before) + ``beta`` for each word,
    - a * ``unk_score_offset`` for each unknown word,
    - a * log10 P(</s> | words before).

    Args:
        kenlm_model: an ARPA file, plain or compressed by gzip; a ``kenlm.Model`` of one; or an
            :class:`fastctc.Automaton` over words.
        unigrams: the known words. A word that the model lacks is unknown in any case. None, or no word of the
            model: all words of the model are known.
        alpha: factor of the model, at least 0.
        beta: added for each word.
        unk_score_offset: added to log10 P of an unknown word.
        score_boundary: whether texts begin after ``<s>`` and end with ``</s>``.

    Raises:
        TypeError: ``kenlm_model`` is of another type.
        ValueError: the model is no ARPA file, or a weight is out of range.
    """

    def __init__(
        self,
        kenlm_model: Any,
        unigrams: Collection[str] | None = None,
        alpha: float = 0.5,
        beta: float = 1.5,
        unk_score_offset: float = -10.0,
        score_boundary: bool = True,
    ) -> None:
        path = getattr(kenlm_model, "path", kenlm_model)
        self._path = None if isinstance(path, Automaton) else os.fsdecode(_as_path(path))
        self._model = path if isinstance(path, Automaton) else read_arpa(os.fsdecode(path))
        if self._model.symbols is None:
            raise ArgumentValueError("kenlm_model has no symbols, expected the words by label")
        self._label_of = {word: label for label, word in enumerate(self._model.symbols)}
        self._unigrams = {word for word in unigrams or () if word in self._label_of}
        self.alpha, self.beta, self.unk_score_offset = alpha, beta, unk_score_offset
        self.score_boundary = score_boundary
        self.reset_params(
            alpha=alpha, beta=beta, unk_score_offset=unk_score_offset, score_boundary=score_boundary
        )
        self._scorers: dict[Any, LexiconScorer] = {}

    def reset_params(self, **params: Any) -> None:
        """Set ``alpha``, ``beta``, ``unk_score_offset`` and ``score_boundary``. None leaves a value as it is."""
        unknown = sorted(set(params) - set(ATTRIBUTES))
        if unknown:
            raise ArgumentTypeError(f"params has {unknown[0]!r}, expected some of {', '.join(ATTRIBUTES)}")
        given = {name: value for name, value in params.items() if value is not None}
        for name, value in given.items():
            if name == "score_boundary":
                if not isinstance(value, bool):
                    raise ArgumentTypeError(f"score_boundary must be a bool, got {type(value).__name__}")
            elif check_number(value, name) < 0 and name == "alpha":
                raise ArgumentValueError(f"alpha is {value}, expected a number of at least 0")
        for name, value in given.items():
            setattr(self, name, value)

    @property
    def order(self) -> int:
        """Return the number of words of the longest n-grams."""
        failure = self._model.failure_state.long()
        order, states = 0, torch.arange(self._model.num_states)
        while states.numel():  # states with a chain of `order` failure arcs
            order += 1
            states = failure[states]
            states = states[states >= 0]
        return order

    def scorer(self, alphabet: Alphabet, start: int | None = None) -> LexiconScorer:
        """Return the scorer of a search. It is kept as long as no weight changes.

        Args:
            alphabet: the labels of the search.
            start: the state of the model before the first word; None: the beginning of a text.
        """
        key = (alphabet.dumps(), *(getattr(self, name) for name in ATTRIBUTES))
        if key not in self._scorers:
            offset = self.alpha * LN_10 * self.unk_score_offset
            entries = list(self._entries(alphabet, offset))
            if not any(word != SKIPPED_WORD for word, *_ in entries):
                raise ArgumentValueError(
                    f"labels is {alphabet.labels!r:.60}, which spell no word of the model"
                )
            self._scorers = {
                key: LexiconScorer(
                    Lexicon(entries),
                    skipping(self._bounded) if alphabet.bare_word_begin is not None else self._bounded,
                    lm_weight=self.alpha,
                    word_bonus=self.beta,
                    separator=alphabet.separator,
                    word_begin=alphabet.word_begin if alphabet.is_bpe else None,
                    unknown_word=offset,
                )
            }
        scorer = self._scorers[key]
        if start is not None:
            scorer = copy(scorer)
            scorer.model = replace(scorer.model, start=start)
        return scorer

    def states_after(self, texts: Sequence[str], start: int | None = None) -> list[int]:
        """Return the state of the model after the words of each text."""
        rows = [[self._label(word) for word in text.split()] for text in texts]
        first = self._bounded.start if start is None else start
        states = torch.full((len(rows),), first, dtype=torch.int64)
        for place in range(max(map(len, rows), default=0)):
            longer = torch.tensor([place < len(row) for row in rows])
            labels = torch.tensor([row[place] for row in rows if place < len(row)])
            states[longer] = self._model.step(states[longer], labels)[0]
        return states.tolist()

    def save_to_dir(self, filepath: str | os.PathLike[str], unigram_encoding: str | None = None) -> None:
        """Write the weights, the known words and a copy of the ARPA file into a folder."""
        if self._path is None:
            raise ArgumentValueError("kenlm_model is an Automaton, expected an ARPA file for a model to save")
        folder = Path(filepath)
        attributes = {name: getattr(self, name) for name in ATTRIBUTES}
        write_atomically(folder / ATTRIBUTES_FILE, json.dumps(attributes).encode())
        unigrams = "".join(f"{word}\n" for word in sorted(self._unigrams))
        write_atomically(folder / UNIGRAMS_FILE, unigrams.encode(unigram_encoding or "utf-8"))
        source = Path(self._path)
        write_atomically(folder / source.name, lambda target: shutil.copyfile(source, target))

    @classmethod
    def load_from_dir(
        cls, filepath: str | os.PathLike[str], unigram_encoding: str | None = None
    ) -> LanguageModel:
        """Return the model of a folder that :meth:`save_to_dir` wrote, here or in pyctcdecode.

        Raises:
            ValueError: a file is missing, or the model is no ARPA file.
        """
        folder = Path(filepath)
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith((".", "__")))
        models = [name for name in names if name not in (ATTRIBUTES_FILE, UNIGRAMS_FILE)]
        if len(models) != 1 or len(names) != 3:
            raise ArgumentValueError(
                f"{folder} has {names}, expected {ATTRIBUTES_FILE}, {UNIGRAMS_FILE} and one ARPA file"
            )
        attributes = json.loads((folder / ATTRIBUTES_FILE).read_text(encoding="utf-8"))
        if set(attributes) != set(ATTRIBUTES):
            raise ArgumentValueError(
                f"{folder / ATTRIBUTES_FILE} has {sorted(attributes)}, expected {ATTRIBUTES}"
            )
        unigrams = (folder / UNIGRAMS_FILE).read_text(encoding=unigram_encoding or "utf-8").splitlines()
        return cls(folder / models[0], unigrams, **attributes)

    @property
    def _bounded(self) -> Automaton:
        """Return the model with or without the boundaries of texts."""
        if self.score_boundary:
            return self._model
        return replace(
            self._model, start=self._model.root(), final_weight=torch.zeros_like(self._model.final_weight)
        )

    def _entries(self, alphabet: Alphabet, offset: float) -> Iterator[tuple[str, tuple[int, ...], float]]:
        """Yield the spellings of all words of the model, unknown ones with their offset."""
        for word in self._label_of:
            if word not in ("<s>", "</s>", UNKNOWN_WORD, "<UNK>") and not any(map(str.isspace, word)):
                weight = 0.0 if not self._unigrams or word in self._unigrams else offset
                for labels in alphabet.spellings(word):
                    yield word, labels, weight
        if alphabet.bare_word_begin is not None:
            yield SKIPPED_WORD, (alphabet.bare_word_begin,), -self.beta

    def _label(self, word: str) -> int:
        unknown = self._label_of.get(UNKNOWN_WORD, self._label_of.get("<UNK>", -1))
        return unknown if word in ("<s>", "</s>") else self._label_of.get(word, unknown)


def _as_path(path: Any) -> str | bytes | os.PathLike[str]:
    if isinstance(path, (str, bytes, os.PathLike)):
        return path
    raise ArgumentTypeError(
        "kenlm_model must be the path of an ARPA file, a kenlm.Model or a fastctc.Automaton, got"
        f" {type(path).__name__}"
    )
