"""Resuming: which settings may change, tested for every one, and that the others are refused."""

from __future__ import annotations

import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from recipes import changed, recipe

from fastctc import cli
from fastctc.crnn import TrainConfig, TrainError
from fastctc.crnn.data import LabelError, kind_of, write_folder
from fastctc.crnn.formulas import FormulaDraw, FormulaSource
from fastctc.crnn.model import load_state
from fastctc.crnn.training import GROUPS, MAY_CHANGE, ResumeError, saved_config, train

CONFIGS: dict[str, type] = {"recipe": TrainConfig, "draw": FormulaDraw, **GROUPS}
SETTINGS = [
    (group, each.name)
    for group, config in CONFIGS.items()
    for each in fields(config)
    if "check" in each.metadata
]
ALLOWED = {
    ("recipe", "data"), ("recipe", "val"), ("recipe", "threads"), ("recipe", "device"), ("recipe", "min_usable"),
    ("schedule", "steps"), ("schedule", "minutes"), ("schedule", "patience"),
    ("schedule", "eval_every"), ("schedule", "save_every"), ("schedule", "log_every"),
}  # fmt: skip
OTHERS: dict[str, Any] = {  # other values than in the run, where adding 1 is not allowed
    "data": "moved", "val": "moved", "characters": "01", "device": "meta", "start_from": "words",
    "precision": "bf16",
    "pooled_columns": 2, "stem_stride": 2, "height": 40, "warmup": 0.3, "ema": 0.5, "threads": 2, "parts": 4,
    "stretch": 0.1, "median": 3, "opening": 3, "closing": 3, "minutes": 3.0, "direction": "rtl",
    "label_pattern": "(.*)_",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("resume") / "data"
    write_folder(FormulaSource(renderer="captcha", seed=3), path, 24)
    return path


SMALL = {"steps": 4, "batch_size": 8, "height": 32, "channels": 4, "hidden": 8, "threads": 1} | {
    "precision": "fp32", "save_every": 2, "eval_every": 100,
}  # fmt: skip


def stop_at(step: int) -> Any:
    return lambda now: now == step


@pytest.fixture(scope="module")
def stopped(folder: Path) -> Path:
    """Start a run and stop it after two of its four steps."""
    out = folder.parent / "run"
    with pytest.raises(KeyboardInterrupt):
        train(recipe(data=str(folder), **SMALL), out, show_progress=False, should_stop=stop_at(2))
    return out


@pytest.fixture(scope="module")
def drawn(folder: Path) -> Path:
    """Start a run on drawn images and stop it after two steps."""
    out, settings = folder.parent / "drawn", {"images": 12, "eval_images": 4, "renderer": "captcha"}
    with pytest.raises(KeyboardInterrupt):
        train(recipe(**SMALL, **settings), out, show_progress=False, should_stop=stop_at(2))
    return out


def other(config: Any, name: str) -> Any:
    """Return another allowed value of a setting."""
    value, (kind, _, choices) = getattr(config, name), kind_of(type(config), name)
    if name in OTHERS:
        return OTHERS[name]
    if choices:
        return next(each for each in choices if each != value)
    if kind is bool:
        return not value
    for candidate in ((value or 0) + 1, (value or 0) * 0.5, 0.25):
        try:
            replace(config, **{name: kind(candidate)})
        except ValueError:
            continue
        if kind(candidate) != value:
            return kind(candidate)
    raise AssertionError(f"no other value of {name}")


def test_the_table_lists_what_may_change() -> None:
    assert set(MAY_CHANGE) == ALLOWED and set(SETTINGS) >= ALLOWED


@pytest.mark.parametrize("group, name", SETTINGS)
def test_every_setting_may_change_on_resume_or_is_refused(group, name, stopped, drawn, folder, tmp_path):
    out = shutil.copytree(drawn if group == "draw" else stopped, tmp_path / "run")
    config = saved_config(out)
    assert config is not None
    part = config if group == "recipe" else getattr(config, group)
    value = other(part, name)
    if name in ("data", "val"):
        value = str(shutil.copytree(folder, tmp_path / "moved"))
    needed = {"tone": 0.0} if name == "ink" else {}  # gray levels as they are have no tone curve
    new = replace(part, **{name: value, **needed})
    config = new if group == "recipe" else replace(config, **{group: new})
    if name == "minutes":  # a budget cannot replace steps
        with pytest.raises(ResumeError, match=r"minutes is 3\.0, but the run to resume has at least None"):
            train(config, out, resume=True, show_progress=False)
    elif name == "val":  # a part of data was held out, and must not be trained on now
        with pytest.raises(ResumeError, match=r"val is .*, but the run to resume has None"):
            train(config, out, resume=True, show_progress=False)
    elif (group, name) in ALLOWED:
        if name == "device":
            config = replace(config, device="cpu:0")
        train(config, out, resume=True, show_progress=False)
        kept = saved_config(out)
        assert getattr(kept if group == "recipe" else getattr(kept, group), name) not in (
            None,
            getattr(part, name),
        )
    else:
        with pytest.raises(ResumeError, match=f"^{name} is .*, but the run to resume has "):
            train(config, out, resume=True, show_progress=False)
        assert load_state(out / "state.pt")["step"] == 2


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    out = folder.parent / "whole"
    train(recipe(data=str(folder), **SMALL), out, show_progress=False)
    return out


def assert_same_weights(one: Path, two: Path) -> None:
    first, second = (load_state(out / "state.pt")["model"] for out in (one, two))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


@pytest.mark.parametrize("spelt", ["{0}/", "{0}/../{1}", "{0}/labels.tsv", "relative", "link", "copy"])
def test_data_moved_or_spelled_otherwise_is_the_same_data(
    spelt, folder, stopped, whole, tmp_path, monkeypatch
):
    out = shutil.copytree(stopped, tmp_path / "run")
    data = spelt.format(folder, folder.name)
    if spelt == "relative":
        monkeypatch.chdir(folder.parent)
        data = folder.name
    elif spelt == "link":
        (tmp_path / "link").symlink_to(folder)
        data = str(tmp_path / "link")
    elif spelt == "copy":
        data = str(shutil.copytree(folder, tmp_path / "copy"))
    assert cli.main(["train", "--out", str(out), "--resume", "--data", data, "--log-every", "1"]) == 0
    assert_same_weights(out, whole)


def test_other_images_are_refused_by_their_fingerprint(folder, stopped, tmp_path, capsys):
    out = shutil.copytree(stopped, tmp_path / "run")
    data = shutil.copytree(folder, tmp_path / "data")
    shutil.copy(data / "000001.png", data / "000000.png")
    assert cli.main(["train", "--out", str(out), "--resume", "--data", str(data)]) == 2
    assert "the training data is not what the run began with" in capsys.readouterr().err


def test_lost_data_says_how_to_name_its_new_folder(folder, stopped, tmp_path):
    out = shutil.copytree(stopped, tmp_path / "run")
    config = saved_config(out)
    with pytest.raises(LabelError, match="If the images were moved, give their new folder as data"):
        train(replace(config, data=str(tmp_path / "gone")), out, resume=True, show_progress=False)


def test_more_steps_go_on_and_fewer_are_refused(folder, whole, tmp_path, capsys):
    out = shutil.copytree(whole, tmp_path / "run")
    result = train(changed(saved_config(out), "schedule", steps=6), out, resume=True, show_progress=False)
    assert result.steps == 6 and saved_config(out).schedule.steps == 6
    assert cli.main(["train", "--out", str(out), "--resume", "--steps", "7"]) == 0
    assert load_state(out / "state.pt")["step"] == 7
    capsys.readouterr()
    assert cli.main(["train", "--out", str(out), "--resume", "--steps", "5"]) == 2
    assert "--steps is 5, but the run to resume has at least 7" in capsys.readouterr().err


def test_a_longer_plan_from_the_beginning_is_the_run_of_more_steps(folder, tmp_path):
    config = recipe(data=str(folder), **SMALL)
    train(changed(config, "schedule", steps=6), tmp_path / "six", show_progress=False)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", show_progress=False, should_stop=stop_at(0))
    train(changed(config, "schedule", steps=6), tmp_path / "run", resume=True, show_progress=False)
    assert_same_weights(tmp_path / "six", tmp_path / "run")


def test_more_minutes_go_on_and_fewer_are_refused(folder, tmp_path):
    config = recipe(data=str(folder), **(SMALL | {"steps": None, "minutes": 0.02}))
    first = train(config, tmp_path, show_progress=False)
    second = train(changed(config, "schedule", minutes=0.06), tmp_path, resume=True, show_progress=False)
    assert second.steps > first.steps and saved_config(tmp_path).schedule.minutes == 0.06
    with pytest.raises(ResumeError, match=r"minutes is 0\.02, but the run to resume has at least 0\.06"):
        train(config, tmp_path, resume=True, show_progress=False)


def test_settings_that_are_left_open_are_no_contradiction(folder, whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "run")
    settings = {"steps": 4, "batch_size": 8, "save_every": 2, "eval_every": 100}
    config = recipe(data=str(folder), **settings)  # height, channels, threads, precision: None or "auto"
    train(config, out, resume=True, show_progress=False)
    kept = saved_config(out)
    assert kept.preprocess.height == 32 and kept.model.channels == 4 and kept.precision == "fp32"


@pytest.mark.parametrize(
    "options, message",
    [
        (["--seed", "1"], "--seed is 1, but the run to resume has 0"),
        (["--optimizer", "muon"], "--optimizer is muon, but the run to resume has adamw"),
        (["--median", "3"], "--median is 3, but the run to resume has 0"),
        (["--look", "default"], "--look is about drawn images, but the run to resume has --data"),
        (["--domain", "formulas"], "--domain is about drawn images, but the run to resume has --data"),
        (["--preset", "formula"], "--data is left out, but the run to resume has"),
        (["--from", "formula"], "--from is formula, but the run to resume has None"),
        (["--overfit-one-batch"], "--resume goes on with a run, but --overfit-one-batch begins anew"),
    ],
)
def test_a_contradicting_option_is_refused_never_ignored(options, message, stopped, capsys):
    assert cli.main(["train", "--out", str(stopped), "--resume", *options]) == 2
    assert message in capsys.readouterr().err
    assert load_state(stopped / "state.pt")["step"] == 2


def test_a_preset_is_compared_as_a_whole(drawn, capsys):
    assert cli.main(["train", "--out", str(drawn), "--resume", "--preset", "formula"]) == 2
    assert "but the run to resume has" in capsys.readouterr().err
    assert cli.main(["train", "--out", str(drawn), "--resume", "--data", "x"]) == 2
    assert "--data is x, but the run to resume draws its images" in capsys.readouterr().err


def test_the_same_command_with_resume_goes_on(folder, tmp_path, capsys):
    command = ["train", "--out", str(tmp_path), "--data", str(folder), "--steps", "2", "--batch-size", "4"]
    command += ["--preset", "quick", "--channels", "4", "--hidden", "8", "--threads", "1"]
    assert cli.main(command) == 0
    assert cli.main([*command, "--resume"]) == 0
    assert cli.main([*command, "--resume", "--workers", "0", "--cache", str(tmp_path / "cache")]) == 0


def test_a_damaged_saved_recipe_is_named(stopped, tmp_path):
    out = shutil.copytree(stopped, tmp_path / "run")
    state = load_state(out / "state.pt")
    for broken in ({"seed": "x"}, {"schedule": 3}, "x", {"hue": 1}):
        torch.save(state | {"config": broken}, out / "state.pt")
        with pytest.raises(TrainError, match="the saved recipe cannot be used"):
            saved_config(out)
