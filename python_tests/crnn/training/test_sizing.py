"""Settings that follow from the number of images."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from recipes import recipe

from fastctc import cli
from fastctc.crnn.training import saved_config
from fastctc.crnn.training.config import max_rate, settled
from fastctc.crnn.training.sizing import MAX_STEPS, sized, steps_for


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("few")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 60), dtype=np.uint8))
    for i in range(6):
        image.save(path / f"{i}.png")
    (path / "labels.tsv").write_text("".join(f"{i}.png\t{i}\n" for i in range(6)))
    return path


def test_more_images_have_more_steps_and_fewer_epochs():
    counts = [1, 10, 100, 300, 500, 1_000, 5_000, 10_000, 100_000, 10**6, 10**8]
    steps = [steps_for(count) for count in counts]
    assert steps == sorted(steps) and steps[0] == 300 and steps[-1] == MAX_STEPS
    epochs = [each / count for each, count in zip(steps, counts, strict=True)]
    assert epochs == sorted(epochs, reverse=True)
    assert [steps_for(count, tuning=True) for count in counts] == [round(each / 2) for each in steps]


def test_steps_follow_from_the_images_where_nothing_else_is_given(folder, caplog):
    caplog.set_level("INFO")
    config = recipe(data=str(folder), steps=None)
    schedule = sized(config).schedule
    assert (schedule.steps, schedule.eval_every) == (300, 60)
    assert "6 images: 300 steps of 64 images, so that each is seen about 3200 times" in caplog.text
    for given in ({"steps": 7}, {"minutes": 2.0}):
        fixed = replace(config, schedule=replace(config.schedule, **given))
        assert sized(fixed) == fixed
    often = replace(config, schedule=replace(config.schedule, eval_every=10))
    assert sized(often).schedule.eval_every == 10
    assert sized(replace(config, start_from="formula")).schedule.steps == 150
    with pytest.raises(ValueError, match="steps may be left open only with minutes or data"):
        recipe(steps=None)


def test_the_rate_is_lower_for_trained_weights():
    config = recipe(data="none")
    assert settled(config).optimizer.max_lr == max_rate(config) == 3e-3
    assert settled(replace(config, start_from="formula")).optimizer.max_lr == 1e-3
    assert max_rate(recipe(data="none", start_from="formula", max_lr=0.01)) == 0.01


def test_the_command_leaves_the_steps_open_for_a_folder(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("fastctc.crnn.training.sizing.steps_for", lambda images, tuning: images // 3)
    command = ["train", "--data", str(folder), "--height", "32", "--channels", "2", "--hidden", "4"]
    command += ["--batch-size", "2", "--threads", "1"]
    for name, more, schedule in (("open", [], (2, None)), ("given", ["--steps", "1"], (1, None))):
        assert cli.main([*command, "--out", str(tmp_path / name), *more]) == 0
        kept = saved_config(tmp_path / name).schedule
        assert (kept.steps, kept.minutes) == schedule
    assert cli.main([*command, "--out", str(tmp_path / "open"), "--resume"]) == 0
