"""Reading images with a trained model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fastctc.crnn.checkpoint import Checkpoint, load_checkpoint
from fastctc.crnn.model import CRNN
from fastctc.crnn.preprocess import ImageError, ImageLike, PreprocessConfig, load_grey, normalize, pad_batch
from fastctc.decode import greedy_decode
from fastctc.loss import ctc_loss
from fastctc.text import Alphabet

SHIPPED_CHECKPOINT = Path(__file__).with_name("formula.safetensors")


@dataclass(frozen=True)
class Hypothesis:
    """One possible text with its natural-log probability given the image, summed over all alignments."""

    text: str
    log_prob: float


@dataclass(frozen=True)
class Reading:
    """What was read from one image.

    Attributes:
        text: the best text; empty if the image could not be read.
        score: natural-log probability of ``text`` given the image; -inf if the image could not be read.
        nbest: hypotheses, the best first.
        error: why the image could not be read; None if it could.
    """

    text: str
    score: float
    nbest: list[Hypothesis] = field(default_factory=list)
    error: str | None = None


class Recognizer:
    """A trained model that reads images.

    Example:
        >>> recognizer = Recognizer.from_checkpoint()  # doctest: +SKIP
        >>> [reading.text for reading in recognizer.read(["formula.png"])]  # doctest: +SKIP
        ['(6*8)+3=51']
    """

    def __init__(self, checkpoint: Checkpoint, device: str | torch.device = "cpu") -> None:
        self.checkpoint = checkpoint
        self.alphabet = checkpoint.alphabet
        self.device = torch.device(device)
        self.model: CRNN = checkpoint.model.to(self.device).eval()
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @classmethod
    def from_checkpoint(
        cls, path: str | Path | None = None, device: str | torch.device = "cpu"
    ) -> Recognizer:
        """A recogniser from a checkpoint file; None: the checkpoint that ships with the package."""
        return cls(load_checkpoint(SHIPPED_CHECKPOINT if path is None else path), device)

    def read(self, images: Iterable[ImageLike], batch_size: int = 64) -> list[Reading]:
        """Reads images of any kind and size, in the order given.

        Args:
            images: paths, encoded bytes, PIL images or uint8 arrays.
            batch_size: images that go through the model together; no influence on the result.

        Returns:
            One reading an image; an image that cannot be read gives one with ``error`` set.
        """
        return list(self.read_stream(images, batch_size))

    def read_stream(self, images: Iterable[ImageLike], batch_size: int = 64) -> Iterator[Reading]:
        """As ``read``, yielding batch after batch: only one batch of images is in memory."""
        chunk: list[ImageLike] = []
        for image in images:
            chunk.append(image)
            if len(chunk) == batch_size:
                yield from self._read_chunk(chunk)
                chunk = []
        yield from self._read_chunk(chunk)

    def _read_chunk(self, images: Sequence[ImageLike]) -> list[Reading]:
        readings: list[Reading | None] = []
        greys = []
        for image in images:
            try:
                greys.append(load_grey(image, self.checkpoint.preprocess))
                readings.append(None)
            except ImageError as error:
                readings.append(Reading("", float("-inf"), error=str(error)))
        read = iter(self._read_greys(greys))
        return [next(read) if reading is None else reading for reading in readings]

    def _read_greys(self, greys: list[npt.NDArray[np.uint8]]) -> list[Reading]:
        """Readings of preprocessed images: the greedy hypothesis with its exact probability."""
        if not greys:
            return []
        log_probs, lengths = infer(self.model, greys, self.checkpoint.preprocess, self.device)
        readings = []
        for hypotheses in greedy_hypotheses(log_probs, lengths, self.alphabet):
            best = hypotheses[0]
            readings.append(Reading(best.text, best.log_prob, hypotheses))
        return readings


def infer(
    model: CRNN,
    greys: list[npt.NDArray[np.uint8]],
    preprocess: PreprocessConfig,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Log-probabilities (N, T, C) and lengths (N,) of preprocessed images, (H, W_n) uint8 each."""
    pixels, widths = pad_batch(greys)
    with torch.inference_mode():
        images = normalize(pixels.to(device), widths.to(device), preprocess)
        log_probs, lengths = model(images.contiguous(memory_format=torch.channels_last), widths.to(device))
    return log_probs, lengths


def greedy_texts(log_probs: Tensor, lengths: Tensor, alphabet: Alphabet) -> list[str]:
    """The text of the most probable path of each image."""
    return [alphabet.decode(row) for row in greedy_decode(log_probs, lengths, blank=alphabet.blank).to_list()]


def greedy_hypotheses(log_probs: Tensor, lengths: Tensor, alphabet: Alphabet) -> list[list[Hypothesis]]:
    """For each image a list of one: the greedy text, scored over all its alignments rather than the best one.

    Args:
        log_probs: (N, T, C).
        lengths: (N,) frames of each image.
        alphabet: characters and blank.

    Returns:
        N lists of hypotheses.
    """
    decoded = greedy_decode(log_probs, lengths, blank=alphabet.blank)
    targets = decoded.tokens.clamp_min(
        0 if alphabet.blank else 1
    )  # the padding must be a class, but is not used
    losses = ctc_loss(
        log_probs.transpose(0, 1), targets, lengths, decoded.lengths, blank=alphabet.blank, reduction="none"
    )
    texts = [alphabet.decode(row) for row in decoded.to_list()]
    return [[Hypothesis(text, -loss)] for text, loss in zip(texts, losses.tolist(), strict=True)]
