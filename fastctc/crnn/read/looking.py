"""From prepared images to hypotheses, with a second look at images whose text is doubtful.

A model that misreads a slanted or narrow word often reads it in another shape: wider, upright or turned. The second
look shows it such views, and each view votes for its text with its confidence::

    image ── model ──> text, confidence
                         │ below ``second_look``
                         └─> views ── model ──> texts ── vote ──> text

This is averaging over views at test time, of texts in place of classes (Krizhevsky, Sutskever and Hinton, ImageNet
Classification with Deep Convolutional Neural Networks, 2012, section 4.1).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastctc.crnn.data import Pixels, PreprocessConfig, prepare
from fastctc.crnn.model import CRNN
from fastctc.crnn.read.calibration import confidence_of
from fastctc.crnn.read.decoding import Decoder, Hypothesis
from fastctc.crnn.read.inference import infer


@dataclass(frozen=True)
class Look:
    """The output of a model for an image, and the texts found in it.

    Attributes:
        hypotheses: the best first.
        log_probs: (T, C) natural-log probabilities, on the CPU.
        width: columns of the image that the model saw.
    """

    hypotheses: list[Hypothesis]
    log_probs: Tensor
    width: int


def look(
    model: CRNN,
    images: list[Pixels],
    preprocess: PreprocessConfig,
    decoder: Decoder,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
) -> list[Look]:
    """Return what a model sees in images, see :func:`fastctc.crnn.read.infer` and :class:`Decoder`."""
    log_probs, lengths = infer(model, images, preprocess, device, precision)
    frames = log_probs.cpu()
    return [
        Look(hypotheses, frames[n, : int(lengths[n])], image.shape[1])
        for n, (hypotheses, image) in enumerate(zip(decoder(log_probs, lengths), images, strict=True))
    ]


def look_twice(
    images: list[Pixels],
    see: Callable[[list[Pixels]], list[Look]],
    crop: bool,
    second_look: float,
    temperature: float,
) -> list[Look]:
    """Return what is seen in images, by a vote of several views where the confidence is low.

    Args:
        images: (H, W) uint8 each.
        see: returns what a model sees in images.
        crop: see :func:`views`.
        second_look: the confidence below which views are looked at; 0: none.
        temperature: of the model, see :func:`confidence_of`.
    """
    looks = see(images)
    doubtful = [
        n for n, each in enumerate(looks) if each.hypotheses and _confidence(each, temperature) < second_look
    ]
    shapes = zip(*(views(images[n], crop) for n in doubtful), strict=True)
    again = [see([*each]) for each in shapes]  # one kind of view after the other: no batch is larger
    for n, *seen in zip(doubtful, *again, strict=True):
        looks[n] = _elected([looks[n], *seen], temperature)
    return looks


def _confidence(look: Look, temperature: float) -> float:
    """Return the confidence in the best text, which there is."""
    return confidence_of(look.hypotheses[0].log_prob, temperature)


def _elected(looks: Sequence[Look], temperature: float) -> Look:
    """Return the most confident look at the text with the largest sum of confidences."""
    votes: defaultdict[str, float] = defaultdict(float)
    looks = [each for each in looks if each.hypotheses]
    for each in looks:
        votes[each.hypotheses[0].text] += _confidence(each, temperature)
    return max(looks, key=lambda each: (votes[each.hypotheses[0].text], _confidence(each, temperature)))


def views(pixels: Pixels, crop: bool) -> list[Pixels]:
    """Return the shapes in which an image (H, W) is looked at again, H rows each: wider, upright, turned.

    Args:
        pixels: the image.
        crop: cut off empty rows, see :class:`fastctc.crnn.data.PreprocessConfig`.
    """
    picture, rows = Image.fromarray(pixels), pixels.shape[0]
    fine, ground = Image.Resampling.BICUBIC, int(np.median(pixels))
    shear = (1, -0.4, 0, 0, 1, 0)  # the upper rows go to the left, so that slanted letters stand upright
    angle = min(5.0, math.degrees(math.atan(rows / picture.width)))  # twice the rows at most
    pictures = [
        picture.resize((round(1.3 * picture.width) + 1, rows), fine),
        picture.transform(
            (picture.width + int(0.4 * rows), rows), Image.Transform.AFFINE, shear, fine, fillcolor=ground
        ),
        picture.rotate(-angle, fine, expand=True, fillcolor=ground),
        picture.rotate(angle, fine, expand=True, fillcolor=ground),
    ]
    config = PreprocessConfig(
        height=rows, ink="gray", tone=0.0, crop=crop, max_width=2 * picture.width + 2 * rows
    )
    return [prepare(each, config).pixels for each in pictures]
