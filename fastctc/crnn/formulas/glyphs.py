"""Single glyphs, drawn by the routine of the captcha package from given random numbers.

The package takes its random numbers from :mod:`secrets`. What is drawn here is drawn by a private copy of its
module, so whoever else draws captchas in the same process still gets unpredictable ones.
"""

from __future__ import annotations

import importlib.util
import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from math import ceil
from types import ModuleType
from typing import Any, Literal, NamedTuple

from PIL import Image, ImageDraw, ImageFilter

from fastctc.crnn.data import package_folder, printed
from fastctc.crnn.formulas.grammar import CHARACTERS

Look = Literal["contest", "default"]

MAX_TILT = 30.0
"""The largest angle, in degrees, by which the captcha package turns a character."""


class _SeededSecrets:
    """The three functions of :mod:`secrets` that the captcha package calls, on given random numbers."""

    rng = random.Random()

    def randbelow(self, n: int) -> int:
        return int(self.rng.random() * n)

    def randbits(self, k: int) -> int:
        return self.rng.getrandbits(k)

    def choice(self, sequence: Sequence[Any]) -> Any:
        return sequence[self.randbelow(len(sequence))]


_drawing = threading.Lock()


@cache
def captcha_image() -> ModuleType:
    """Return a private copy of ``captcha.image``, with its random numbers replaced."""
    package_folder("captcha")
    spec = importlib.util.find_spec("captcha.image")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.secrets = _SeededSecrets()  # type: ignore[attr-defined]
    return module


@contextmanager
def captcha_draws_from(rng: random.Random) -> Iterator[None]:
    """Let the private copy of the package take its random numbers from ``rng``; one thread at a time."""
    source = captcha_image().secrets
    with _drawing:
        source.rng = rng
        yield


class Box(NamedTuple):
    """A drawn glyph: how much ink (0-255) covers each pixel of its box, row by row; empty for no ink."""

    width: int
    height: int
    coverage: bytes


class GlyphPress:
    """A press that draws one glyph after the other."""

    def __init__(self, look: Look, height: int, fonts: tuple[str, ...]) -> None:
        self.look, self.fonts = look, fonts
        self.sizes = [round(s * height / 60) for s in range(30, 59)] if look == "contest" else [42, 50, 56]
        self.captchas: dict[tuple[int, int], Any] = {}
        self.page = ImageDraw.Draw(Image.new("RGB", (1, 1)))

    def draw(self, character: str, font: int, angle: float, rng: random.Random) -> Box:
        """Draw ``character`` in the font of that number, turned by ``angle`` degrees."""
        key = (font, rng.choice(self.sizes))
        if key not in self.captchas:
            self.captchas[key] = captcha_image().ImageCaptcha(fonts=[self.fonts[font]], font_sizes=key[1:])
        captcha = self.captchas[key]
        if self.look == "contest":
            small_star = character == "*" and rng.random() < 0.5
            if character in "-=" or small_star or rng.random() < 0.15:
                glyph = printed(character, captcha.truefonts[0])
                glyph = glyph.rotate(angle, Image.Resampling.BILINEAR, expand=True)
                return _box(glyph, raised=rng.randint(0, key[1] // 4) if small_star else 0)
        with captcha_draws_from(rng):
            captcha.character_rotate = (angle, angle)
            color = (255, 255, 255, rng.randint(220, 255))
            return _box(captcha._draw_character(character, self.page, color).getchannel("A"))


def _varied(box: Box, rng: random.Random) -> Box:
    """Make a glyph as another font might have it: slanted, narrower or wider, thinner or bolder."""
    if not box.coverage:
        return box
    glyph = Image.frombytes("L", box[:2], box.coverage)
    slant, stretch = rng.uniform(-0.2, 0.2), rng.uniform(0.75, 1.25)
    width = ceil((box.width + abs(slant) * box.height) * stretch)
    # Where a pixel of the new glyph comes from: its middle keeps its place, rows slide by their height above it.
    matrix = (1 / stretch, slant, (box.width - width / stretch - slant * box.height) / 2, 0, 1, 0)
    glyph = glyph.transform((width, box.height), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    level = rng.uniform(0.2, 0.5)  # of the blurred ink that becomes the edge; 0.5 leaves straight edges alone
    edge = [round(255 * min(1.0, max(0.0, (i / 255 - level) * 2.5 + 0.5))) for i in range(256)]
    return _box(glyph.filter(ImageFilter.GaussianBlur(1)).point([0] + edge[1:]))


def _box(glyph: Image.Image, raised: int = 0) -> Box:
    """Make a box of a gray image, with room below that raises its ink once the box is centered on a line."""
    if glyph.getbbox() is None:
        return Box(*glyph.size, b"")
    return Box(glyph.width, glyph.height + 2 * raised, glyph.tobytes() + bytes(glyph.width * 2 * raised))


@lru_cache(maxsize=8)
def glyph_bank(
    look: Look, height: int, fonts: tuple[str, ...], variants: int, seed: int, varied: float = 0.0
) -> dict[str, list[list[Box]]]:
    """Draw ``variants`` glyphs of each character and font, the least tilted first.

    A share of ``varied`` of them is shaped as fonts that are not at hand might have them.
    """
    press = GlyphPress(look, height, fonts)

    def glyphs(character: str, font: int) -> list[Box]:
        rng = random.Random(f"{seed}/{look}/{character}/{font}")
        angles = sorted((rng.uniform(-MAX_TILT, MAX_TILT) for _ in range(variants)), key=abs)
        boxes = [press.draw(character, font, angle, rng) for angle in angles]
        return [_varied(box, rng) if varied and rng.random() < varied else box for box in boxes]

    return {c: [glyphs(c, font) for font in range(len(fonts))] for c in CHARACTERS + " "}
