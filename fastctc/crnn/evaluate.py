"""How well a model reads: exact match, character error rate, and what it got wrong."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from fastctc.crnn.collect import Samples
from fastctc.crnn.decoding import greedy_texts
from fastctc.crnn.model import CRNN
from fastctc.crnn.preprocess import PreprocessConfig
from fastctc.crnn.recognize import infer
from fastctc.text import Alphabet


@dataclass
class Evaluation:
    """Counts over a set of samples.

    Attributes:
        count: samples read.
        correct: samples read exactly.
        edits: character insertions, deletions and substitutions between what was read and what was right.
        characters: characters of the right texts.
        mistakes: (name, right text, text read) of every sample not read exactly.
    """

    count: int = 0
    correct: int = 0
    edits: int = 0
    characters: int = 0
    mistakes: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def exact_match(self) -> float:
        """Share of the samples read exactly, 0 to 1; 0 if there are none."""
        return self.correct / max(1, self.count)

    @property
    def character_error_rate(self) -> float:
        """Edits per character of the right texts."""
        return self.edits / max(1, self.characters)

    def add(self, name: str, right: str, read: str) -> None:
        """Counts one sample."""
        self.count += 1
        self.characters += len(right)
        if read == right:
            self.correct += 1
            return
        self.edits += edit_distance(right, read)
        self.mistakes.append((name, right, read))

    def summary(self) -> str:
        """One line for people."""
        return (
            f"exact match {100 * self.exact_match:.2f}% ({self.correct} of {self.count}),"
            f" character error rate {100 * self.character_error_rate:.3f}%"
        )


def evaluate(
    model: CRNN,
    samples: Samples,
    alphabet: Alphabet,
    preprocess: PreprocessConfig,
    *,
    batch_size: int = 128,
    device: torch.device | str = "cpu",
) -> Evaluation:
    """Reads every sample greedily and counts; the model is left in the mode it was in."""
    result = Evaluation()
    was_training = model.training
    model.eval()
    for start in range(0, len(samples), batch_size):
        part = slice(start, start + batch_size)
        log_probs, lengths = infer(model, samples.images[part], preprocess, device)
        texts = greedy_texts(log_probs, lengths, alphabet)
        for name, right, read in zip(samples.names[part], samples.texts[part], texts, strict=True):
            result.add(name, right, read)
    model.train(was_training)
    return result


def edit_distance(a: str, b: str) -> int:
    """Levenshtein distance: the fewest insertions, deletions and substitutions that turn ``a`` into ``b``."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]
