"""Labels that a trained model does not believe."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch

from fastctc.crnn.data import ImageError, ImageLike, LabelError, NamedSource
from fastctc.crnn.read import Evidence, Recognizer
from fastctc.loss import ctc_loss

_BATCH = 64


class Suspect(NamedTuple):
    """A sample whose label is less probable than what a model reads.

    Attributes:
        name: name of the sample.
        label: its label.
        read: the text that was read.
        doubt: natural logarithm of the ratio of both probabilities; infinite for characters that the model lacks.
    """

    name: str
    label: str
    read: str
    doubt: float


def suspects(
    recognizer: Recognizer,
    data: NamedSource,
    indices: Iterable[int],
    *,
    on_progress: Callable[[int], object] = lambda done: None,
) -> list[Suspect]:
    """Read samples and return those whose label differs from the text, the least credible label first.

    A model that was trained on a few wrong labels tends to read such images rightly nevertheless.

    Args:
        recognizer: the model.
        data: the samples. Those that cannot be read are left out.
        indices: which samples.
        on_progress: called with 1 after each sample.
    """
    chosen = list(indices)
    labels: list[tuple[str, str]] = []

    def images() -> Iterator[ImageLike]:
        for index in chosen:
            try:
                image, label = data(index)
            except (ImageError, LabelError):
                on_progress(1)
                continue
            labels.append((data.name(index), label))
            yield image

    found = []
    for n, reading in enumerate(recognizer.read_stream(images(), _BATCH)):
        name, label = labels[n]
        on_progress(1)
        if reading.evidence is not None and reading.text != label:
            doubt = reading.score - _log_probability(reading.evidence, label)
            found.append(Suspect(name, label, reading.text, doubt))
    return sorted(found, key=lambda each: -each.doubt)


def _log_probability(evidence: Evidence, text: str) -> float:
    """Return the natural logarithm of a text's probability; -inf if the model cannot write it."""
    alphabet = evidence.alphabet
    try:
        tokens = torch.tensor(alphabet.encode(text), dtype=torch.int64)
    except ValueError:
        return float("-inf")
    frames, count = torch.tensor(len(evidence.log_probs)), torch.tensor(len(tokens))
    loss = ctc_loss(evidence.log_probs, tokens, frames, count, blank=alphabet.blank, reduction="sum")
    return -float(loss)
