"""The place of each character in an image, and its confidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fastctc.alignment import ctc_posteriors
from fastctc.crnn.data import ImageError, ImageLike, Pixels, own_torch_state, prepare
from fastctc.crnn.read.inference import reading_config
from fastctc.crnn.read.recognize import Reading, Recognizer
from fastctc.text import TextSpan, character_spans

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Explanation", "explain"]


@dataclass(frozen=True)
class Explanation:
    """A reading of an image with its alignment.

    Attributes:
        reading: what :meth:`fastctc.crnn.Recognizer.read` returns.
        image: (H, W) uint8, the model's input.
        characters: the characters of the text, in columns of ``image``, each with its confidence.
        posteriors: (T, characters) the probability that a character is what a frame shows, given the text.
        columns_per_frame: columns of ``image``.
    """

    reading: Reading
    image: Pixels
    characters: list[TextSpan]
    posteriors: Tensor
    columns_per_frame: int

    def plot(self) -> Figure:
        """Draw the image, its characters and their posteriors; needs matplotlib."""
        from fastctc.plot import plot_alignment

        text, sure = self.reading.text, 100 * self.reading.confidence
        return plot_alignment(
            self.characters,
            image=self.image,
            posteriors=self.posteriors,
            scale=self.columns_per_frame,
            title=text or "(no text)",
            note=f"probability {sure:.4g}%",
            unit="image column",
        )


@own_torch_state()
def explain(recognizer: Recognizer, image: ImageLike, reading: Reading | None = None) -> Explanation:
    """Read one image and align what was read with it.

    Args:
        recognizer: a trained model.
        image: a path, encoded bytes, a PIL image or a uint8 array.
        reading: a reading of the image; None: the image is read greedily.

    Returns:
        The reading with its alignment.

    Raises:
        ImageError: the image cannot be read.
    """
    pixels = prepare(image, reading_config(recognizer.checkpoint.preprocess)).pixels
    reading = recognizer.read(image) if reading is None else reading
    evidence, alphabet = reading.evidence, recognizer.alphabet
    if evidence is None:
        raise ImageError(reading.error or "nothing was read")
    columns = recognizer.model.config.columns_per_frame
    target = torch.tensor([alphabet.encode(reading.text)], dtype=torch.int64)
    frames = evidence.log_probs
    posteriors = ctc_posteriors(
        frames[:, None], target, [len(frames)], [target.shape[1]], alphabet.blank, compact=True
    )
    characters = character_spans(evidence.align(reading.text), alphabet, columns)
    return Explanation(reading, pixels, characters, posteriors[0], columns)
