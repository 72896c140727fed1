"""Reading images with a trained model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fastctc.crnn.data.preprocess import (
    ImageError,
    ImageLike,
    PreprocessConfig,
    load_grey,
    normalize,
    pad_batch,
)
from fastctc.crnn.model.checkpoint import Checkpoint, load_checkpoint
from fastctc.crnn.model.network import CRNN
from fastctc.crnn.read.constraint import Constraint
from fastctc.crnn.read.decoding import Decoder, Hypothesis

CHECKPOINTS = {
    "shipped": Path(__file__).parents[1] / "formulas" / "formula.safetensors",
    "wide": Path(__file__).parents[1] / "formulas" / "formula-wide.safetensors",
}
"""The checkpoints that come with the package: the second has seen many more fonts, and reads others better."""


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
    def from_checkpoint(cls, path: str | Path = "shipped", device: str | torch.device = "cpu") -> Recognizer:
        """A recogniser from a checkpoint: a file, or the name of one of :data:`CHECKPOINTS`."""
        return cls(load_checkpoint(checkpoint_path(path)), device)

    def read(
        self,
        images: Iterable[ImageLike],
        batch_size: int = 64,
        *,
        beam_size: int | None = None,
        nbest: int = 1,
        constraint: Constraint | None = None,
    ) -> list[Reading]:
        """Reads images of any kind and size, in the order given.

        Args:
            images: paths, encoded bytes, PIL images or uint8 arrays.
            batch_size: images that go through the model together; no influence on the result.
            beam_size: prefixes in the beam of :func:`fastctc.beam_search`; None: greedy decoding, or 20 with a
                constraint.
            nbest: hypotheses an image, at most ``beam_size``, or 1 without one.
            constraint: what texts are allowed, see :mod:`fastctc.crnn.read.constraint`; None: all.
                Of its n-best only the first is sure to be the most probable of all that are allowed.

        Returns:
            One reading an image; an image that cannot be read gives one with ``error`` set.

        Raises:
            ValueError: ``batch_size``, ``beam_size`` or ``nbest`` out of range, or a constraint with no text made
                of the model's characters.
        """
        return list(
            self.read_stream(images, batch_size, beam_size=beam_size, nbest=nbest, constraint=constraint)
        )

    def read_stream(
        self,
        images: Iterable[ImageLike],
        batch_size: int = 64,
        *,
        beam_size: int | None = None,
        nbest: int = 1,
        constraint: Constraint | None = None,
    ) -> Iterator[Reading]:
        """As ``read``, yielding batch after batch: only one batch of images is in memory."""
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, expected at least 1")
        decoder = Decoder(self.alphabet, beam_size=beam_size, nbest=nbest, constraint=constraint)
        chunks = iter(images)
        return (
            reading
            for chunk in iter(lambda: list(islice(chunks, batch_size)), [])
            for reading in self._read_chunk(chunk, decoder)
        )

    def _read_chunk(self, images: Sequence[ImageLike], decoder: Decoder) -> list[Reading]:
        readings: list[Reading | None] = []
        greys = []
        for image in images:
            try:
                greys.append(load_grey(image, self.checkpoint.preprocess))
                readings.append(None)
            except ImageError as error:
                readings.append(Reading("", float("-inf"), error=str(error)))
        read = iter(self._read_greys(greys, decoder))
        return [next(read) if reading is None else reading for reading in readings]

    def _read_greys(self, greys: list[npt.NDArray[np.uint8]], decoder: Decoder) -> list[Reading]:
        """Readings of preprocessed images."""
        if not greys:
            return []
        log_probs, lengths = infer(self.model, greys, self.checkpoint.preprocess, self.device)
        return [_reading(hypotheses) for hypotheses in decoder(log_probs, lengths)]


def checkpoint_path(path: str | Path) -> Path:
    """The file that a name of :data:`CHECKPOINTS` stands for, or the path that was given."""
    return CHECKPOINTS.get(str(path), Path(path))


def _reading(hypotheses: list[Hypothesis]) -> Reading:
    if not hypotheses:
        return Reading("", float("-inf"), error="no allowed text has a probability above 0")
    return Reading(hypotheses[0].text, hypotheses[0].log_prob, hypotheses)


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
