"""Fine-tuning: a run that starts from the weights of a checkpoint.

The network and, unless others are given, the settings of preprocessing are the checkpoint's. Its characters keep
their rows in the output layer. New characters get rows of their own, which start at random::

    checkpoint   blank a b c          rows 0 1 2 3
    labels       b c d e
    new model    blank a b c d e      rows 0 1 2 3, and two new ones

The new network may have more residual convolutions. These begin with little effect.
"""

from __future__ import annotations

import hashlib
from dataclasses import fields, replace
from pathlib import Path

import torch

from fastctc.crnn.data import PreprocessConfig, seeded
from fastctc.crnn.model import CRNN, Checkpoint, checkpoint_file, load_checkpoint
from fastctc.crnn.training.config import ModelConfig, TrainConfig, model_config
from fastctc.text import Alphabet


def load_start(config: TrainConfig) -> Checkpoint | None:
    """Return the checkpoint that a recipe starts from; None if it starts from random weights."""
    return None if config.start_from is None else load_checkpoint(config.start_from)


def digest_of(checkpoint: str | Path | None) -> str | None:
    """Return the SHA-256 hash of a checkpoint's file; None for none."""
    if checkpoint is None:
        return None
    return hashlib.sha256(checkpoint_file(checkpoint).read_bytes()).hexdigest()


def with_start(config: TrainConfig, start: Checkpoint | None) -> TrainConfig:
    """Return a recipe with the network and the preprocessing of the checkpoint that it starts from.

    Raises:
        ValueError: the recipe contradicts the checkpoint.
    """
    if start is None:
        return config
    shape = start.model.config
    for each in fields(ModelConfig):
        value, has = getattr(config.model, each.name), getattr(shape, each.name)
        more = each.name == "residuals" and value is not None and value > has
        if value not in (None, has) and not more:
            raise ValueError(f"{each.name} is {value!r}, but the checkpoint to start from has {has!r}")
    preprocess = start.preprocess if config.preprocess == PreprocessConfig() else config.preprocess
    if preprocess.height not in (None, shape.height):
        raise ValueError(
            f"height is {preprocess.height}, but the checkpoint to start from has {shape.height}"
        )
    model = {each.name: getattr(shape, each.name) for each in fields(ModelConfig)}
    model["residuals"] = max(config.model.residuals or 0, shape.residuals)
    return replace(config, model=ModelConfig(**model), preprocess=replace(preprocess, height=shape.height))


def new_model(config: TrainConfig, alphabet: Alphabet, start: Checkpoint | None, **changes: float) -> CRNN:
    """Return the network of a recipe, with random weights from its seed or the weights of a checkpoint.

    Args:
        config: the recipe, settled.
        alphabet: characters and blank of the model.
        start: the checkpoint to start from; None: none.
        changes: other fields of :class:`fastctc.crnn.CRNNConfig`.
    """
    with seeded(config.seed, torch.device("cpu")):
        shape = replace(model_config(config, alphabet), **changes)  # type: ignore[arg-type]
        model: CRNN = CRNN(shape, device="cpu", dtype=torch.float32)
    if start is not None:
        _copy_weights(start, model, alphabet)
    return model


@torch.no_grad()
def _copy_weights(start: Checkpoint, model: CRNN, alphabet: Alphabet) -> None:
    """Copy all weights of a checkpoint; of the output layer, the rows of the shared characters and the blank.

    A residual convolution that the checkpoint lacks gets a tenth of its output.
    """
    shared = [c for c in alphabet.characters if c in start.alphabet.characters]
    rows, before = (
        [each.blank, *Alphabet(each.characters, each.blank).encode("".join(shared))]
        for each in (alphabet, start.alphabet)
    )
    weights = start.model.state_dict()
    for name, tensor in model.state_dict().items():
        if name.startswith("classify."):
            tensor[rows] = weights[name][before]
        elif name in weights:
            tensor.copy_(weights[name])
        elif name.endswith(".norm.weight"):
            tensor.fill_(0.1)
