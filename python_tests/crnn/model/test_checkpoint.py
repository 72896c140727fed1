"""Checkpoints and training states: written whole, read back, and refused where damaged."""

import json
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from fastctc.crnn.data import PreprocessConfig
from fastctc.crnn.model import (
    CRNN,
    Checkpoint,
    CheckpointError,
    CRNNConfig,
    load_checkpoint,
    load_state,
    save_checkpoint,
    save_state,
)
from fastctc.text import Alphabet


def make_checkpoint(architecture: str = "conv") -> Checkpoint:
    torch.manual_seed(0)
    model = CRNN(CRNNConfig(5, architecture, channels=4, hidden=8)).eval()
    model.stages[-1].norm.running_var.fill_(1e6)  # beyond float16
    return Checkpoint(model, Alphabet("aé😀-", blank=2), PreprocessConfig(max_width=999), {"seed": 3})


@pytest.mark.parametrize("architecture", ["conv", "vgg-bilstm"])
def test_a_checkpoint_needs_nothing_but_its_file(architecture, tmp_path):
    saved = make_checkpoint(architecture)
    path = tmp_path / "deep" / "a.safetensors"
    save_checkpoint(saved, path)
    loaded = load_checkpoint(path)
    assert loaded.alphabet == saved.alphabet
    assert loaded.preprocess == saved.preprocess
    assert loaded.training == {"seed": 3}
    assert loaded.model.config == saved.model.config
    assert not loaded.model.training
    for name, tensor in saved.model.state_dict().items():
        expected = tensor.half().float() if tensor.dim() > 1 else tensor
        assert torch.equal(loaded.model.state_dict()[name], expected), name
    images = torch.randn(1, 1, 32, 40)
    torch.testing.assert_close(loaded.model(images)[0], saved.model(images)[0], atol=1e-2, rtol=0)


def test_the_same_checkpoint_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        save_checkpoint(make_checkpoint(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    save_checkpoint(make_checkpoint(), path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(make_checkpoint("vgg-bilstm"), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_damaged_checkpoints_are_named(tmp_path):
    path = tmp_path / "a.safetensors"
    save_checkpoint(make_checkpoint(), path)
    whole = path.read_bytes()
    for content in (b"", b"junk", whole[:50], whole[:-1], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"a.safetensors is not a readable safetensors file"):
            load_checkpoint(path)
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "none")


def test_other_safetensors_files_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    tensors = {"weight": torch.zeros(2)}
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match="not a fastctc checkpoint"):
        load_checkpoint(path)
    save_file(tensors, path, {"fastctc": json.dumps({"format": "other", "version": 1})})
    with pytest.raises(CheckpointError, match=r"holds 'other', expected 'fastctc.crnn'"):
        load_checkpoint(path)
    save_file(tensors, path, {"fastctc": json.dumps({"format": "fastctc.crnn", "version": 99})})
    with pytest.raises(CheckpointError, match="has version 99, this fastctc reads up to version 1"):
        load_checkpoint(path)
    save_file(tensors, path, {"fastctc": json.dumps({"format": "fastctc.crnn", "version": 1})})
    with pytest.raises(CheckpointError, match="does not hold what it describes"):
        load_checkpoint(path)


class Malicious:
    def __reduce__(self):
        return os.system, ("exit 7",)


def test_training_states(tmp_path):
    path = tmp_path / "state.pt"
    save_state({"step": 3, "weights": {"a": torch.ones(2)}}, path)
    state = load_state(path)
    assert state["step"] == 3 and torch.equal(state["weights"]["a"], torch.ones(2))
    whole = path.read_bytes()
    for content in (b"", b"junk", whole[:-50], pickle.dumps(Malicious())):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"state.pt is not a readable training state"):
            load_state(path)
    torch.save([1], path)
    with pytest.raises(CheckpointError, match="is not a training state: holds a list"):
        load_state(path)
