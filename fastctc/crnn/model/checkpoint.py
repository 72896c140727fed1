"""Files a recognizer is kept in: a self-describing model, and the full state of a training run.

Both are written to a temporary name and moved into place, so a file that exists is whole.
"""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fastctc.crnn.data import (
    PreprocessConfig,
    own_torch_state,
    shipped_checkpoints,
    to_json,
    write_atomically,
)
from fastctc.crnn.model.network import CRNN, CRNNConfig
from fastctc.text import Alphabet

FORMAT = "fastctc.crnn"
VERSION = 1


class CheckpointError(ValueError):
    """A file that is not a checkpoint of this kind, or a damaged one."""


@dataclass
class Checkpoint:
    """A model with all that is needed to read an image by it.

    Attributes:
        model: in evaluation mode, on the CPU, float32.
        alphabet: characters and blank.
        preprocess: what is done to an image before the model.
        training: how it came to be: recipe, seed, steps, accuracy, versions. For people; nothing depends on
        it.
    """

    model: CRNN
    alphabet: Alphabet
    preprocess: PreprocessConfig
    training: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(checkpoint: Checkpoint, path: str | Path) -> None:
    """Write a checkpoint as one safetensors file, its description as JSON in the file's metadata.

    Matrices and kernels are stored as float16, vectors (biases, normalization) as float32.
    """
    description = {
        "format": FORMAT,
        "version": VERSION,
        "alphabet": checkpoint.alphabet.characters,
        "blank": checkpoint.alphabet.blank,
        "preprocess": asdict(checkpoint.preprocess),
        "architecture": asdict(checkpoint.model.config),
        "training": checkpoint.training,
    }
    tensors = {name: _packed(tensor) for name, tensor in checkpoint.model.state_dict().items()}
    content = save(tensors, metadata={"fastctc": to_json(description, sort_keys=True)})
    write_atomically(Path(path), content)


@own_torch_state()
def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint; it needs nothing but the file.

    Args:
        path: a file, or the name of a model that comes with the package: ``"shipped"`` or ``"wide"``.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: not a checkpoint, damaged, or of a later version.
    """
    shipped = shipped_checkpoints()
    path = shipped.get(str(path), Path(path))
    if not path.is_file():
        names = " or ".join(map(repr, shipped))
        raise FileNotFoundError(f"no checkpoint at {path}, expected a file, or {names}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from error
    description = _description(path, metadata)
    try:
        alphabet = Alphabet(description["alphabet"], description["blank"])
        preprocess = PreprocessConfig(**description["preprocess"])
        model = CRNN(CRNNConfig(**description["architecture"]), device="meta", dtype=torch.float32)
        weights = {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
        model.load_state_dict(weights, strict=True, assign=True)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} does not hold what it describes: {error}") from error
    return Checkpoint(model.eval(), alphabet, preprocess, description.get("training", {}))


def save_state(state: dict[str, Any], path: str | Path) -> None:
    """Write the state of a training run: tensors, numbers, strings, lists and dictionaries."""
    content = io.BytesIO()  # torch.save names no reason if it fails to write a file
    torch.save(state, content)
    write_atomically(Path(path), content.getvalue())


def load_state(path: str | Path) -> dict[str, Any]:
    """Read the state of a training run; executes nothing that the file may contain.

    Raises:
        CheckpointError: damaged, or not such a state.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises almost anything
        raise CheckpointError(f"{path} is not a readable training state: {error}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} is not a training state: holds a {type(state).__name__}")
    return state


def _packed(tensor: Tensor) -> Tensor:
    """Return a tensor as it is stored: float16 where rounding does not matter."""
    if tensor.is_floating_point() and tensor.dim() > 1:
        tensor = tensor.half()
    return tensor.detach().cpu().contiguous()


def _description(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    """Return the checked JSON description of a checkpoint."""
    try:
        description = json.loads(metadata["fastctc"])
        kind, version = description["format"], int(description["version"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is a safetensors file, but not a fastctc checkpoint") from error
    if kind != FORMAT:
        raise CheckpointError(f"{path} holds {kind!r}, expected {FORMAT!r}")
    if version > VERSION:
        raise CheckpointError(f"{path} has version {version}, this fastctc reads up to version {VERSION}")
    return dict(description)
