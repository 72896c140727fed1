"""Knowledge about tokens for the shapes of bench_beam_search.py: a 3-gram and hotwords, drawn from a seed.

The 3-gram has absolute discounting (Ney, Essen and Kneser, 1994). Its text is a Markov chain: half of the time a
token is one of `SUCCESSORS` of the token before it, and otherwise it follows Zipf's law.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SENTENCES, LENGTH = 5000, 40
SUCCESSORS = 8
DISCOUNT = 0.75
HOTWORDS, BONUS = 10_000, 1.0

Integers = NDArray[np.int64]


def names(classes: int) -> list[str]:
    """Return the word of each token; the blank's is never used."""
    return [f"t{i}" for i in range(classes)]


def draw_text(classes: int, seed: int = 0) -> Integers:
    """Return sentences (SENTENCES, LENGTH + 2) of tokens from 1; `classes` begins and `classes` + 1 ends each."""
    random = np.random.default_rng(seed)
    successors = random.integers(1, classes, (classes + 1, SUCCESSORS))
    probabilities = 1 / np.arange(1, classes)
    text = np.full((SENTENCES, LENGTH + 2), classes, np.int64)
    text[:, -1] = classes + 1
    for i in range(1, LENGTH + 1):
        likely = successors[text[:, i - 1], random.integers(0, SUCCESSORS, SENTENCES)]
        other = random.choice(np.arange(1, classes), SENTENCES, p=probabilities / probabilities.sum())
        text[:, i] = np.where(random.random(SENTENCES) < 0.5, likely, other)
    return text


class Counts:
    """The n-grams of one order with their counts, sorted. The context of an n-gram is all of it but the end."""

    def __init__(self, grams: Integers, base: int) -> None:
        self.grams, self.counts = np.unique(grams, axis=0, return_counts=True)
        self.keys = keys(self.grams, base)
        self.contexts, self.context_of = np.unique(keys(self.grams[:, :-1], base), return_inverse=True)
        self.totals = np.bincount(self.context_of, self.counts)
        self.left = DISCOUNT * np.bincount(self.context_of) / self.totals  # for words not seen in the context

    def probabilities(self, shorter: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return P(word | context), given the probability of each n-gram without its first word."""
        seen = (self.counts - DISCOUNT) / self.totals[self.context_of]
        return seen + self.left[self.context_of] * shorter

    def backoffs(self, contexts: Integers) -> NDArray[np.float64]:
        """Return the backoff weight of contexts: 1 where nothing follows them."""
        place = np.searchsorted(self.contexts, contexts).clip(max=len(self.contexts) - 1)
        return np.where(self.contexts[place] == contexts, self.left[place], 1.0)


def keys(grams: Integers, base: int) -> Integers:
    key = np.zeros(len(grams), np.int64)
    for column in grams.T:
        key = key * base + column
    return key


def write_arpa(path: Path, classes: int, seed: int = 0) -> None:
    """Write a 3-gram over the tokens from 1 to `classes` - 1, with `names` as words."""
    text, base = draw_text(classes, seed), classes + 2
    words = [*names(classes), "<s>", "</s>"]
    pairs, triples = (
        Counts(np.lib.stride_tricks.sliding_window_view(text, n, axis=1).reshape(-1, n), base) for n in (2, 3)
    )
    single: Any = np.bincount(text[:, 1:].reshape(-1), minlength=base) + 1.0  # no token is impossible
    single[[0, classes]] = 0
    single /= single.sum()
    double = pairs.probabilities(single[pairs.grams[:, 1]])
    tail = np.searchsorted(pairs.keys, keys(triples.grams[:, 1:], base))
    triple = triples.probabilities(double[tail])
    known = np.flatnonzero(single)
    known = np.append(known, classes)
    levels: list[tuple[Any, Any, Any]] = [
        (known[:, None], single[known], pairs.backoffs(known)),
        (pairs.grams, double, triples.backoffs(pairs.keys)),
        (triples.grams, triple, None),
    ]
    with path.open("w", encoding="utf-8") as file:
        file.write("\\data\\\n")
        file.writelines(f"ngram {n}={len(grams)}\n" for n, (grams, *_) in enumerate(levels, start=1))
        for n, (grams, probability, backoff) in enumerate(levels, start=1):
            file.write(f"\n\\{n}-grams:\n")
            logs = np.log10(np.maximum(probability, 1e-99)).tolist()  # P(<s>) is never used
            ends = [""] * len(logs) if backoff is None else [f"\t{b:.6f}" for b in np.log10(backoff).tolist()]
            for gram, log, end in zip(grams.tolist(), logs, ends):
                file.write(f"{log:.6f}\t{' '.join(words[i] for i in gram)}{end}\n")
        file.write("\n\\end\\\n")


def draw_hotwords(classes: int, seed: int = 0) -> dict[tuple[int, ...], float]:
    """Return `HOTWORDS` phrases of four to eight tokens, with a bonus for each."""
    random = np.random.default_rng(seed)
    phrases: dict[tuple[int, ...], float] = {}
    while len(phrases) < HOTWORDS:
        phrases[tuple(random.integers(1, classes, random.integers(4, 9)).tolist())] = BONUS
    return phrases
