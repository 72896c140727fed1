"""Recipes of tests, from settings in one row."""

from dataclasses import replace
from typing import Any

from fastctc.crnn import TrainConfig
from fastctc.crnn.training import config_from_dict


def recipe(**settings: Any) -> TrainConfig:
    """A recipe whose settings are spread over its parts, as those saved by fastctc 0.1 are."""
    return config_from_dict(settings)


def changed(config: TrainConfig, group: str, **settings: Any) -> TrainConfig:
    """A recipe with other settings in one of its parts."""
    return replace(config, **{group: replace(getattr(config, group), **settings)})
