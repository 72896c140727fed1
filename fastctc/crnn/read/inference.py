"""From prepared images to a model's log-probabilities; an image of any width is read in tiles."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from fastctc.crnn.data import Pixels, PreprocessConfig, normalized_batch, own_torch_state
from fastctc.crnn.model import CRNN

PRECISIONS = ("fp32", "bf16")
_has_bf16 = torch.ops.mkldnn._is_mkldnn_bf16_supported

MAX_TILES = 32
"""Tiles of ``max_width`` columns that an image has at most."""

_CONTEXT = 4  # heights that a tile sees beyond its frames on both sides
_MULTIPLE = 16  # of columns: oneDNN keeps programs for 1,024 shapes, and making one takes as long as a layer
_PADDING = 128  # columns of padding in a batch that cost a CPU as much as one more call of a model


def reading_config(preprocess: PreprocessConfig) -> PreprocessConfig:
    """Return how images are prepared that are read, in tiles if they are wider than ``max_width``."""
    return replace(preprocess, max_width=MAX_TILES * preprocess.max_width)


def check_precision(precision: str, device: torch.device | str) -> None:
    """Raise ValueError if a precision is not one of ``PRECISIONS``, or if the processor cannot compute in it."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}, expected one of {', '.join(PRECISIONS)}")
    if precision == "bf16" and torch.device(device).type == "cpu" and not _has_bf16():
        raise ValueError("precision is 'bf16', which this processor cannot compute: use 'fp32'")


def infer(
    model: CRNN,
    images: list[Pixels],
    preprocess: PreprocessConfig,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
) -> tuple[Tensor, Tensor]:
    """Return log-probabilities of prepared images.

    Images wider than ``max_width`` go through the model in overlapping tiles, whose frames are joined.

    Args:
        model: in evaluation mode, on ``device``.
        images: N arrays (H, W_n) uint8.
        preprocess: the settings the images were made with.
        device: where the model is.
        precision: ``"fp32"``, or ``"bf16"``: convolutions and matrix products in bfloat16.

    Returns:
        log_probs (N, T, C) float32 natural-log probabilities, and lengths (N,) int64, the frames of each image.
        Frames beyond an image's length carry no meaning.
    """
    with (
        own_torch_state(),
        torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16"),
    ):
        return _infer(model, images, preprocess, device)


def _infer(
    model: CRNN, images: list[Pixels], preprocess: PreprocessConfig, device: torch.device | str
) -> tuple[Tensor, Tensor]:
    """Return log-probabilities (N, T, C) and lengths (N,) in the precision that is set."""
    groups = _groups([image.shape[1] for image in images], preprocess.max_width, device)
    if len(groups) == 1 and images[groups[0][0]].shape[1] <= preprocess.max_width:
        return _infer_batch(model, images, preprocess, device)
    frames: list[Tensor] = [torch.empty(0)] * len(images)
    for group in groups:
        if images[group[0]].shape[1] > preprocess.max_width:
            frames[group[0]] = _infer_tiles(model, images[group[0]], preprocess, device)
            continue
        log_probs, lengths = _infer_batch(model, [images[n] for n in group], preprocess, device)
        for n, own, length in zip(group, log_probs, lengths.tolist(), strict=True):
            frames[n] = own[:length]
    padded = torch.nn.utils.rnn.pad_sequence(frames, batch_first=True)
    return padded, torch.tensor([len(each) for each in frames], device=padded.device)


def _groups(widths: list[int], max_width: int, device: torch.device | str) -> list[list[int]]:
    """Return the images that go through the model together, as indices: on a CPU, images of similar widths.

    An image wider than ``max_width`` is alone.
    """
    most = _PADDING if torch.device(device).type == "cpu" else math.inf
    groups: list[list[int]] = []
    widest = padding = 0
    for n in sorted(range(len(widths)), key=lambda n: -widths[n]):
        padding += widest - widths[n]
        if not groups or widest > max_width or padding > most:
            groups.append([])
            widest, padding = widths[n], 0
        groups[-1].append(n)
    return groups


def _infer_batch(
    model: CRNN, images: list[Pixels], preprocess: PreprocessConfig, device: torch.device | str
) -> tuple[Tensor, Tensor]:
    """Return log-probabilities (N, T, C) and lengths (N,) of images that go through the model together."""
    multiple = 4 if model.direct is None else _MULTIPLE
    normalized, widths = normalized_batch(images, preprocess, device, multiple)
    padded = any(image.shape[1] < normalized.shape[3] for image in images)
    log_probs, lengths = model(
        normalized.contiguous(memory_format=torch.channels_last), widths if padded else None
    )
    return log_probs[:, : int(lengths.max())], lengths


def _infer_tiles(
    model: CRNN, image: Pixels, preprocess: PreprocessConfig, device: torch.device | str
) -> Tensor:
    """Return log-probabilities (T, C) of a wide image.

    ::

        columns   |<------ max_width ------>|
        tile 0    [ frames          |context]
        tile 1             [context| frames |context]
        tile 2                      [context| frames ]
    """
    step = model.config.columns_per_frame
    context = _CONTEXT * image.shape[0] // step * step
    own = max(step, preprocess.max_width // step * step - 2 * context)
    frames: list[Tensor] = []
    normalized = normalized_batch([image], preprocess, device)[0][..., : image.shape[1]]
    for start in range(0, image.shape[1], own):
        left = max(0, start - context)
        tile = normalized[..., left : start + own + context]
        log_probs, _ = model(tile.contiguous(memory_format=torch.channels_last))
        first = (start - left) // step
        frames.append(log_probs[0, first : first + own // step])
    return torch.cat(frames)
