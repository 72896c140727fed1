"""Training recipes for words."""

from __future__ import annotations

from fastctc.crnn.data import AugmentConfig, PreprocessConfig
from fastctc.crnn.training import ModelConfig, OptimizerConfig, ScheduleConfig, TrainConfig
from fastctc.crnn.words.source import WordDraw

PRESETS = {
    "words": TrainConfig(
        draw=WordDraw(images=135_000, rounds=10),
        preprocess=PreprocessConfig(ink="gray", tone=0.0, crop=True),
        augment=AugmentConfig(stretch=0.15),
        model=ModelConfig(hidden=256, residuals=3),
        optimizer=OptimizerConfig("muon", ema=0.999),
        schedule=ScheduleConfig(steps=51_100, parts=1, eval_images=1_000, eval_every=1_000, save_every=500),
        threads=1,
    ),
}
"""``words`` has the network and the images of the checkpoint of this name, which took twelve runs (words.md)."""
