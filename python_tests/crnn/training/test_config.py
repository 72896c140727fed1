"""Recipes: saved and read again, recipes of fastctc 0.1 too, and settled."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest
from recipes import recipe

from fastctc.crnn import PRESETS, FormulaDraw, TrainConfig
from fastctc.crnn.training import config_from_dict, config_to_dict, settled, train
from fastctc.crnn.training.pace import PLAN, Budget, Pace

# A recipe as fastctc 0.1 saved it in the state of a run: all settings in one row.
FLAT = {
    "data": None, "look": "mixed", "renderer": "mixed", "value": "right", "contest_share": 0.8,
    "glyph_variants": 2000, "glyph_fonts": "bundled", "glyph_varied": 0.1, "captcha_share": 0.3,
    "images": 1000, "rounds": 3, "characters": None, "architecture": "bilstm", "channels": None,
    "hidden": None, "height": 64, "stem_stride": 2, "pooled_columns": 2, "steps": 50, "minutes": None,
    "batch_size": 32, "parts": 2, "buckets": 32, "optimizer": "muon", "max_lr": 0.003, "warmup": 0.15,
    "weight_decay": 0.01, "clip": 5.0, "ema": 0.9, "median": 3, "gaussian": 0.0, "equalize": False,
    "binarize": False, "opening": 3, "closing": 0, "shift": 4, "stretch": 0.08, "rotate": 3.0, "blur": 0.5,
    "contrast": 0.2, "noise": 5.0, "seed": 1, "threads": 1, "precision": "fp32", "device": "cpu",
    "eval_images": 100, "eval_every": 500, "save_every": 250, "log_every": 25,
}  # fmt: skip


def test_every_setting_of_an_earlier_recipe_is_kept():
    config = config_from_dict(FLAT)
    assert config.optimizer.name == "muon" and config.preprocess.height == 64
    for name, value in (FLAT | {"name": FLAT["optimizer"]}).items():
        if name == "optimizer":  # now the name of a part
            continue
        parts = (config, config.draw, config.preprocess, config.augment, config.model, config.optimizer)
        found = [getattr(part, name) for part in (*parts, config.schedule) if hasattr(part, name)]
        assert value in found, name
    data = config_from_dict(FLAT | {"data": "images"})
    assert data.data == "images" and data.draw is None and data.schedule == config.schedule
    with pytest.raises(ValueError, match="settings that this version of fastctc lacks: sharpen"):
        config_from_dict(FLAT | {"data": "images", "sharpen": 1})


@pytest.mark.parametrize("name", PRESETS)
def test_recipes_are_saved_and_read_again(name):
    for config in (PRESETS[name], settled(PRESETS[name]), replace(PRESETS[name], draw=None, data="images")):
        assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config


def test_what_is_not_known_is_refused():
    saved = config_to_dict(PRESETS["quick"])
    for changes, message in [
        ({"hue": 1}, "settings that this version of fastctc lacks: hue"),
        ({"augment": saved["augment"] | {"flip": 1}}, "settings that this version of fastctc lacks: flip"),
        ({"draw": saved["draw"] | {"ink": 1}}, "settings that this version of fastctc lacks: ink"),
        ({"draw": saved["draw"] | {"domain": "music"}}, "domain is 'music', expected one of 'formulas'"),
    ]:
        with pytest.raises(ValueError, match=message):
            config_from_dict(saved | changes)


def test_height_and_network_follow_from_each_other():
    assert settled(recipe()).preprocess.height == 64 and settled(recipe()).model.stem_stride == 2
    small = settled(recipe(height=32))
    assert small.model.stem_stride == 1 and small.model.pooled_columns == 4
    paper = settled(recipe(architecture="vgg-bilstm"))
    assert paper.preprocess.height == 32 and (paper.model.channels, paper.model.hidden) == (64, 256)
    assert settled(small) == small


def test_a_recipe_draws_or_reads():
    for settings in ({}, {"data": "images", "draw": FormulaDraw()}):
        with pytest.raises(
            ValueError, match="expected one of them: a folder of images, or how they are drawn"
        ):
            TrainConfig(**settings)


def test_the_pace_of_a_number_of_steps_is_one():
    pace = Pace.of(100)
    rounds = []
    while pace.left:
        rounds.append(pace.round_of(4))
        pace.advance()
    assert pace.position == 100 and rounds == [0] * 25 + [1] * 25 + [2] * 25 + [3] * 25


@pytest.mark.parametrize("speeds", [(1.0, 1.0), (1.0, 0.1), (0.2, 1.0), (1.0, 0.01)])
def test_a_plan_ends_with_its_budget(monkeypatch, speeds):
    """The machine changes its speed at half of the time; evaluations take time, too."""
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    budget, pace, steps = Budget(480, spent=20, eval_every=500, rounds=1), Pace.of(None), 0
    budget.evaluated(0.0)
    positions = []
    while pace.left:
        now += 0.06 / speeds[now > 240]
        steps += 1
        pace.advance()
        positions.append(pace.position)
        if pace.left and (steps < 10 or steps % 10 == 0):
            budget.stepped(1 if steps < 10 else 10)
            pace.fit(budget.steps_left(0))
        if steps % 500 == 0:
            now += 2
            budget.evaluated(2)
    assert 0.9 * 460 < now < 1.1 * 460
    assert positions[-1] == pytest.approx(PLAN) and all(b > a for a, b in pairwise(positions))


def test_data_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="does not exist, expected a folder"):
        train(recipe(data=str(tmp_path / "none")), tmp_path / "out", show_progress=False)
