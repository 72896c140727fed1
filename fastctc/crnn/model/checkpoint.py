"""Files of a recognizer: a self-describing model, and the full state of a training run.

Both are written to a temporary name and moved into place, so a file that exists is whole.
"""

from __future__ import annotations

import io
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from fastctc.crnn.data import (
    PreprocessConfig,
    direction_of,
    make_alphabet,
    no_such_file,
    own_torch_state,
    shipped_checkpoint,
    shipped_checkpoints,
    to_json,
    write_atomically,
)
from fastctc.crnn.model.network import CRNN, CRNNConfig
from fastctc.text import Alphabet

MODEL_FILE = "model.safetensors"  # of a training run
FORMAT = "fastctc.crnn"
VERSION = 1
DAMAGED = "damaged"  # key of a training record that is not what it should be


class CheckpointError(ValueError):
    """A file that is not a checkpoint of this kind, or a damaged one."""


@dataclass
class Checkpoint:
    """A model with everything that reading an image needs.

    Attributes:
        model: in evaluation mode, on the CPU, float32.
        alphabet: characters and blank.
        preprocess: how an image is prepared for the model.
        training: record of the training: recipe, seed, steps, accuracy, versions. No reading depends on it.
    """

    model: CRNN
    alphabet: Alphabet
    preprocess: PreprocessConfig
    training: dict[str, Any] = field(default_factory=dict)
    temperature: float = 1.0


def save_checkpoint(checkpoint: Checkpoint, path: str | Path) -> None:
    """Write a checkpoint as one safetensors file, its description as JSON in the file's metadata.

    Matrices and kernels are stored as float16, vectors (biases, normalization) as float32.
    """
    description = {
        "format": FORMAT,
        "version": VERSION,
        "alphabet": checkpoint.alphabet.characters,
        "blank": checkpoint.alphabet.blank,
        "direction": direction_of(checkpoint.alphabet),
        "preprocess": asdict(checkpoint.preprocess),
        "architecture": asdict(checkpoint.model.config),
        "training": checkpoint.training,
    }
    if checkpoint.temperature != 1.0:
        description["temperature"] = checkpoint.temperature
    tensors = {name: _packed(tensor) for name, tensor in checkpoint.model.state_dict().items()}
    content = save(tensors, metadata={"fastctc": to_json(description, sort_keys=True)})
    write_atomically(Path(path), content)


def checkpoint_file(checkpoint: str | Path) -> Path:
    """Return the file of a checkpoint, which may be missing: itself, in the folder of a run, or in the package."""
    path = shipped_checkpoint(checkpoint) or Path(checkpoint)
    return path / MODEL_FILE if path.is_dir() else path


@own_torch_state()
def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint from a file, which holds everything it needs.

    Args:
        path: a file; the folder of a training run, finished or not; or the name of a model that comes with the
            package: ``"formula"`` or ``"words"``.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: not a checkpoint, damaged, or of a later version.
    """
    path = checkpoint_file(path)
    if not path.is_file():
        names = " or ".join(map(repr, shipped_checkpoints()))
        hint = "" if path.exists() else no_such_file(path).removeprefix("no such file")
        raise FileNotFoundError(f"no checkpoint at {path}{hint}, expected a file, or {names}")
    try:
        content = path.read_bytes()  # safe_open refuses a name that is not UTF-8
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from error
    description = _description(path, header.get("__metadata__", {}))
    try:
        alphabet = make_alphabet(description["alphabet"], description["blank"], description.get("direction"))
        preprocess = PreprocessConfig(**description["preprocess"])
        model = CRNN(CRNNConfig(**description["architecture"]), device="meta", dtype=torch.float32)
        weights = {
            name: tensor.to(torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True)
            for name, tensor in tensors.items()
        }
        model.load_state_dict(weights, strict=True, assign=True)
        _check_fit(model.config, alphabet, preprocess)
        temperature = float(description.get("temperature", 1.0))
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature is {temperature}, expected a number above 0")
    except Exception as error:  # a damaged description raises almost anything
        raise CheckpointError(f"{path} does not hold what it describes: {error}") from error
    record = description.get("training", {})
    if not isinstance(record, dict):
        record = {DAMAGED: f"expected an object, the file has {to_json(record)[:80]}"}
    return Checkpoint(model.eval(), alphabet, preprocess, record, temperature)


def _check_fit(config: CRNNConfig, alphabet: Alphabet, preprocess: PreprocessConfig) -> None:
    """Raise ValueError if a network does not fit its alphabet or its images."""
    if config.num_classes != alphabet.num_classes:
        raise ValueError(
            f"num_classes is {config.num_classes}, expected {alphabet.num_classes} of the alphabet"
        )
    if config.height != preprocess.rows:
        raise ValueError(f"height is {config.height}, expected {preprocess.rows} of the preprocessing")


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
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise CheckpointError(f"{path} is a safetensors file, but not a fastctc checkpoint") from error
    if kind != FORMAT:
        raise CheckpointError(f"{path} holds {kind!r}, expected {FORMAT!r}")
    if version > VERSION:
        raise CheckpointError(f"{path} has version {version}, this fastctc reads up to version {VERSION}")
    return dict(description)
