"""Series of drawn formulas, and the settings they are drawn by in a training recipe."""

from __future__ import annotations

import importlib.metadata
import random
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from PIL import Image

from fastctc.crnn.data import DrawConfig, KeyedSource, Pixels, at_least, between, hash_of_code, setting
from fastctc.crnn.formulas.drawing import (
    VARIANTS,
    CaptchaRenderer,
    GlyphRenderer,
    RendererName,
    check_choice,
    make_renderer,
)
from fastctc.crnn.formulas.fonts import FontSet, find_fonts
from fastctc.crnn.formulas.glyphs import Look
from fastctc.crnn.formulas.grammar import CHARACTERS, Value, random_formula

_GOLDEN = 0.6180339887498949  # its multiples fill the unit interval evenly


@dataclass(frozen=True)
class FormulaSource:
    """An endless series of pictures of formulas: ``source(i)`` is number ``i``, in any process and any order.

    Args:
        look: ``"contest"``, ``"default"`` or ``"mixed"``.
        renderer: ``"captcha"``, ``"glyphs"`` or ``"mixed"``.
        seed: which series.
        value: what follows the expression, see :func:`fastctc.crnn.formulas.random_formula`.
        gray: give arrays of uint8 of shape (60, 180) instead of RGB pictures.
        contest_share: share of the pictures of look ``"mixed"`` that have the contest's look.
        captcha_share: share of the pictures of renderer ``"mixed"`` that the ``captcha`` package draws.
        variants: glyphs of each character in the bank of the renderer ``"glyphs"``.
        varied: share of these glyphs that is shaped as other fonts might have them, in the contest look.
        fonts: what the contest look is drawn with, such as ``find_fonts(system=True)``; by default
            :func:`fastctc.crnn.formulas.find_fonts`.
        glyph_fonts: what the bank of glyphs is drawn with, in the contest look; by default ``fonts``.
    """

    look: Literal["contest", "default", "mixed"] = "contest"
    renderer: Literal["captcha", "glyphs", "mixed"] = "captcha"
    seed: int = 0
    value: Value = "mixed"
    gray: bool = False
    contest_share: float = 0.5
    captcha_share: float = 0.4
    variants: int = VARIANTS
    varied: float = 0.0
    fonts: tuple[str, ...] | None = None
    glyph_fonts: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_choice("look", self.look, (*get_args(Look), "mixed"))
        check_choice("renderer", self.renderer, (*get_args(RendererName), "mixed"))
        check_choice("value", self.value, get_args(Value))

    def __call__(self, i: int) -> tuple[Image.Image | Pixels, str]:
        """Return picture number ``i`` and the text on it."""
        rng = random.Random(f"{self.seed}/{self.look}/{i}")
        text = random_formula(rng, value=self.value)
        by_look, _ = rng.random(), rng.random()  # two numbers for every look
        look = self.look
        if look == "mixed":
            look = "contest" if by_look < self.contest_share else "default"
        name = self.renderer
        if name == "mixed":
            name = "captcha" if i * _GOLDEN % 1 < self.captcha_share else "glyphs"
        renderer = self._renderer(name, look)
        return renderer.render_gray(text, rng) if self.gray else renderer.render(text, rng), text

    def key(self) -> dict[str, Any]:
        """Return what the pictures depend on: these settings, the code, and the ``captcha`` package."""
        version = importlib.metadata.version("captcha")
        return {"drawn": repr(self), "code": hash_of_code(Path(__file__).parent), "captcha": version}

    def _renderer(self, name: RendererName, look: Look) -> CaptchaRenderer | GlyphRenderer:
        if look == "default":
            return make_renderer(name, look, variants=self.variants)
        fonts = self.fonts if name == "captcha" else self.glyph_fonts or self.fonts
        return make_renderer(name, look, fonts=fonts, variants=self.variants, varied=self.varied)


@dataclass(frozen=True)
class FormulaDraw(DrawConfig):
    """How formulas are drawn to train on.

    Attributes:
        images: how many images are drawn before training. None: what can be drawn in a fifth of the minutes.
        rounds: how many times, evenly over the run, the images are replaced by as many new ones.
        look: fonts and spacing of a formula contest, or the captcha package's own, or both.
        renderer: the captcha package itself, or its glyphs drawn beforehand, which is ten times faster, or both.
        value: what follows the expression: nothing, =value, or a wrong =value.
        contest_share: share of the images of look mixed that have the contest's look.
        captcha_share: share of the images of renderer mixed that the captcha package draws. A model
            trained on few of the package's own images reads them less accurately.
        glyph_variants: glyphs of each character that the faster renderer composes images of.
        captcha_fonts: fonts of the captcha package's images in the contest's look. ``"bundled"``: fonts of the
            packages that draw; ``"packages"``: also the fonts of installed packages, except a tenth of their
            families; ``"unseen"``: this tenth alone, for measuring.
        glyph_fonts: fonts of the faster renderer's glyphs in the contest's look, as ``captcha_fonts``.
        glyph_varied: share of these glyphs that is shaped as other fonts might have them.
    """

    look: Literal["contest", "default", "mixed"] = setting("contest")
    renderer: Literal["captcha", "glyphs", "mixed"] = setting("mixed")
    value: Literal["mixed", "none", "right", "wrong"] = setting("mixed")
    contest_share: float = setting(0.5, metavar="SHARE", **between(0, 1))
    captcha_share: float = setting(0.4, metavar="SHARE", **between(0, 1))
    glyph_variants: int = setting(VARIANTS, metavar="N", **at_least(1))
    captcha_fonts: Literal["bundled", "packages", "unseen"] = setting("bundled")
    glyph_fonts: Literal["bundled", "packages", "unseen"] = setting("bundled")
    glyph_varied: float = setting(0.0, metavar="SHARE", **between(0, 1))

    @property
    def characters(self) -> str:
        """Return the alphabet of formulas."""
        return CHARACTERS

    def source(self, seed: int, *, color: bool = False) -> KeyedSource:
        """Return an endless series of formulas: gray arrays (60, 180), or RGB pictures."""
        fonts, glyph_fonts = _fonts(self.captcha_fonts), _fonts(self.glyph_fonts)
        if fonts and not glyph_fonts:
            glyph_fonts = find_fonts()
        return FormulaSource(
            self.look, self.renderer, seed, self.value, not color, self.contest_share, self.captcha_share,
            self.glyph_variants, self.glyph_varied, fonts, glyph_fonts,
        )  # fmt: skip

    def unseen(self) -> FormulaDraw:
        """Return the same, drawn by the ``captcha`` package alone."""
        return replace(self, renderer="captcha")


@cache
def _fonts(name: FontSet) -> tuple[str, ...] | None:
    return None if name == "bundled" else find_fonts(name)
