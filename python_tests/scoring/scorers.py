"""Random scorers for searches, and the hypotheses of results in the form of the references."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any, NamedTuple

import torch
from arpa_files import random_model, write_arpa
from automata import random_automaton
from torch import Tensor

from fastctc import Automaton, ScoredResult
from fastctc.scoring import AutomatonScorer, Hypothesis, Lexicon, LexiconScorer, Scorer, read_arpa

WORDS = ["one", "won", "two", "too", "absent"]
BOUNDARIES: dict[str, dict[str, Any]] = {
    "separator": {"separator": 4},
    "separator and unknown words": {"separator": 4, "unknown_word": -1.5},
    "word begin": {"word_begin": {1, 3}},
    "word begin and unknown words": {"word_begin": {1, 3}, "unknown_word": -1.5},
    "none": {},
}

Key = tuple[tuple[int, ...], tuple[str, ...]]  # tokens and words


def random_frames(rng: random.Random, frames: int, classes: int, *, ties: bool = False) -> Tensor:
    """Return (T, C) float64 log-probabilities; with ties they are multiples of 1/4 that sum to less than 1."""
    logits = torch.tensor([[rng.gauss(0, 1) for _ in range(classes)] for _ in range(frames)])
    x = (logits.reshape(frames, classes).double() * rng.choice([0.5, 2.0])).log_softmax(-1)
    return (x * 4).floor() / 4 if ties else x


def random_lexicon_scorer(rng: random.Random, boundary: str, folder: Path) -> LexiconScorer:
    """Return a scorer of labels 1 to 4 with homophones, several spellings, and words that begin others."""
    spellings = [tuple(rng.choices([1, 2, 3], k=rng.randint(1, 3))) for _ in range(4)]
    spellings.append((*spellings[0], rng.choice([1, 2, 3])))
    entries = [(word, rng.choice(spellings), rng.randint(-4, 2) / 4) for word in [*WORDS, *WORDS[:2]]]
    model = None
    if rng.random() < 0.8:
        ngrams = random_model(rng.randrange(10**6), WORDS[:-1], rng.randint(1, 3))
        model = read_arpa(write_arpa(folder / "lm.arpa", ngrams))
    return LexiconScorer(
        Lexicon(entries),
        model,
        lm_weight=rng.choice([0.0, 0.75, 2.0]),
        word_bonus=rng.choice([0.0, 0.5, -1.0, 3.0]),
        look_ahead=rng.random() < 0.7,
        **BOUNDARIES[boundary],
    )


class Case(NamedTuple):
    """Input of a search, with scorers and the same for the references."""

    x: Tensor  # (T, C)
    blank: int
    scorers: list[Automaton | LexiconScorer]
    references: list[Scorer]


def random_case(seed: int, boundary: str, folder: Path, *, longest: int = 5) -> Case:
    """Return a case with a lexicon for a key of BOUNDARIES, with automata alone for the empty string."""
    rng = random.Random(f"{seed} {boundary}")
    classes, blank = 5, 0
    scorers: list[Automaton | LexiconScorer] = []
    if boundary:
        scorers.append(random_lexicon_scorer(rng, boundary, folder))
    else:
        classes = rng.randint(2, 4)
        blank = rng.randrange(classes)
    labels = [c for c in range(classes) if c != blank]
    for _ in range(rng.randint(0 if boundary else 1, 2 if boundary else 3)):
        scorers.append(random_automaton(rng.randrange(10**6), labels, states=rng.randint(1, 5)))
    rng.shuffle(scorers)
    x = random_frames(rng, rng.randint(0, longest), classes, ties=rng.random() < 0.4)
    references = [AutomatonScorer(each) if isinstance(each, Automaton) else each for each in scorers]
    return Case(x, blank, scorers, references)


def keys(result: ScoredResult, scorers: list[Automaton | LexiconScorer]) -> list[Key]:
    """Return the hypotheses of one sample that the scorer accepts."""
    lexicon = next((each for each in scorers if isinstance(each, LexiconScorer)), None)
    found = []
    for tokens, words, last in zip(result.to_list(), result.words.tolist(), result.last_words.tolist()):
        numbers = [word for word in (*words[: len(tokens)], last) if word >= 0]
        found.append((tuple(tokens), tuple(lexicon.word(n) if lexicon else "" for n in numbers)))
    return found


def reference_keys(hypotheses: list[Hypothesis], scorers: list[Automaton | LexiconScorer]) -> list[Key]:
    place = next((i for i, each in enumerate(scorers) if isinstance(each, LexiconScorer)), None)
    return [(each.tokens, () if place is None else each.words[place]) for each in hypotheses]


def accepted(result: ScoredResult) -> int:
    """Return the number of hypotheses of one sample that exist and end as the scorer allows."""
    return sum(score > -math.inf for score in result.scores.tolist())
