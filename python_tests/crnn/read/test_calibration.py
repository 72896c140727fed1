"""Calibration: closed forms, a temperature that is found again, and its way through checkpoint and reading."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fastctc import cli
from fastctc.crnn import (
    CRNN,
    Checkpoint,
    CRNNConfig,
    PreprocessConfig,
    Recognizer,
    load_checkpoint,
    save_checkpoint,
)
from fastctc.crnn.model import CheckpointError
from fastctc.crnn.read import Evaluation, calibration_error, confidence_of, fitted_temperature
from fastctc.crnn.read.evaluation import Outcome
from fastctc.text import Alphabet


def test_the_error_is_the_distance_of_confidence_and_accuracy():
    assert calibration_error([], []) == 0
    assert calibration_error([1.0, 1.0], [True, True]) == 0
    assert calibration_error([1.0] * 4, [True, True, True, False]) == pytest.approx(0.25)
    assert calibration_error([0.5, 0.5], [True, False]) == pytest.approx(0)
    assert calibration_error([0.9, 0.9, 0.2], [False, True, False]) == pytest.approx((2 * 0.4 + 0.2) / 3)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_a_temperature_is_found_again(temperature):
    rng = np.random.default_rng(0)
    scores = np.log(rng.uniform(0.2, 1, 20_000)) * temperature
    right = rng.random(20_000) < np.exp(scores / temperature)
    found = fitted_temperature(scores.tolist(), right.tolist())
    assert found == pytest.approx(temperature, rel=0.04)
    before, after = (
        calibration_error([confidence_of(score, t) for score in scores.tolist()], right.tolist())
        for t in (1.0, found)
    )
    assert after < 0.015 and (temperature == 1 or after < before / 3)


def test_few_mistakes_or_none_do_not_make_a_model_sure():
    """The rule of succession: of n exact texts, the next one is exact with (n + 1) / (n + 2)."""
    for count in (1, 10, 100):
        temperature = fitted_temperature([-0.1] * count, [True] * count)
        expected = (count + 1) / (count + 2)
        assert confidence_of(-0.1, temperature) == pytest.approx(expected, abs=1e-3)
    assert fitted_temperature([0.0, -math.inf], [True, False]) > 0
    with pytest.raises(ValueError, match=r"scores has 1 scores, none of them finite"):
        fitted_temperature([-math.inf], [False])


def test_a_run_without_mistakes_does_not_become_sure_of_other_pictures():
    """Smoothed labels keep confidences low, so the temperature that fits easy images would be large."""
    evaluation = Evaluation([Outcome("a", "1", "1", -0.3, 0, 0.1)] * 200)
    assert evaluation.calibrated().temperature > 20
    assert evaluation.calibrated(hottest=2).temperature == 2
    assert evaluation.calibrated(hottest=99).temperature == evaluation.calibrated().temperature


@pytest.fixture
def checkpoint() -> Checkpoint:
    torch.manual_seed(1)
    model = CRNN(CRNNConfig(4, channels=4, hidden=8)).eval()
    return Checkpoint(model, Alphabet("abc"), PreprocessConfig())


def test_a_checkpoint_keeps_its_temperature_and_readings_have_it(checkpoint, tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (32, 60), dtype=np.uint8)
    plain = Recognizer(checkpoint).read(image)
    assert plain.confidence == pytest.approx(math.exp(plain.score))
    checkpoint.temperature = 4.0
    save_checkpoint(checkpoint, tmp_path / "a.safetensors")
    for ignore_case in (False, True):
        reading = Recognizer.load(tmp_path / "a.safetensors", ignore_case=ignore_case).read(image)
        assert reading.confidence == pytest.approx(math.exp(reading.score / 4))
    checkpoint.temperature = -1.0
    save_checkpoint(checkpoint, tmp_path / "b.safetensors")
    with pytest.raises(CheckpointError, match=r"temperature is -1\.0, expected a number above 0"):
        load_checkpoint(tmp_path / "b.safetensors")


def test_evaluate_calibrates(checkpoint, tmp_path, capsys):
    save_checkpoint(checkpoint, tmp_path / "a.safetensors")
    before = (tmp_path / "a.safetensors").read_bytes()
    words = [
        "evaluate",
        str(tmp_path / "a.safetensors"),
        "--count",
        "8",
        "--domain",
        "formulas",
        "--workers",
        "0",
    ]
    assert cli.main([*words, "--calibrate", str(tmp_path / "b.safetensors")]) == 0
    out, err = capsys.readouterr()
    assert "calibration error 0." in out and "b.safetensors: temperature" in err
    assert (tmp_path / "a.safetensors").read_bytes() == before
    one, other = load_checkpoint(tmp_path / "a.safetensors"), load_checkpoint(tmp_path / "b.safetensors")
    assert one.temperature == 1 != other.temperature
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(tensor, other.model.state_dict()[name])
