"""How formulas are drawn: pictures in the manner of the ``captcha`` package, fresh or from pre-drawn glyphs.

======= ==============================================================================================
look    what it shows
======= ==============================================================================================
default what ``captcha.image.ImageCaptcha`` draws by default: one font, blanks before half of the
        characters, ``-`` and ``=`` stretched into blocks, dots and an arc
contest what formula contests show: many fonts, glyphs set tightly, thin ``-`` and ``=``, small ``*``,
        dots, no arc, sometimes very low contrast
======= ==============================================================================================

:class:`CaptchaRenderer` draws every glyph anew with the package's own routine; :class:`GlyphRenderer` draws a
bank of glyphs once, with the same routine. It composes pictures of them by the package's rules, some ten times
faster. A picture depends on its text, its random numbers and the renderer's options alone.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from math import ceil
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from fastctc.crnn.formulas.fonts import draws_formulas, find_fonts
from fastctc.crnn.formulas.glyphs import (
    MAX_TILT,
    Box,
    GlyphPress,
    Look,
    captcha_draws_from,
    captcha_image,
    glyph_bank,
)
from fastctc.crnn.formulas.grammar import CHARACTERS

RendererName = Literal["captcha", "glyphs"]
Pixels = npt.NDArray[np.uint8]

_SIZE = (180, 60)
VARIANTS = 400


@dataclass
class _Style:
    """What the glyphs of one picture have in common; by default, what the contest's pictures mostly show."""

    background: tuple[int, ...]
    ink: tuple[int, ...]
    fonts: Sequence[int]
    arc: bool = False
    blanks: float = 0.0  # how often a blank stands before a character
    overlap: float = 0.25  # how far a glyph may slide over the one before, in mean glyph widths
    hidden: float = 0.25  # how much of the narrower of the two a slide may hide
    gap: int = 0  # pixels that may be added between glyphs
    drift: int = 0  # pixels that glyphs may leave the line
    tilt: float = MAX_TILT
    room: float = 1.0  # the least width of the line before it is squeezed into the picture, in picture widths
    centered: bool = False
    see_through: bool = True  # the package's masks: the darker the ink, the less it covers
    dots: int = 30
    dot_width: int = 3


def _random_style(look: Look, fonts: int, rng: random.Random) -> _Style:
    background = tuple(rng.randint(238, 255) for _ in range(3))
    if look == "default":
        ink = tuple(rng.randint(10, 200) for _ in range(3))
        return _Style(background, ink, range(fonts), hidden=1.0, arc=True, blanks=0.5)
    style = _Style(background, tuple(rng.randint(0, 200) for _ in range(3)), range(fonts))
    if rng.random() < 0.4:
        return style
    if rng.random() < 0.25:
        style.background = tuple(rng.randint(200, 255) for _ in range(3))
    if rng.random() < 0.2:
        low, high = (5, 45) if rng.random() < 0.6 else (150, 205)
        style.ink = tuple(rng.randint(low, high) for _ in range(3))
    if rng.random() < 0.4:
        style.fonts = (rng.randrange(fonts),)
    if rng.random() < 0.5:
        style.tilt = rng.uniform(0, MAX_TILT)
    style.overlap = rng.choice((0.25, 0.25, 0.15, 0.0))
    style.gap = rng.choice((0, 0, 3, 8))
    style.drift = rng.choice((0, 0, 2, 5))
    style.room = rng.choice((1.0, 1.0, 1.15, 1.4))
    style.centered = rng.random() < 0.4
    style.see_through = rng.random() < 0.8
    style.dots = rng.randint(0, 40)
    style.dot_width = rng.choice((3, 3, 3, 2))
    return style


_Glyphs = Callable[[str, int, float, random.Random], Box]
"""Returns a glyph of a character, in the font of that number, tilted by at most a number of degrees."""


def _compose(
    text: str, style: _Style, size: tuple[int, int], glyphs: _Glyphs, rng: random.Random, mode: str
) -> Pixels:
    """Set ``text`` by the captcha package's rules; gives (height, width) for mode ``L``, (…, 3) for ``RGB``.

    The package slides each glyph back by a random part of the mean width, and pastes it through a mask, the
    lightness of its ink. It shrinks a line that is too wide, adds noise, and smooths the whole.
    """
    boxes = []
    for character in text:
        if style.blanks and rng.random() < style.blanks:
            boxes.append(glyphs(" ", style.fonts[int(rng.random() * len(style.fonts))], MAX_TILT, rng))
        boxes.append(glyphs(character, style.fonts[int(rng.random() * len(style.fonts))], style.tilt, rng))
    gaps = [int(rng.random() * (style.gap + 1)) for _ in boxes]
    line = sum(box.width for box in boxes) + sum(gaps)
    width = max(line, int(size[0] * style.room))
    mean = line // len(text)
    x = int(rng.random() * (width - line)) if style.centered else int(0.1 * mean)

    ink, background = _color(style.ink, mode), _color(style.background, mode)
    masks = _masks(style.ink) if style.see_through else None
    image = Image.new(mode, (width, size[1]), background)
    slide = int(style.overlap * mean) + 1
    narrower = [min(a.width, b.width) for a, b in pairwise(boxes)]
    slides = [min(slide, int(style.hidden * each) + 1) for each in narrower] + [slide]
    for box, gap, slide in zip(boxes, gaps, slides, strict=True):
        y = int((size[1] - box.height) / 2) + (rng.randint(-style.drift, style.drift) if style.drift else 0)
        if box.coverage:
            mask = Image.frombuffer("L", box[:2], box.coverage.translate(masks), "raw", "L", 0, 1)
            image.paste(ink, (x, y), mask)
        x += box.width + gap - int(rng.random() * slide)
    if width > size[0]:
        image = image.resize(size)
    return _smoothed(_with_noise(image, style, ink, rng))


def _with_noise(image: Image.Image, style: _Style, ink: Any, rng: random.Random) -> Pixels:
    """Return the image with the package's dots, each a short slanted stroke, and its arc."""

    def below(n: int) -> int:
        return int(rng.random() * n)

    w, h = image.size
    starts = np.array([(below(w + 1), below(h + 1)) for _ in range(style.dots)], dtype=int)
    if style.arc:
        x1, x2 = below(w // 5 + 1), below(w - w // 5 + 1) + w // 5
        y1 = below(h - 2 * (h // 5) + 1) + h // 5
        y2 = below(h - y1 - h // 5 + 1) + y1
        end, start = below(41) + 160, below(21)
        ImageDraw.Draw(image).arc((x1, y1, x2, y2), start, end, ink)
    pixels = np.array(image)
    x, y = (starts.reshape(-1, 1, 2) + _dot(style.dot_width)).reshape(-1, 2).T
    inside = (x >= 0) & (x < w) & (y >= 0) & (y < h)
    pixels[y[inside], x[inside]] = ink
    return pixels


@cache
def _dot(width: int) -> npt.NDArray[np.int64]:
    """Return the pixels (x, y) of a stroke of that width from (0, 0) to (-1, -1)."""
    image = Image.new("L", (17, 17))
    ImageDraw.Draw(image).line((8, 8, 7, 7), 255, width)
    return np.argwhere(np.asarray(image).T) - 8


def _smoothed(image: Pixels) -> Pixels:
    """Return what Pillow's SMOOTH makes of an image: five times the pixel, and its 8 neighbors, over 13."""
    wide = image.astype(np.uint16)
    rows = wide[:-2] + wide[1:-1] + wide[2:]
    total = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    total += 4 * wide[1:-1, 1:-1] + 6
    smoothed: Pixels = image.copy()
    smoothed[1:-1, 1:-1] = total // 13
    return smoothed


def _color(rgb: tuple[int, ...], mode: str) -> Any:
    return rgb if mode == "RGB" else (19595 * rgb[0] + 38470 * rgb[1] + 7471 * rgb[2] + 0x8000) >> 16


_BYTE = np.arange(256)
_PRODUCT = (_BYTE[:, None] * _BYTE + 127) // 255
_STRAIGHT = np.minimum(255, 255 * _PRODUCT // np.maximum(_BYTE, 1))


def _masks(ink: tuple[int, ...]) -> bytes:
    """Return the package's mask of each coverage: 1.97 times the ink's lightness, however thin the coverage.

    Turning and warping multiply a color by its coverage and divide it out again, in eight bits. The color stays,
    except where there is next to no coverage; _STRAIGHT[color, coverage] is the result.
    """
    lightness = 0.299 * _STRAIGHT[ink[0]] + 0.587 * _STRAIGHT[ink[1]] + 0.114 * _STRAIGHT[ink[2]]
    masks: Pixels = np.minimum(255, 1.97 * lightness).astype(np.uint8)
    masks[0] = 0
    return masks.tobytes()


class CaptchaRenderer:
    """A renderer of formulas with the ``captcha`` package itself, every glyph anew.

    With ``look="default"`` a picture is what ``ImageCaptcha(*size).generate_image(text)`` makes. With
    ``look="contest"`` the package's routine draws the glyphs, and its placement, colors and dots are varied.

    Args:
        look: ``"contest"`` or ``"default"``.
        size: width and height of the pictures in pixels. The contest's glyphs grow with the height, the
            package's own do not.
        fonts: paths of the fonts to draw with; by default :func:`fastctc.crnn.formulas.fonts.find_fonts` for
            ``"contest"`` and the package's own for ``"default"``.

    Raises:
        ValueError: for another look, too small a size, or a font without the characters of a formula.
    """

    def __init__(
        self, look: Look = "contest", *, size: tuple[int, int] = _SIZE, fonts: Sequence[str] | None = None
    ) -> None:
        self.look, self.size, self.fonts = look, _checked_size(size), _checked_fonts(look, fonts)
        self._press = GlyphPress(look, size[1], self.fonts)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(CaptchaRenderer, self.look, size=self.size, fonts=self.fonts), ()

    def render(self, text: str, rng: random.Random) -> Image.Image:
        """Draw ``text`` as an RGB picture, with the random numbers of ``rng``."""
        _check_text(text)
        if self.look == "default":
            captcha = captcha_image().ImageCaptcha(*self.size, fonts=list(self.fonts))
            with captcha_draws_from(rng):
                return captcha.generate_image(text)  # type: ignore[no-any-return]
        style = _random_style(self.look, len(self.fonts), rng)
        return Image.fromarray(_compose(text, style, self.size, self._glyph, rng, "RGB"))

    def render_gray(self, text: str, rng: random.Random) -> Pixels:
        """Draw ``text`` in gray; returns uint8 of shape (height, width)."""
        return np.array(self.render(text, rng).convert("L"))

    def _glyph(self, character: str, font: int, tilt: float, rng: random.Random) -> Box:
        return self._press.draw(character, font, rng.uniform(-tilt, tilt), rng)


class GlyphRenderer:
    """A renderer of formulas in the same looks from a bank of glyphs, some ten times faster than the package.

    The bank is drawn once per process and set of arguments (about two seconds; processes forked later share
    it), with the same routine as :class:`CaptchaRenderer`. Each picture chooses, places and colors glyphs,
    and adds noise.

    Args:
        look, size, fonts: as for :class:`CaptchaRenderer`.
        variants: how many glyphs the bank holds of each character, over all fonts; at least one per font.
        seed: which bank is drawn.
        varied: share of the glyphs that are slanted, narrowed or widened and made thinner or bolder, as fonts
            that are not at hand might have them.
    """

    def __init__(
        self,
        look: Look = "contest",
        *,
        size: tuple[int, int] = _SIZE,
        variants: int = VARIANTS,
        seed: int = 0,
        fonts: Sequence[str] | None = None,
        varied: float = 0.0,
    ) -> None:
        if variants < 1:
            raise ValueError(f"variants must be at least 1, got {variants}")
        if not 0 <= varied <= 1:
            raise ValueError(f"varied must be a share from 0 to 1, got {varied}")
        self.look, self.size, self.fonts = look, _checked_size(size), _checked_fonts(look, fonts)
        self.variants, self.seed, self.varied = variants, seed, varied
        self._bank = glyph_bank(look, size[1], self.fonts, ceil(variants / len(self.fonts)), seed, varied)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(
            GlyphRenderer,
            self.look,
            size=self.size,
            variants=self.variants,
            seed=self.seed,
            fonts=self.fonts,
            varied=self.varied,
        ), ()

    def render(self, text: str, rng: random.Random) -> Image.Image:
        """Draw ``text`` as an RGB picture, with the random numbers of ``rng``."""
        return Image.fromarray(self._draw(text, rng, "RGB"))

    def render_gray(self, text: str, rng: random.Random) -> Pixels:
        """Draw ``text`` in gray: what :meth:`render` gives but for rounding, and faster.

        Returns uint8 of shape (height, width).
        """
        return self._draw(text, rng, "L")

    def _draw(self, text: str, rng: random.Random, mode: str) -> Pixels:
        _check_text(text)
        style = _random_style(self.look, len(self.fonts), rng)
        return _compose(text, style, self.size, self._glyph, rng, mode)

    def _glyph(self, character: str, font: int, tilt: float, rng: random.Random) -> Box:
        glyphs = self._bank[character][font]
        upright_enough = max(1, int(len(glyphs) * tilt / MAX_TILT))
        return glyphs[int(rng.random() * upright_enough)]


@cache
def make_renderer(
    name: RendererName,
    look: Look,
    *,
    fonts: tuple[str, ...] | None = None,
    variants: int = VARIANTS,
    varied: float = 0.0,
) -> CaptchaRenderer | GlyphRenderer:
    """Return the renderer of that name (``"captcha"`` or ``"glyphs"``) for that look; one per process."""
    check_choice("renderer", name, get_args(RendererName))
    if name == "captcha":
        return CaptchaRenderer(look, fonts=fonts)
    return GlyphRenderer(look, fonts=fonts, variants=variants, varied=varied)


def check_choice(argument: str, value: str, choices: Sequence[str]) -> None:
    """Raise ValueError if an argument is not among its choices."""
    if value not in choices:
        raise ValueError(f"{argument} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def _checked_size(size: tuple[int, int]) -> tuple[int, int]:
    if len(size) != 2 or min(size) < 20:
        raise ValueError(f"size must be a width and a height of at least 20 pixels, got {size!r}")
    return size


def _check_text(text: str) -> None:
    if not text or not set(text) <= set(CHARACTERS):
        raise ValueError(f"text must be one or more of the characters {CHARACTERS!r}, got {text!r}")


def _checked_fonts(look: Look, fonts: Sequence[str] | None) -> tuple[str, ...]:
    check_choice("look", look, get_args(Look))
    if fonts is None:
        found = find_fonts()
        if look == "default":
            return found[:1]
        if len(found) == 1:
            warnings.warn(
                "look='contest' wants several fonts, but only the captcha package's own was found: a model "
                "trained on its pictures will not read other fonts; install matplotlib or pass fonts=[...]",
                stacklevel=3,
            )
        return found
    if not fonts:
        raise ValueError("fonts must name at least one font file, got none")
    for font in fonts:
        if not draws_formulas(str(font)):
            raise ValueError(
                f"fonts must have all of the characters {CHARACTERS!r}, but {str(font)!r} has not"
            )
    return tuple(str(font) for font in fonts)
