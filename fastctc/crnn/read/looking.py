"""From prepared images to hypotheses, with a second look at images whose text is doubtful.

A model that misreads a word often reads it in another form: wider or narrower, by its colors where gray levels
hardly show it, straightened if it is on an arc, or turned if it stands on its side. The second look shows it such
views, and each view votes for its text with its confidence::

    image ── model ──> text, confidence
                         │ below ``second_look``, or no text
                         └─> views ── model ──> texts ── vote ──> text

This is averaging over views at test time, of texts in place of classes (Krizhevsky, Sutskever and Hinton, ImageNet
Classification with Deep Convolutional Neural Networks, 2012, section 4.1).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from PIL.Image import Resampling, Transpose
from torch import Tensor

from fastctc.crnn.data import ImageError, ImageLike, Pixels, PreprocessConfig, decode, prepare
from fastctc.crnn.model import CRNN
from fastctc.crnn.read.arcs import straightened
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
    original: Callable[[int], ImageLike],
    preprocess: PreprocessConfig,
    second_look: float,
    temperature: float,
) -> list[Look]:
    """Return what is seen in images, by a vote of several views where the confidence is low.

    Args:
        images: (H, W) uint8 each.
        see: returns what a model sees in images; it is given at most as many as ``images``.
        original: returns the image, as it was before :func:`fastctc.crnn.data.prepare`, by its place in ``images``.
        preprocess: how views are prepared.
        second_look: the confidence below which views are looked at, as where no text is seen; 0: nowhere.
        temperature: of the model, see :func:`confidence_of`.
    """
    looks = see(images)

    def is_doubtful(look: Look) -> bool:
        if not (second_look and look.hypotheses):
            return False
        return not look.hypotheses[0].text or _confidence(look, temperature) < second_look

    doubtful = [n for n, each in enumerate(looks) if is_doubtful(each)]
    forms = [(n, form) for n in doubtful for form in views(original(n), preprocess)]
    forms.sort(key=lambda each: each[1].shape[1])  # similar widths in a batch: less padding
    again: defaultdict[int, list[Look]] = defaultdict(list)
    for start in range(0, len(forms), len(images)):
        batch = forms[start : start + len(images)]
        for (n, _), seen in zip(batch, see([form for _, form in batch]), strict=True):
            again[n].append(seen)
    for n in doubtful:
        shown = [each for each in again[n] if each.hypotheses and each.hypotheses[0].text]
        looks[n] = _elected([looks[n], *shown], temperature)
    return looks


def _confidence(look: Look, temperature: float) -> float:
    """Return the confidence in the best text, which there is."""
    return confidence_of(look.hypotheses[0].log_prob, temperature)


def _elected(looks: Sequence[Look], temperature: float) -> Look:
    """Return the most confident look at the text with the most votes.

    A confidence counts once for each character: one letter is more easily seen where none is than a word.
    """
    votes: defaultdict[str, float] = defaultdict(float)
    for each in looks:
        text = each.hypotheses[0].text
        votes[text] += max(1, len(text)) * _confidence(each, temperature)
    return max(looks, key=lambda each: (votes[each.hypotheses[0].text], _confidence(each, temperature)))


def views(image: ImageLike, preprocess: PreprocessConfig) -> list[Pixels]:
    """Return the forms in which an image is looked at again.

    It is made wider and narrower, and it is looked at in two of its colors, or turned a little if it has hardly
    any. An image of the proportions of an arc is straightened, for arcs up and down. A tall image is also turned to
    each side, and has these forms there too.

    Args:
        image: the original image. If it cannot be read any more, there are no forms.
        preprocess: how they are prepared. What it refuses, such as a form that is too wide, is left out.

    Returns:
        (preprocess.rows, W) uint8 each.
    """
    try:
        picture = decode(image, preprocess.max_pixels).picture
    except ImageError:
        return []
    if picture.mode == "1":
        picture = picture.convert("L")
    if (factor := min(picture.size) // (_ROWS * preprocess.rows)) > 1:
        picture = picture.reduce(factor)
    lying = []
    if picture.height > _TALL * picture.width:
        lying = [picture.transpose(each) for each in (Transpose.ROTATE_90, Transpose.ROTATE_270)]
    forms = lying + [form for each in [picture, *lying] for form in _forms(each)]
    found = []
    for each in forms:
        with suppress(ImageError):
            found.append(prepare(each, preprocess).pixels)
    return found


_ROWS = 4  # of the original image for each row of a view
_TALL = 1.5  # rows for each column, from which a text may stand on its side
_COLORFUL = 8.0  # standard deviation of the saturation from which an image is looked at in its colors


def _forms(picture: Image.Image) -> list[Image.Image]:
    widths = (round(share * picture.width) + 1 for share in (1.3, 0.8))
    stretched = [picture.resize((width, picture.height), Resampling.BICUBIC) for width in widths]
    return stretched + (_colors(picture) or _turned(picture)) + straightened(picture)


def _colors(picture: Image.Image) -> list[Image.Image]:
    """Return the saturation of a picture, and its red over its blue; nothing if it has hardly any color."""
    if picture.mode != "RGB":
        return []
    colors = np.asarray(picture, dtype=np.int16)
    saturation = colors.max(2) - colors.min(2)
    if saturation.std() < _COLORFUL:
        return []
    red_over_blue = (colors[..., 0] - colors[..., 2] + 256) // 2
    return [Image.fromarray(each.astype(np.uint8)) for each in (saturation, red_over_blue)]


def _turned(picture: Image.Image) -> list[Image.Image]:
    """Return a picture turned by 5 degrees to each side, or by so much that it has at most twice the rows."""
    angle = min(5.0, math.degrees(math.atan(picture.height / picture.width)))
    ground = tuple(np.median(np.asarray(picture), axis=(0, 1)).astype(int).reshape(-1).tolist())
    return [
        picture.rotate(each, Resampling.BICUBIC, expand=True, fillcolor=ground) for each in (-angle, angle)
    ]
