"""What the word search benchmark decodes: utterances, their references, spellings and a word model.

speech    phoneme posteriors of a speech model (see prepare_speech.py); `<wb>` ends each spelling
letters   letter posteriors drawn from a seed for the same sentences; a space follows each word, because flashlight
          drops a word without it

Each letter has one or two frames and up to two blanks after it. A frame's logits are standard normal, and the true
class gets `STRENGTH` more. In the share `CONFUSED` of the frames another class gets as much. In the share `WRONG`
the true class gets half. So a frame has about ten classes above exp(-5), where pyctcdecode cuts.

Sentences take turns: the even ones are for tuning, the odd ones for the result. No sentence is in both.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

LETTERS = ["", " ", "'", *"abcdefghijklmnopqrstuvwxyz"]  # the blank first
STRENGTH, WRONG, CONFUSED = 5.5, 0.3, 0.3
FILES = ["words.arpa", "lexicon.txt", "tokens.txt", "phonemes.npz", "references.txt"]
ALTERNATIVE = re.compile(r"\(\d+\)$")

Words = list[list[str]]  # [utterance][word]


@dataclass(frozen=True)
class Case:
    """Utterances with one set of tokens. `separator` is None where a token ends each spelling."""

    name: str
    tokens: list[str]
    blank: int
    separator: int | None
    arpa: Path
    lexicon: dict[str, list[tuple[int, ...]]]
    utterances: list[Tensor]  # (T, C) float32 each, natural-log probabilities
    references: Words

    @property
    def frames(self) -> int:
        return sum(map(len, self.utterances))

    def first(self, count: int) -> Case:
        """Return the case of the first utterances alone."""
        return Case(
            **{**self.__dict__, "utterances": self.utterances[:count], "references": self.references[:count]}
        )


def check_folder(folder: Path) -> None:
    """Raise an error if the folder lacks a file.

    Raises:
        FileNotFoundError: the message tells how to make it.
    """
    missing = [name for name in FILES if not (folder / name).exists()]
    if missing:
        raise FileNotFoundError(
            f"{folder} lacks {', '.join(missing)}: run `python benchmarks/prepare_speech.py {folder}`"
        )


def read_lexicon(path: Path, tokens: list[str]) -> dict[str, list[tuple[int, ...]]]:
    label = {token: i for i, token in enumerate(tokens)}
    lexicon: dict[str, list[tuple[int, ...]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        word, *names = line.split()
        lexicon.setdefault(ALTERNATIVE.sub("", word), []).append(tuple(label[name] for name in names))
    return lexicon


def in_half(sentence: int, half: str) -> bool:
    return half == "all" or (sentence % 2 == 0) == (half == "tuning")


def speech(folder: Path, half: str) -> Case:
    """Return the phoneme posteriors of a half ("tuning", "report") or of all sentences."""
    tokens = (folder / "tokens.txt").read_text(encoding="utf-8").split("\n")[:-1]
    sentences = (folder / "references.txt").read_text(encoding="utf-8").splitlines()
    utterances, references = [], []
    with np.load(folder / "phonemes.npz") as archive:
        for name in archive.files:
            sentence = int(name.rsplit("_", 1)[1])
            if in_half(sentence, half):
                log_probs = (
                    torch.from_numpy(archive[name]).double().log_softmax(-1)
                )  # float16 is not normalized
                utterances.append(log_probs.float())
                references.append(sentences[sentence].split())
    return Case(
        name="speech",
        tokens=tokens,
        blank=len(tokens) - 1,
        separator=None,
        arpa=folder / "words.arpa",
        lexicon=read_lexicon(folder / "lexicon.txt", tokens),
        utterances=utterances,
        references=references,
    )


def letters(folder: Path, half: str) -> Case:
    """Return letter posteriors of the same sentences."""
    sentences = (folder / "references.txt").read_text(encoding="utf-8").splitlines()
    chosen = [i for i in range(len(sentences)) if in_half(i, half)]
    label = {token: i for i, token in enumerate(LETTERS)}
    words = {ALTERNATIVE.sub("", line.split(maxsplit=1)[0]) for line in (folder / "lexicon.txt").open()}
    spelled = sorted(word for word in words if label.keys() >= set(word))
    return Case(
        name="letters",
        tokens=LETTERS,
        blank=0,
        separator=1,
        arpa=folder / "words.arpa",
        lexicon={word: [tuple(label[letter] for letter in word)] for word in spelled},
        utterances=[draw_letters([label[c] for c in f"{sentences[i]} "], seed=i) for i in chosen],
        references=[sentences[i].split() for i in chosen],
    )


CASES = {"speech": speech, "letters": letters}


def draw_letters(text: list[int], seed: int) -> Tensor:
    """Return log-probabilities (T, C) float32 of a text."""
    random = np.random.default_rng(seed)
    path: list[int] = []
    for i, letter in enumerate(text):
        path += [letter] * int(random.integers(1, 3))
        repeated = i + 1 < len(text) and text[i + 1] == letter
        path += [0] * max(int(random.integers(0, 3)), repeated)
    size = len(path)
    logits = random.standard_normal((size, len(LETTERS)))
    frames = np.arange(size)
    logits[frames, path] += STRENGTH * np.where(random.random(size) < WRONG, 0.5, 1)
    confused = frames[random.random(size) < CONFUSED]
    logits[confused, random.integers(0, len(LETTERS), len(confused))] += STRENGTH
    return torch.from_numpy(logits).log_softmax(-1).float()


def errors(reference: list[str], found: list[str]) -> int:
    """Return the fewest insertions, deletions and substitutions between two sequences of words."""
    row = list(range(len(found) + 1))
    for i, word in enumerate(reference, start=1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(found, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1]


def word_error_rate(references: Words, found: Words) -> float:
    """Return errors per word of the references.

    Raises:
        ValueError: their numbers differ.
    """
    wrong = sum(errors(*pair) for pair in zip(references, found, strict=True))
    return wrong / sum(map(len, references)) if references else math.nan
