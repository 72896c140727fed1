"""Where in an image a recogniser saw each character, and how sure it was."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from fastctc.alignment import ctc_posteriors, forced_align, merge_tokens
from fastctc.crnn.data.preprocess import ImageLike, load_grey
from fastctc.crnn.read.recognize import Reading, Recognizer, infer
from fastctc.text import TextSpan, character_spans

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Explanation", "explain"]


@dataclass(frozen=True)
class Explanation:
    """What was read from an image, and why.

    Attributes:
        reading: what :meth:`Recognizer.read` returns.
        image: (H, W) uint8, what the model saw: grey levels at its height.
        characters: the characters of the text, in columns of ``image``, each with its confidence.
        posteriors: (T, characters) the probability that a character is what a frame shows, given the text.
        columns_per_frame: columns of ``image``.
    """

    reading: Reading
    image: npt.NDArray[np.uint8]
    characters: list[TextSpan]
    posteriors: Tensor
    columns_per_frame: int

    def plot(self) -> Figure:
        """The image, its characters and their posteriors; needs matplotlib."""
        from fastctc.plot import plot_alignment

        text, sure = self.reading.text, 100 * math.exp(self.reading.score)
        return plot_alignment(
            self.characters,
            image=self.image,
            posteriors=self.posteriors,
            scale=self.columns_per_frame,
            title=text or "(no text)",
            note=f"probability {sure:.4g}%",
            unit="image column",
        )


def explain(recognizer: Recognizer, image: ImageLike, reading: Reading | None = None) -> Explanation:
    """Reads one image and aligns what was read with it.

    Args:
        recognizer: a trained model.
        image: a path, encoded bytes, a PIL image or a uint8 array.
        reading: what was read from it already; None: it is read greedily.

    Returns:
        The reading with its alignment.

    Raises:
        ImageError: the image cannot be read.
    """
    grey = load_grey(image, recognizer.checkpoint.preprocess)
    if reading is None:
        (reading,) = recognizer.read([image])
    log_probs, lengths = infer(recognizer.model, [grey], recognizer.checkpoint.preprocess, recognizer.device)
    alphabet = recognizer.alphabet
    target = lengths.new_tensor([alphabet.encode(reading.text)])
    of_target: dict[str, Any] = {
        "input_lengths": lengths,
        "target_lengths": [target.shape[1]],
        "blank": alphabet.blank,
    }
    paths, scores = forced_align(log_probs, target, **of_target)
    (tokens,) = merge_tokens(paths, scores, alphabet.blank)
    columns = recognizer.model.config.columns_per_frame
    posteriors = ctc_posteriors(log_probs.transpose(0, 1), target, compact=True, **of_target)
    return Explanation(
        reading, grey, character_spans(tokens, alphabet, columns), posteriors[0, : int(lengths)], columns
    )
