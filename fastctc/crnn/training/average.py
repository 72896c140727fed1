"""The average of models that were trained from one another.

Their weights lie in one valley of the loss, and the mean of these often reads new images better than each of them:
Izmailov and others, Averaging Weights Leads to Wider Optima and Better Generalization, arXiv:1803.05407. The
statistics of normalization do not average, so they are measured on images again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch

from fastctc.crnn.data import Pixels, normalize, own_torch_state, pad_batch
from fastctc.crnn.model import CRNN, Checkpoint, MaskedBatchNorm


def check_alike(checkpoints: Sequence[Checkpoint]) -> None:
    """Raise ValueError if checkpoints are fewer than two, or differ in more than their weights."""
    if len(checkpoints) < 2:
        raise ValueError(f"{len(checkpoints)} checkpoints to average, expected at least 2")
    *_, last = checkpoints
    for number, each in enumerate(checkpoints, 1):
        for name, theirs, wanted in (
            ("network", each.model.config, last.model.config),
            ("characters", each.alphabet, last.alphabet),
            ("preprocessing", each.preprocess, last.preprocess),
        ):
            if theirs != wanted:
                raise ValueError(f"checkpoint {number} has another {name} than the last: {theirs}, {wanted}")


def average(
    checkpoints: Sequence[Checkpoint],
    images: Sequence[Pixels],
    *,
    batch_size: int = 64,
    on_progress: Callable[[int], object] = lambda done: None,
) -> Checkpoint:
    """Return a checkpoint whose weights are the mean of others, with the training record of the last one.

    Args:
        checkpoints: two or more of one network, with the same characters and preprocessing.
        images: (H, W_n) uint8 each, prepared, of the kind that the models were trained on: some thousands.
        batch_size: images that statistics are measured on together.
        on_progress: called with the number of images done since the last call.

    Raises:
        ValueError: fewer than two checkpoints, no images, or checkpoints that differ in more than their weights.
    """
    check_alike(checkpoints)
    if not images:
        raise ValueError("no images to measure statistics on, expected at least 1")
    last = checkpoints[-1]
    model = copy.deepcopy(last.model)
    weights = [each.model.state_dict() for each in checkpoints]
    model.load_state_dict(
        {
            name: torch.stack([each[name].double() for each in weights]).mean(0).to(tensor.dtype)
            for name, tensor in model.state_dict().items()
        }
    )
    _measure(model, last, images, batch_size, on_progress)
    temperature = sum(each.temperature for each in checkpoints) / len(checkpoints)
    return Checkpoint(model, last.alphabet, last.preprocess, dict(last.training), temperature)


@own_torch_state()
@torch.no_grad()
def _measure(
    model: CRNN,
    checkpoint: Checkpoint,
    images: Sequence[Pixels],
    batch_size: int,
    on_progress: Callable[[int], object],
) -> None:
    """Set the statistics of normalization to their mean over batches of images of similar widths."""
    norms = [each for each in model.modules() if isinstance(each, MaskedBatchNorm)]
    by_width = sorted(images, key=lambda image: image.shape[1])
    model.train()
    for number, start in enumerate(range(0, len(by_width), batch_size)):
        for each in norms:
            each.momentum = 1 / (number + 1)
        batch, widths = pad_batch(by_width[start : start + batch_size])
        model(normalize(batch, widths, checkpoint.preprocess), widths)
        on_progress(len(batch))
    for each in norms:
        each.momentum = 0.1
    model.eval()
