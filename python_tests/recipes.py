"""Recipes of tests, from settings in one row."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from fastctc.crnn import TrainConfig
from fastctc.crnn.training import config_from_dict


def recipe(**settings: Any) -> TrainConfig:
    """Return a recipe whose settings are spread over its parts, as in the files of fastctc 0.1."""
    return config_from_dict(settings)


def changed(config: TrainConfig, group: str, **settings: Any) -> TrainConfig:
    """Return a recipe with other settings in one of its parts."""
    return replace(config, **{group: replace(getattr(config, group), **settings)})


def tiny(folder: Path, **changes: Any) -> TrainConfig:
    """Return a recipe of seconds for labeled images; fp32, so that it is the same on every processor."""
    settings = {
        "data": str(folder),
        "steps": 12,
        "batch_size": 8,
        "height": 32,
        "channels": 4,
        "hidden": 8,
        "threads": 1,
    }
    settings |= {"precision": "fp32", "eval_every": 5, "save_every": 3}
    return recipe(**(settings | changes))
