"""Training recipes for formulas."""

from __future__ import annotations

from fastctc.crnn.data import AugmentConfig
from fastctc.crnn.formulas.source import FormulaDraw
from fastctc.crnn.training import OptimizerConfig, ScheduleConfig, TrainConfig

PRESETS = {
    "quick": TrainConfig(
        draw=FormulaDraw(images=70_000),
        optimizer=OptimizerConfig("muon"),
        schedule=ScheduleConfig(steps=None, minutes=7.0),
    ),
    "formula": TrainConfig(
        draw=FormulaDraw(
            look="mixed", contest_share=0.8, captcha_share=0.3,
            glyph_variants=3_000, glyph_fonts="packages", glyph_varied=0.5, images=80_000, rounds=4,
        ),
        augment=AugmentConfig(stretch=0.15),
        optimizer=OptimizerConfig("muon", label_smoothing=0.02),
        schedule=ScheduleConfig(steps=16_000, parts=1, eval_images=4_000, eval_every=2_000, save_every=500),
        threads=1,
    ),
}  # fmt: skip
"""``quick`` takes minutes; ``formula`` made the checkpoint of this name."""
