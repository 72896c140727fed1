"""From prepared images to the tensors that the network takes."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fastctc.crnn.data.images import Pixels
from fastctc.crnn.data.preprocess import PreprocessConfig


def batch_width(widest: int) -> int:
    """Return the width of a batch: one of four between a power of two and the next, or a multiple of 16.

    Memory that torch keeps grows with the number of different shapes. ::

        ... 64  80  96  112  128  160  192  224  256  320  384  448  512 ...
    """
    step = max(16, 1 << (widest - 1).bit_length() >> 3)
    return -(-widest // step) * step


def _padded_width(widths: list[int], multiple: int = 4) -> int:
    """Return the width of a batch of images, a multiple of ``multiple`` if all have one width."""
    return batch_width(max(widths)) if len(set(widths)) > 1 else -(-widths[0] // multiple) * multiple


def pad_batch(images: list[Pixels]) -> tuple[Tensor, Tensor]:
    """Stack images of one height into a batch, padded on the right; images of one width to a multiple of 4.

    Args:
        images: N arrays (H, W_n) uint8.

    Returns:
        images (N, 1, H, W) uint8, padded with zeros, and widths (N,) int64.
    """
    widths = [image.shape[1] for image in images]
    batch = np.zeros((len(images), 1, images[0].shape[0], _padded_width(widths)), dtype=np.uint8)
    for n, image in enumerate(images):
        batch[n, 0, :, : widths[n]] = image
    return torch.from_numpy(batch), torch.tensor(widths)


def normalize(images: Tensor, widths: Tensor, config: PreprocessConfig) -> Tensor:
    """Center each image on its own mean and scale it by its own contrast; ink becomes positive.

    Args:
        images: (N, 1, H, W) uint8.
        widths: (N,) int64, columns of each image that are not padding.
        config: ``contrast_floor`` is used.

    Returns:
        (N, 1, H, W) float32, exactly zero in the padding, which does not influence the rest.
    """
    levels = images.float()
    height, width = levels.shape[-2:]
    if not torch.compiler.is_exporting() and bool((widths == width).all()):
        deviation, mean = torch.std_mean(levels, (2, 3), correction=0, keepdim=True)
        return (mean - levels) / (deviation + config.contrast_floor)
    inside = (torch.arange(width, device=images.device) < widths[:, None])[:, None, None, :]  # (N, 1, 1, W)
    pixels = (widths * height).view(-1, 1, 1, 1)
    mean = (levels * inside).sum((2, 3), keepdim=True) / pixels
    centered = (mean - levels) * inside
    deviation = (centered.square().sum((2, 3), keepdim=True) / pixels).sqrt()
    return centered / (deviation + config.contrast_floor)


def normalized_batch(
    images: list[Pixels], config: PreprocessConfig, device: torch.device | str = "cpu", multiple: int = 4
) -> tuple[Tensor, Tensor]:
    """Return ``normalize`` of ``pad_batch`` on a device, for reading: up to rounding, and faster on the CPU.

    Statistics come from the 256 counts of gray levels, and pixels from a table of 256 values.

    Args:
        images: N arrays (H, W_n) uint8.
        config: ``contrast_floor`` is used.
        device: of the result.
        multiple: images of one width are padded to a multiple of it, on the CPU.

    Returns:
        images (N, 1, H, W) float32, zero in the padding, and widths (N,) int64.
    """
    if torch.device(device).type != "cpu":
        pixels, on_device = (each.to(device) for each in pad_batch(images))
        return normalize(pixels, on_device, config), on_device
    widths = [image.shape[1] for image in images]
    batch = np.zeros((len(images), 1, images[0].shape[0], _padded_width(widths, multiple)), dtype=np.float32)
    for n, image in enumerate(images):
        total, squares = (np.bincount(image.ravel(), minlength=256) @ _POWERS).tolist()  # exact in float64
        mean = total / image.size
        deviation = math.sqrt(max(0.0, squares / image.size - mean * mean))
        table = (mean - _LEVELS) / (deviation + config.contrast_floor)
        table.take(image, out=batch[n, 0, :, : widths[n]], mode="clip")
    return torch.from_numpy(batch), torch.tensor(widths)


_LEVELS = np.arange(256, dtype=np.float32)
_POWERS = np.stack([np.arange(256.0), np.arange(256.0) ** 2], axis=1)
