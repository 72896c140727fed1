"""Fine-tuning from a checkpoint: shared characters keep their rows, new ones are added."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from recipes import changed, recipe

from fastctc import cli
from fastctc.crnn import CRNN, Checkpoint, CRNNConfig, PreprocessConfig, TrainConfig, save_checkpoint
from fastctc.crnn.data import write_folder
from fastctc.crnn.formulas import FormulaSource
from fastctc.crnn.model import load_checkpoint, load_state
from fastctc.crnn.training import ResumeError, overfit_one_batch, saved_config, train
from fastctc.crnn.training.fine_tune import new_model, with_start
from fastctc.text import Alphabet


def checkpoint(characters: str, blank: int = 0, architecture: str = "conv") -> Checkpoint:
    torch.manual_seed(1)
    model = CRNN(CRNNConfig(len(characters) + 1, architecture, channels=4, hidden=8)).eval()
    for buffer in model.buffers():
        buffer.add_(1)
    return Checkpoint(model, Alphabet(characters, blank), PreprocessConfig(height=32, median=3))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write formulas, and a checkpoint that lacks the character 9 and has the letter x."""
    path = tmp_path_factory.mktemp("tune") / "data"
    write_folder(FormulaSource(renderer="captcha", seed=3), path, 30)
    save_checkpoint(checkpoint("x01234567+-*()="), path.parent / "start.safetensors")
    return path


@pytest.mark.parametrize("blank", [0, 2, 4])
@pytest.mark.parametrize("architecture", ["conv", "bilstm"])
def test_shared_characters_keep_their_output_rows_and_new_ones_are_added(blank, architecture):
    start = checkpoint("abcd", blank, architecture)
    config = with_start(TrainConfig(data="none"), start)
    alphabet = Alphabet("abcdef")
    model = new_model(config, alphabet, start)
    old, new = start.model.classify, model.classify
    for character in "abcd":
        (before,), (after,) = start.alphabet.encode(character), alphabet.encode(character)
        assert torch.equal(new.weight[after], old.weight[before]) and new.bias[after] == old.bias[before]
    assert torch.equal(new.weight[alphabet.blank], old.weight[blank])
    fresh = new_model(config, alphabet, None)
    for character in "ef":  # as they are without a checkpoint
        (row,) = alphabet.encode(character)
        assert torch.equal(new.weight[row], fresh.classify.weight[row])
    weights = model.state_dict()
    for name, tensor in start.model.state_dict().items():
        assert name.startswith("classify.") or torch.equal(tensor, weights[name]), name


@pytest.mark.parametrize("given", ["file", "folder of a run"])
def test_train_from_a_checkpoint_extends_its_alphabet(given, folder, tmp_path, capsys):
    start = folder.parent / "start.safetensors"
    if given == "folder of a run":
        (tmp_path / "before").mkdir()
        (tmp_path / "before" / "model.safetensors").write_bytes(start.read_bytes())
        start = tmp_path / "before"
    command = ["train", "--out", str(tmp_path), "--data", str(folder), "--from", str(start), "--steps", "1"]
    assert cli.main([*command, "--batch-size", "4", "--threads", "1", "--max-lr", "1e-9"]) == 0
    result = load_checkpoint(tmp_path / "model.safetensors")
    assert result.alphabet.characters == "x01234567+-*()=89"
    assert result.preprocess == PreprocessConfig(height=32, median=3)
    assert result.model.config.channels == 4 and result.training["recipe"]["start_from"] == str(start)
    old = load_checkpoint(start).model.classify.weight
    torch.testing.assert_close(result.model.classify.weight[: len(old)], old, atol=1e-3, rtol=1e-3)


def test_given_characters_are_the_alphabet(folder, tmp_path):
    config = recipe(
        data=str(folder), start_from=str(folder.parent / "start.safetensors"), characters="0123456789+-*()=",
        steps=1, batch_size=4, threads=1,
    )  # fmt: skip
    result = train(config, tmp_path, show_progress=False)
    assert load_checkpoint(result.checkpoint).alphabet.characters == "0123456789+-*()="


def test_fine_tuning_begins_with_the_checkpoints_accuracy(folder, tmp_path):
    config = recipe(data=str(folder), start_from="formula", steps=1, batch_size=4, threads=1, max_lr=1e-9)
    assert train(config, tmp_path, show_progress=False).evaluation.exact_match == 1


def test_a_network_grows_by_residual_convolutions(folder, tmp_path):
    config = recipe(
        data=str(folder), start_from="formula", residuals=1, steps=1, batch_size=4, threads=1, max_lr=1e-9
    )
    start, image = load_checkpoint("formula").model.eval(), torch.rand(1, 1, 64, 192)
    result = load_checkpoint(train(config, tmp_path, show_progress=False).checkpoint)
    assert result.model.config.residuals == 1
    with torch.no_grad():
        before, after = start(image)[0].exp(), result.model.eval()(image)[0].exp()
    assert 0 < float((before - after).abs().mean()) < 0.05
    with pytest.raises(ValueError, match="residuals is 0, but the checkpoint to start from has 1"):
        train(
            replace(changed(config, "model", residuals=0), start_from=str(tmp_path / "model.safetensors")),
            tmp_path / "less",
        )


def test_a_recipe_that_contradicts_the_checkpoint_is_refused(folder, tmp_path, capsys):
    config = recipe(data=str(folder), start_from=str(folder.parent / "start.safetensors"), steps=1)
    for group, settings, message in (
        (
            "model",
            {"architecture": "bigru"},
            "architecture is 'bigru', but the checkpoint to start from has 'conv'",
        ),
        ("model", {"channels": 5}, "channels is 5, but the checkpoint to start from has 4"),
        ("preprocess", {"height": 64}, "height is 64, but the checkpoint to start from has 32"),
    ):
        with pytest.raises(ValueError, match=message):
            train(changed(config, group, **settings), tmp_path, show_progress=False)
    command = ["train", "--out", str(tmp_path), "--data", str(folder), "--from", "formula"]
    assert cli.main([*command, "--architecture", "bilstm"]) == 2
    assert "architecture is 'bilstm', but the checkpoint to start from has 'conv'" in capsys.readouterr().err
    assert cli.main([*command[:-1], "none.safetensors"]) == 2
    assert "no checkpoint at none.safetensors" in capsys.readouterr().err


def test_options_change_the_checkpoints_preprocessing(folder, tmp_path):
    start = str(folder.parent / "start.safetensors")
    command = ["train", "--out", str(tmp_path), "--data", str(folder), "--from", start, "--steps", "1"]
    assert cli.main([*command, "--batch-size", "4", "--threads", "1", "--opening", "3"]) == 0
    kept = load_checkpoint(tmp_path / "model.safetensors").preprocess
    assert kept == PreprocessConfig(height=32, median=3, opening=3)


def test_a_fine_tuned_run_is_resumed_without_its_checkpoint(folder, tmp_path):
    start = Path(shutil.copy(folder.parent / "start.safetensors", tmp_path / "start"))
    config = recipe(
        data=str(folder),
        start_from=str(start),
        steps=4,
        batch_size=4,
        threads=1,
        precision="fp32",
        save_every=1,
    )
    train(config, tmp_path / "whole", show_progress=False)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", show_progress=False, should_stop=lambda step: step == 2)
    moved = start.rename(tmp_path / "moved")
    train(saved_config(tmp_path / "run"), tmp_path / "run", resume=True, show_progress=False)
    first, second = (load_state(tmp_path / name / "state.pt")["model"] for name in ("whole", "run"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    config = replace(config, start_from=str(moved))  # the same checkpoint
    train(config, tmp_path / "run", resume=True, show_progress=False)
    with pytest.raises(ResumeError, match="start_from is formula, but the run to resume has"):
        train(replace(config, start_from="formula"), tmp_path / "run", resume=True, show_progress=False)


def test_a_batch_can_be_overfitted_from_a_checkpoint(folder):
    config = recipe(data=str(folder), start_from="formula", threads=1, precision="fp32")
    assert overfit_one_batch(config, show_progress=False).steps <= 10
