"""The average of checkpoints, and the command that makes it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from fastctc import cli
from fastctc.crnn import CRNN, CRNNConfig, load_checkpoint, save_checkpoint
from fastctc.crnn.data import PreprocessConfig, draw_to_dict, normalize, pad_batch
from fastctc.crnn.formulas import FormulaDraw
from fastctc.crnn.model import Checkpoint
from fastctc.crnn.training import average
from fastctc.text import Alphabet

ALPHABET = Alphabet("0123456789+-*/()=")
SHAPE = CRNNConfig(ALPHABET.num_classes, channels=4, hidden=8, dropout=0.0, residuals=1)


def checkpoint(seed, shape=SHAPE, **more):
    torch.manual_seed(seed)
    return Checkpoint(CRNN(shape).eval(), ALPHABET, PreprocessConfig(height=32), {"steps": seed}, **more)


def images(count, widths=(40, 90)):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (32, int(rng.integers(*widths)))).astype(np.uint8) for _ in range(count)]


def test_weights_are_the_mean_and_statistics_are_measured():
    first, second = checkpoint(1, temperature=1.0), checkpoint(2, temperature=1.5)
    seen = images(24)
    mean = average([first, second], seen, batch_size=24)
    assert mean.training == {"steps": 2} and mean.temperature == 1.25 and not mean.model.training
    both = [dict(each.model.named_parameters()) for each in (first, second)]
    for name, weight in mean.model.named_parameters():
        torch.testing.assert_close(weight, (both[0][name] + both[1][name]) / 2)
    batch, widths = pad_batch(sorted(seen, key=lambda image: image.shape[1]))
    inputs = normalize(batch, widths, mean.preprocess)
    with torch.no_grad():
        expected, lengths = mean.model(inputs, widths)
        found, _ = mean.model.train()(inputs, widths)
    for n, length in enumerate(lengths):
        torch.testing.assert_close(found[n, :length], expected[n, :length], rtol=0, atol=0.02)


def test_all_batches_count_alike():
    model = checkpoint(3)
    seen = images(12, widths=(64, 65))
    parts = [average([model, model], seen[start : start + 4]).model.state_dict() for start in (0, 4, 8)]
    together = average([model, model], seen, batch_size=4).model.state_dict()
    name = "stages.0.norm.running_mean"
    torch.testing.assert_close(together[name], torch.stack([each[name] for each in parts]).mean(0))


def test_what_has_no_average_is_refused():
    one = checkpoint(1)
    with pytest.raises(ValueError, match="1 checkpoints to average, expected at least 2"):
        average([one], images(1))
    with pytest.raises(ValueError, match="no images to measure statistics on"):
        average([one, one], [])
    other = checkpoint(1, dataclasses.replace(SHAPE, hidden=16))
    with pytest.raises(ValueError, match="checkpoint 1 has another network than the last"):
        average([other, one], images(1))
    gray = dataclasses.replace(one, preprocess=PreprocessConfig(height=32, tone=0.3))
    with pytest.raises(ValueError, match="checkpoint 2 has another preprocessing than the last"):
        average([one, gray, one], images(1))


def test_the_command_draws_as_the_last_training_did(tmp_path, capsys):
    recipe = {"recipe": {"draw": draw_to_dict(FormulaDraw())}}
    for name in "ab":
        model = checkpoint(ord(name))
        save_checkpoint(dataclasses.replace(model, training=recipe if name == "b" else {}), tmp_path / name)
    names = [str(tmp_path / name) for name in "ab"]
    out = tmp_path / "mean.safetensors"
    assert cli.main(["average", str(out), *names, "--count", "20", "--workers", "0"]) == 0
    assert "the average of 2 checkpoints, measured on 20 images" in capsys.readouterr().out
    mean = load_checkpoint(out)
    assert len(mean.training["averaged"]) == 2 and mean.training["recipe"] == recipe["recipe"]
    assert cli.main(["average", str(out), *names[::-1], "--count", "20"]) == 2
    assert "was not trained on drawn images, expected --data" in capsys.readouterr().err
    assert cli.main(["average", str(out), names[1], "--count", "1000000000"]) == 2  # before anything is drawn
    assert "1 checkpoints to average, expected at least 2" in capsys.readouterr().err
    assert cli.main(["generate", str(tmp_path / "data"), "--count", "5"]) == 0
    assert cli.main(["average", str(out), *names[::-1], "--data", str(tmp_path / "data")]) == 0
    assert "measured on 5 images" in capsys.readouterr().out
