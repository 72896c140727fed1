"""Training recipes for formulas."""

from __future__ import annotations

from dataclasses import replace

from fastctc.crnn.data import AugmentConfig
from fastctc.crnn.formulas.source import FormulaDraw
from fastctc.crnn.training import OptimizerConfig, ScheduleConfig, TrainConfig

_SHIPPED = FormulaDraw(
    look="mixed", contest_share=0.8, captcha_share=0.3, glyph_variants=2_000, images=100_000, rounds=3
)
_SCHEDULE = ScheduleConfig(steps=14_000, parts=1, eval_images=4_000, eval_every=2_000, save_every=500)

PRESETS = {
    "quick": TrainConfig(
        draw=FormulaDraw(images=70_000),
        optimizer=OptimizerConfig("muon"),
        schedule=ScheduleConfig(steps=None, minutes=8.0),
    ),
    "shipped": TrainConfig(draw=_SHIPPED, optimizer=OptimizerConfig("muon"), schedule=_SCHEDULE, threads=1),
    "wide": TrainConfig(
        draw=replace(
            _SHIPPED, glyph_variants=3_000, glyph_fonts="packages", glyph_varied=0.4, images=80_000, rounds=4
        ),
        augment=AugmentConfig(stretch=0.15),
        optimizer=OptimizerConfig("muon"),
        schedule=replace(_SCHEDULE, steps=16_000),
        threads=1,
    ),
}
"""``quick`` takes minutes; ``shipped`` and ``wide`` made the checkpoints of these names."""
