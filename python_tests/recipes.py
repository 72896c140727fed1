"""Recipes of tests, from settings in one row."""

from dataclasses import replace
from typing import Any

from fastctc.crnn import TrainConfig
from fastctc.crnn.training import config_from_dict


def recipe(**settings: Any) -> TrainConfig:
    """Return a recipe whose settings are spread over its parts, as in the files of fastctc 0.1."""
    return config_from_dict(settings)


def changed(config: TrainConfig, group: str, **settings: Any) -> TrainConfig:
    """Return a recipe with other settings in one of its parts."""
    return replace(config, **{group: replace(getattr(config, group), **settings)})
