"""Formulas: their grammar, their drawing, and the models that read them."""

from pathlib import Path

from fastctc.crnn.data import Domain
from fastctc.crnn.formulas.constraint import FormulaConstraint
from fastctc.crnn.formulas.fonts import find_fonts
from fastctc.crnn.formulas.glyphs import captcha_draws_from, captcha_image
from fastctc.crnn.formulas.grammar import (
    CHARACTERS,
    KINDS,
    all_expressions,
    evaluate,
    holds,
    is_formula,
    kind,
    random_formula,
)
from fastctc.crnn.formulas.presets import PRESETS
from fastctc.crnn.formulas.source import FormulaDraw, FormulaSource

DOMAIN = Domain(
    name="formulas",
    draw=FormulaDraw,
    kind=kind,
    kinds=KINDS,
    constraints={"formula": FormulaConstraint},
    checkpoints={"formula": Path(__file__).with_name("formula.safetensors")},
    former={"shipped": "formula", "wide": "formula"},
)
"""The domain of formulas."""

__all__ = [
    "CHARACTERS",
    "DOMAIN",
    "KINDS",
    "PRESETS",
    "FormulaConstraint",
    "FormulaDraw",
    "FormulaSource",
    "all_expressions",
    "captcha_draws_from",
    "captcha_image",
    "evaluate",
    "find_fonts",
    "holds",
    "is_formula",
    "kind",
    "random_formula",
]
