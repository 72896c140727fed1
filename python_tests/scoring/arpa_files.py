"""ARPA files of random n-gram models, and their probabilities by the definition of backoff."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

Ngrams = dict[tuple[str, ...], tuple[float, float]]
"""log10 P of the last word after the others, and log10 of the backoff weight."""


def random_model(seed: int, words: Sequence[str], order: int, *, with_endings: bool = False) -> Ngrams:
    """Return a model in which each n-gram has its context, and ``with_endings`` all of its endings."""
    rng = random.Random(seed)
    special = ["<s>", "</s>", *(["<unk>"] if seed % 2 else [])]
    ngrams: Ngrams = {}

    def add(ngram: tuple[str, ...]) -> None:
        backoff = 0.0 if len(ngram) == order or rng.random() < 0.4 else round(rng.uniform(-1, 0.3), 4)
        probability = -99.0 if ngram == ("<s>",) else round(rng.uniform(-3, -0.01), 4)
        ngrams[ngram] = probability, 0.0 if ngram[-1] == "</s>" else backoff

    for word in [*special, *words]:
        add((word,))
    for length in range(2, order + 1):
        contexts = [each for each in ngrams if len(each) == length - 1 and each[-1] != "</s>"]
        for context in contexts:
            for word in [*special[1:], *words]:
                if with_endings and (*context[1:], word) not in ngrams:
                    continue
                if rng.random() < (5.0 if with_endings and length > 2 else 2.0) / len(words):
                    add((*context, word))
    return ngrams


def write_arpa(path: Path, ngrams: Ngrams, seed: int = 0) -> Path:
    """Write the n-grams of each order in random order."""
    rng = random.Random(seed)
    order = max(map(len, ngrams))
    lines = ["", "\\data\\"]
    lines += [f"ngram {n}={sum(len(each) == n for each in ngrams)}" for n in range(1, order + 1)]
    for n in range(1, order + 1):
        lines += ["", f"\\{n}-grams:"]
        chosen = [each for each in ngrams if len(each) == n]
        rng.shuffle(chosen)
        for ngram in chosen:
            probability, backoff = ngrams[ngram]
            weight = f"\t{backoff}" if n < order and (backoff or rng.random() < 0.5) else ""
            lines.append(f"{probability}\t{' '.join(ngram)}{weight}")
    path.write_text("\n".join([*lines, "", "\\end\\", ""]), encoding="utf-8")
    return path


def probability(ngrams: Ngrams, context: Sequence[str], word: str) -> float:
    """Return log10 P(word | context)."""
    if (word,) not in ngrams:
        word = "<unk>"
    context = tuple(each if (each,) in ngrams else "<unk>" for each in context)
    context = context[max(0, len(context) - max(map(len, ngrams)) + 1) :]
    total = 0.0
    while (*context, word) not in ngrams:
        if not context:
            return total - 100.0  # no <unk>
        total += ngrams.get(context, (0.0, 0.0))[1]
        context = context[1:]
    return total + ngrams[(*context, word)][0]


def sentence_probability(
    ngrams: Ngrams, words: Sequence[str], *, bos: bool = True, eos: bool = True
) -> float:
    history, total = ["<s>"] if bos else [], 0.0
    for word in [*words, *(["</s>"] if eos else [])]:
        total += probability(ngrams, history, word)
        history.append(word)
    return total
