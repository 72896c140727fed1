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

from PIL import Image, ImageDraw, ImageFilter, ImageOps

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

    def draw(
        self, character: str, font: int, angle: float, rng: random.Random, *, varied: bool = False
    ) -> Box:
        """Draw ``character`` in the font of that number, turned by ``angle`` degrees.

        With ``varied``, it is shaped as fonts that are not at hand might have it.
        """
        if varied and character in "17" and rng.random() < 0.4:
            glyph = _one_or_seven(character, rng.choice(self.sizes), rng)
            return _varied(_box(glyph.rotate(angle, Image.Resampling.BILINEAR, expand=True)), character, rng)
        if varied:
            return _varied(self.draw(character, font, angle, rng), character, rng)
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


def _varied(box: Box, character: str, rng: random.Random) -> Box:
    """Make a glyph as another font might have it: slanted, narrower or wider, thinner or bolder; a plus, turned."""
    if not box.coverage:
        return box
    glyph = Image.frombytes("L", box[:2], box.coverage)
    if character == "+":
        glyph = glyph.rotate(rng.uniform(-15, 15), Image.Resampling.BILINEAR, expand=True)
    slant, stretch = rng.uniform(-0.2, 0.2), rng.uniform(0.75, 1.25)
    width = ceil((glyph.width + abs(slant) * glyph.height) * stretch)
    # Where a pixel of the new glyph comes from: its middle keeps its place, rows slide by their height above it.
    matrix = (1 / stretch, slant, (glyph.width - width / stretch - slant * glyph.height) / 2, 0, 1, 0)
    glyph = glyph.transform((width, glyph.height), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    if rng.random() < 0.3:
        grown = rng.randint(1, 4 if character in "()+*17" else 2)
        glyph = ImageOps.expand(glyph, grown).filter(ImageFilter.MaxFilter(2 * grown + 1))
    level = rng.uniform(0.2, 0.5)  # of the blurred ink that becomes the edge; 0.5 leaves straight edges alone
    edge = [round(255 * min(1.0, max(0.0, (i / 255 - level) * 2.5 + 0.5))) for i in range(256)]
    reshaped = _box(glyph.filter(ImageFilter.GaussianBlur(1)).point([0] + edge[1:]))
    return reshaped if max(reshaped.coverage, default=0) > _VISIBLE else box


_VISIBLE = 160  # coverage that some pixel of a glyph has at least, once hairlines are reshaped


def _one_or_seven(character: str, size: int, rng: random.Random) -> Image.Image:
    """Draw a 1 with or without flag and base, or a 7 with or without serif and bar, of straight strokes."""
    high = 0.72 * 4 * size  # drawn four times as large
    if character == "1":
        strokes = [((0.0, 0.0), (0.0, 1.0))]
        if rng.random() < 0.7:
            strokes.append(((0.0, 0.0), (-rng.uniform(0.12, 0.4), rng.uniform(0.05, 0.4))))
        if rng.random() < 0.5:
            base = rng.uniform(0.15, 0.35)
            strokes.append(((-base, 1.0), (base, 1.0)))
    else:
        wide, foot = rng.uniform(0.4, 0.7), rng.uniform(0.0, 0.35)
        strokes = [((0.0, 0.0), (wide, 0.0)), ((wide, 0.0), (foot, 1.0))]
        if rng.random() < 0.3:
            strokes.append(((0.0, 0.0), (0.0, rng.uniform(0.1, 0.2))))
        if rng.random() < 0.4:
            middle = (wide + foot) / 2
            strokes.append(((middle - 0.2, 0.5), (middle + 0.2, 0.5)))
    stroke = rng.uniform(0.05, 0.2) * high
    glyph = Image.new("L", (ceil(1.5 * high), ceil(1.5 * high)))
    page = ImageDraw.Draw(glyph)
    for line in strokes:
        points = [((0.5 + x) * high, (0.25 + y) * high) for x, y in line]
        page.line(points, 255, round(stroke))
        for x, y in points:
            page.ellipse((x - stroke / 2, y - stroke / 2, x + stroke / 2, y + stroke / 2), 255)
    glyph = glyph.reduce(4)
    return glyph.crop(glyph.getbbox())


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
        return [
            press.draw(character, font, angle, rng, varied=bool(varied) and rng.random() < varied)
            for angle in angles
        ]

    return {c: [glyphs(c, font) for font in range(len(fonts))] for c in CHARACTERS + " "}
