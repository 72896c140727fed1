"""How formulas are drawn: pictures in the manner of the ``captcha`` package, fresh or from pre-drawn glyphs.

========= ===========================================================================================================
look      what it shows
========= ===========================================================================================================
default   what ``captcha.image.ImageCaptcha`` draws of itself: one font, blanks before half of the characters, ``-``
          and ``=`` stretched into blocks, dots and an arc
contest   what formula contests show: many fonts, glyphs set tightly, thin ``-`` and ``=``, small ``*``, dots, no arc,
          now and then hardly any contrast
========= ===========================================================================================================

:class:`CaptchaRenderer` draws every glyph anew with the package's own routine; :class:`GlyphRenderer` draws a bank
of glyphs once, with the same routine, and composes pictures of them by the package's rules, some twenty times
faster. A picture depends on its text, its random numbers and the renderer's options alone.

The package takes its random numbers from :mod:`secrets`. What is drawn here is drawn by a private copy of its
module, so whoever else draws captchas in the same process still gets unpredictable ones.
"""

from __future__ import annotations

import importlib.util
import random
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from math import ceil
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from fastctc.crnn.formulas import CHARACTERS, Value, random_formula

Look = Literal["contest", "default"]
RendererName = Literal["captcha", "glyphs"]

_SIZE = (180, 60)
_TILT = 30.0  # degrees, the captcha package's largest rotation
_CAPTCHA_SHARE = 0.1  # of the pictures of a mixed source; they take most of its time all the same

# ----------------------------------------------------------------------------------------------------- fonts


def find_fonts(*, system: bool = False) -> tuple[str, ...]:
    """Return the fonts at hand that draw every character of a formula, always in the same order.

    The ``captcha`` package's font comes first, then those bundled with matplotlib where it is installed: the same
    fonts on every machine with the same versions of both.

    Args:
        system: add what lies under /usr/share/fonts, which differs from machine to machine.
    """
    folders = [_package_folder("captcha") / "data"]
    if importlib.util.find_spec("matplotlib") is not None:
        folders.append(_package_folder("matplotlib") / "mpl-data" / "fonts" / "ttf")
    if system:
        folders.append(Path("/usr/share/fonts"))
    found: dict[tuple[str | None, str | None], str] = {}
    for folder in folders:
        for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".ttf", ".otf")):
            if draws_formulas(str(path)):
                found.setdefault(ImageFont.truetype(str(path), 16).getname(), str(path))
    return tuple(found.values())


@cache
def draws_formulas(path: str) -> bool:
    """Tell whether the font file at ``path`` has all the characters of a formula, and in their usual shapes.

    Fonts of mathematical symbols put arrows or fragments of braces at these codes, so besides being there each glyph
    must differ from the others, the minus be wide, the brackets tall, and the equals sign fall into two bars.
    """
    try:
        font = ImageFont.truetype(path, 40)
        glyphs = {c: _printed(c, font) for c in CHARACTERS + "\U0010ffff"}
    except (OSError, ValueError):
        return False
    missing = glyphs.pop("\U0010ffff").tobytes()
    if len({glyph.tobytes() for glyph in glyphs.values()} - {missing, b""}) < len(CHARACTERS):
        return False
    equals_rows = np.asarray(glyphs["="]).max(1)
    return (
        glyphs["-"].width > glyphs["-"].height
        and all(glyphs[c].height > 1.5 * glyphs[c].width for c in "()")
        and equals_rows[len(equals_rows) // 2] == 0
    )


def _package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"drawing formulas needs the {name} package: pip install {name}", name=name)
    return Path(spec.submodule_search_locations[0])


def _printed(character: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """Print one character, upright, as the tightest box of its coverage (0-255); empty if it leaves no ink."""
    left, top, right, bottom = font.getbbox(character)
    image = Image.new("L", (ceil(right - left) + 4, ceil(bottom - top) + 4))
    ImageDraw.Draw(image).text((2 - left, 2 - top), character, font=font, fill=255)
    return image.crop(image.getbbox() or (0, 0, 0, 0))


# ----------------------------------------------------------------------------------- the package, made seedable


class _SeededSecrets:
    """The three functions of :mod:`secrets` that the captcha package calls, on random numbers of our own."""

    rng = random.Random()

    def randbelow(self, n: int) -> int:
        return int(self.rng.random() * n)

    def randbits(self, k: int) -> int:
        return self.rng.getrandbits(k)

    def choice(self, sequence: Sequence[Any]) -> Any:
        return sequence[self.randbelow(len(sequence))]


_drawing = threading.Lock()


@cache
def _captcha_image() -> ModuleType:
    """Load a copy of ``captcha.image`` that only this module sees, its random numbers replaced."""
    _package_folder("captcha")
    spec = importlib.util.find_spec("captcha.image")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.secrets = _SeededSecrets()  # type: ignore[attr-defined]
    return module


@contextmanager
def _captcha_draws_from(rng: random.Random) -> Iterator[None]:
    """Let the private copy of the package take its random numbers from ``rng``; one thread at a time."""
    source = _captcha_image().secrets
    with _drawing:
        source.rng = rng
        yield


# ------------------------------------------------------------------------------------------------ single glyphs


class _GlyphPress:
    """Draws one glyph after the other, each as the coverage (0-255) of its box."""

    def __init__(self, look: Look, height: int, fonts: tuple[str, ...]) -> None:
        self.look, self.fonts = look, fonts
        self.sizes = [round(s * height / 60) for s in range(30, 59)] if look == "contest" else [42, 50, 56]
        self.captchas: dict[tuple[int, int], Any] = {}
        self.page = ImageDraw.Draw(Image.new("RGB", (1, 1)))

    def draw(self, character: str, font: int, angle: float, rng: random.Random) -> Image.Image:
        """Draw ``character`` in the font of that number, turned by ``angle`` degrees."""
        key = (font, rng.choice(self.sizes))
        if key not in self.captchas:
            self.captchas[key] = _captcha_image().ImageCaptcha(fonts=[self.fonts[font]], font_sizes=key[1:])
        captcha = self.captchas[key]
        if self.look == "contest":
            small_star = character == "*" and rng.random() < 0.5
            if character in "-=" or small_star or rng.random() < 0.15:
                box = _printed(character, captcha.truefonts[0]).rotate(
                    angle, Image.Resampling.BILINEAR, expand=True
                )
                return _raised(box, rng.randint(0, key[1] // 4)) if small_star else box
        with _captcha_draws_from(rng):
            captcha.character_rotate = (angle, angle)
            color = (255, 255, 255, rng.randint(220, 255))
            return captcha._draw_character(character, self.page, color).getchannel("A")  # type: ignore[no-any-return]


def _raised(box: Image.Image, by: int) -> Image.Image:
    """Extend ``box`` downwards, so that its ink stands ``by`` pixels higher once it is centred on a line."""
    taller = Image.new("L", (box.width, box.height + 2 * by))
    taller.paste(box)
    return taller


# ---------------------------------------------------------------------------------------------- whole pictures


@dataclass
class _Style:
    """What the glyphs of one picture have in common."""

    background: tuple[int, ...]
    ink: tuple[int, ...]
    fonts: Sequence[int]
    arc: bool = False
    blanks: float = 0.0  # how often a blank stands before a character
    overlap: float = 0.25  # how far a glyph may slide over the one before, in mean glyph widths
    gap: int = 0  # pixels that may be added between glyphs
    drift: int = 0  # pixels that glyphs may leave the line
    tilt: float = _TILT
    room: float = 1.0  # width of the line before it is squeezed into the picture, at least, in picture widths
    centred: bool = False
    see_through: bool = True  # the package's masks: the darker the ink, the less it covers
    dots: int = 30
    dot_width: int = 3


def _random_style(look: Look, fonts: int, rng: random.Random) -> _Style:
    background = tuple(rng.randint(238, 255) for _ in range(3))
    if look == "default":
        return _Style(
            background, tuple(rng.randint(10, 200) for _ in range(3)), (0,) * fonts, arc=True, blanks=0.5
        )
    ink = tuple(rng.randint(0, 200) for _ in range(3))
    style = _Style(background, ink, range(fonts))
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
        style.tilt = rng.uniform(0, _TILT)
    style.overlap = rng.choice((0.25, 0.25, 0.15, 0.0))
    style.gap = rng.choice((0, 0, 3, 8))
    style.drift = rng.choice((0, 0, 2, 5))
    style.room = rng.choice((1.0, 1.0, 1.15, 1.4))
    style.centred = rng.random() < 0.4
    style.see_through = rng.random() < 0.8
    style.dots = rng.randint(0, 40)
    style.dot_width = rng.choice((3, 3, 3, 2))
    return style


_Glyph = Callable[[str, int, float, random.Random], Image.Image]


def _compose(
    text: str, style: _Style, size: tuple[int, int], glyph: _Glyph, rng: random.Random, mode: str
) -> Image.Image:
    """Set ``text`` by the captcha package's rules, in colour (mode ``RGB``) or grey (``L``).

    The package shrinks a line that is too wide, slides each glyph back by a random part of the mean width, pastes it
    through a mask that is the lightness of its ink, adds noise and smooths the whole.
    """
    boxes = []
    for character in text:
        if style.blanks and rng.random() < style.blanks:
            boxes.append(glyph(" ", style.fonts[int(rng.random() * len(style.fonts))], 0.0, rng))
        boxes.append(glyph(character, style.fonts[int(rng.random() * len(style.fonts))], style.tilt, rng))
    gaps = [int(rng.random() * (style.gap + 1)) for _ in boxes]
    line = sum(box.width for box in boxes) + sum(gaps)
    width = max(line, int(size[0] * style.room))
    mean = line // len(text)
    x = int(rng.random() * (width - line)) if style.centred else int(0.1 * mean)

    ink, background = _color(style.ink, mode), _color(style.background, mode)
    mask = _masks(style.ink) if style.see_through else None
    image = Image.new(mode, (width, size[1]), background)
    slide = int(style.overlap * mean) + 1
    for box, gap in zip(boxes, gaps, strict=True):
        y = int((size[1] - box.height) / 2) + (rng.randint(-style.drift, style.drift) if style.drift else 0)
        image.paste(ink, (x, y), box.point(mask) if mask else box)
        x += box.width + gap - int(rng.random() * slide)
    if width > size[0]:
        image = image.resize(size)
    _add_noise(image, style, ink, rng)
    return image.filter(ImageFilter.SMOOTH)


def _add_noise(image: Image.Image, style: _Style, ink: Any, rng: random.Random) -> None:
    """Add the package's dots, each the end of a short slanted stroke, and its arc."""
    draw = ImageDraw.Draw(image)
    w, h = image.size
    for _ in range(style.dots):
        x, y = int(rng.random() * (w + 1)), int(rng.random() * (h + 1))
        draw.line((x, y, x - 1, y - 1), ink, style.dot_width)
    if style.arc:
        x1, x2 = rng.randint(0, w // 5), rng.randint(w // 5, w)
        y1 = rng.randint(h // 5, h - h // 5)
        draw.arc((x1, y1, x2, rng.randint(y1, h - h // 5)), rng.randint(0, 20), rng.randint(160, 200), ink)


def _color(rgb: tuple[int, ...], mode: str) -> Any:
    return rgb if mode == "RGB" else (19595 * rgb[0] + 38470 * rgb[1] + 7471 * rgb[2] + 0x8000) >> 16


_ALPHA = np.arange(256)
_PRODUCT = _ALPHA[:, None] * _ALPHA + 128
_PRODUCT += _PRODUCT >> 8
_STRAIGHT = np.minimum(255, 255 * (_PRODUCT >> 8) // np.maximum(_ALPHA, 1))


def _masks(ink: tuple[int, ...]) -> list[int]:
    """Return the package's mask of each coverage: 1.97 times the ink's lightness, however thin the coverage is.

    Turning and warping multiply a colour by its coverage and divide it out again, in eight bits, which is the same
    colour except where there is next to no coverage; _STRAIGHT[colour, coverage] says what comes out.
    """
    lightness = 0.299 * _STRAIGHT[ink[0]] + 0.587 * _STRAIGHT[ink[1]] + 0.114 * _STRAIGHT[ink[2]]
    masks = np.minimum(255, 1.97 * lightness).astype(int)
    masks[0] = 0
    return masks.tolist()  # type: ignore[no-any-return]


class CaptchaRenderer:
    """Draws formulas with the ``captcha`` package itself, every glyph anew.

    With ``look="default"`` a picture is what ``ImageCaptcha(*size).generate_image(text)`` makes. With
    ``look="contest"`` the package's routine draws the glyphs, and its placement, dots and smoothing are varied.

    Args:
        look: ``"contest"`` or ``"default"``.
        size: width and height of the pictures in pixels.
        fonts: paths of the fonts to draw with; by default :func:`find_fonts` for ``"contest"`` and the package's own
            for ``"default"``.

    Raises:
        ValueError: for another look, a size that is not positive, or a font without the characters of a formula.
    """

    def __init__(
        self, look: Look = "contest", *, size: tuple[int, int] = _SIZE, fonts: Sequence[str] | None = None
    ) -> None:
        self.look, self.size, self.fonts = look, _checked_size(size), _checked_fonts(look, fonts)
        self._press = _GlyphPress(look, size[1], self.fonts)

    def __reduce__(self) -> tuple[Any, ...]:
        return _captcha_renderer, (self.look, self.size, self.fonts)

    def render(self, text: str, rng: random.Random) -> Image.Image:
        """Draw ``text`` as an RGB picture, with the random numbers of ``rng``."""
        _check_text(text)
        if self.look == "default":
            captcha = _captcha_image().ImageCaptcha(*self.size, fonts=list(self.fonts))
            with _captcha_draws_from(rng):
                return captcha.generate_image(text)  # type: ignore[no-any-return]
        style = _random_style(self.look, len(self.fonts), rng)
        return _compose(text, style, self.size, self._glyph, rng, "RGB")

    def render_grey(self, text: str, rng: random.Random) -> npt.NDArray[np.uint8]:
        """Draw ``text`` in grey; returns uint8 of shape (height, width)."""
        return np.array(self.render(text, rng).convert("L"))

    def _glyph(self, character: str, font: int, tilt: float, rng: random.Random) -> Image.Image:
        return self._press.draw(character, font, rng.uniform(-tilt, tilt), rng)


class GlyphRenderer:
    """Draws formulas in the same looks from a bank of glyphs, some twenty times faster than the package.

    The bank is drawn once per process and set of arguments (seconds; processes forked later share it), with the same
    routine as :class:`CaptchaRenderer`. Pictures then differ in choice, place and colour of the glyphs, and noise.

    Args:
        look, size, fonts: as for :class:`CaptchaRenderer`.
        variants: how many glyphs the bank holds of each character, over all fonts; at least one per font.
        seed: which bank is drawn.
    """

    def __init__(
        self,
        look: Look = "contest",
        *,
        size: tuple[int, int] = _SIZE,
        variants: int = 400,
        seed: int = 0,
        fonts: Sequence[str] | None = None,
    ) -> None:
        if variants < 1:
            raise ValueError(f"variants must be at least 1, got {variants}")
        self.look, self.size, self.fonts = look, _checked_size(size), _checked_fonts(look, fonts)
        self.variants, self.seed = variants, seed
        self._bank = _glyph_bank(look, size[1], self.fonts, ceil(variants / len(self.fonts)), seed)

    def __reduce__(self) -> tuple[Any, ...]:
        return _glyph_renderer, (self.look, self.size, self.variants, self.seed, self.fonts)

    def render(self, text: str, rng: random.Random) -> Image.Image:
        """Draw ``text`` as an RGB picture, with the random numbers of ``rng``."""
        return self._draw(text, rng, "RGB")

    def render_grey(self, text: str, rng: random.Random) -> npt.NDArray[np.uint8]:
        """Draw ``text`` in grey: what :meth:`render` gives, but for rounding, in two thirds of the time.

        Returns uint8 of shape (height, width).
        """
        return np.array(self._draw(text, rng, "L"))

    def _draw(self, text: str, rng: random.Random, mode: str) -> Image.Image:
        _check_text(text)
        style = _random_style(self.look, len(self.fonts), rng)
        return _compose(text, style, self.size, self._glyph, rng, mode)

    def _glyph(self, character: str, font: int, tilt: float, rng: random.Random) -> Image.Image:
        glyphs = self._bank[character][font]
        return glyphs[int(rng.random() * max(1, int(len(glyphs) * tilt / _TILT)))]


@lru_cache(maxsize=8)
def _glyph_bank(
    look: Look, height: int, fonts: tuple[str, ...], variants: int, seed: int
) -> dict[str, list[list[Image.Image]]]:
    """Draw ``variants`` glyphs of each character and font, the least tilted first."""
    press = _GlyphPress(look, height, fonts)

    def glyphs(character: str, font: int) -> list[Image.Image]:
        rng = random.Random(f"{seed}/{look}/{character}/{font}")
        angles = sorted((rng.uniform(-_TILT, _TILT) for _ in range(variants)), key=abs)
        return [press.draw(character, font, angle, rng) for angle in angles]

    return {c: [glyphs(c, font) for font in range(len(fonts))] for c in CHARACTERS + " "}


def _captcha_renderer(look: Look, size: tuple[int, int], fonts: tuple[str, ...] | None) -> CaptchaRenderer:
    return CaptchaRenderer(look, size=size, fonts=fonts)


def _glyph_renderer(
    look: Look, size: tuple[int, int], variants: int, seed: int, fonts: tuple[str, ...]
) -> GlyphRenderer:
    return GlyphRenderer(look, size=size, variants=variants, seed=seed, fonts=fonts)


@cache
def make_renderer(name: RendererName, look: Look) -> CaptchaRenderer | GlyphRenderer:
    """Return the renderer of that name (``"captcha"`` or ``"glyphs"``) for that look; one per process."""
    _check_choice("renderer", name, get_args(RendererName))
    return CaptchaRenderer(look) if name == "captcha" else GlyphRenderer(look)


@dataclass(frozen=True)
class FormulaSource:
    """An endless series of pictures of formulas: ``source(i)`` is number ``i``, whoever asks, in whatever order.

    Worker processes may each hold a copy; call :meth:`prepare` before they are forked, so that they share one bank
    of glyphs instead of drawing one each.

    Args:
        look: ``"contest"``, ``"default"`` or ``"mixed"``, half of each.
        renderer: ``"captcha"``, ``"glyphs"`` or ``"mixed"``, a tenth by the package and the others from glyphs.
        seed: which series.
        value: what follows the expression, see :func:`fastctc.crnn.formulas.random_formula`.
        grey: give arrays of uint8 of shape (60, 180) instead of RGB pictures.
    """

    look: Literal["contest", "default", "mixed"] = "contest"
    renderer: Literal["captcha", "glyphs", "mixed"] = "glyphs"
    seed: int = 0
    value: Value = "mixed"
    grey: bool = False

    def __post_init__(self) -> None:
        _check_choice("look", self.look, (*get_args(Look), "mixed"))
        _check_choice("renderer", self.renderer, (*get_args(RendererName), "mixed"))
        _check_choice("value", self.value, get_args(Value))

    def __call__(self, i: int) -> tuple[Image.Image | npt.NDArray[np.uint8], str]:
        """Return picture number ``i`` and the text on it."""
        rng = random.Random(f"{self.seed}/{self.look}/{i}")
        text = random_formula(rng, value=self.value)
        look_draw, renderer_draw = rng.random(), rng.random()
        look = ("contest" if look_draw < 0.5 else "default") if self.look == "mixed" else self.look
        name = (
            ("captcha" if renderer_draw < _CAPTCHA_SHARE else "glyphs")
            if self.renderer == "mixed"
            else self.renderer
        )
        renderer = make_renderer(name, look)
        return renderer.render_grey(text, rng) if self.grey else renderer.render(text, rng), text

    def prepare(self) -> FormulaSource:
        """Find the fonts and draw the glyphs now, once for this process and those it forks; returns self."""
        for look in get_args(Look) if self.look == "mixed" else (self.look,):
            for name in get_args(RendererName) if self.renderer == "mixed" else (self.renderer,):
                make_renderer(name, look)
        return self


def _check_choice(argument: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{argument} must be one of {', '.join(map(repr, choices))}, got {value!r}")


def _checked_size(size: tuple[int, int]) -> tuple[int, int]:
    if len(size) != 2 or min(size) < 8:
        raise ValueError(f"size must be a width and a height of at least 8 pixels, got {size!r}")
    return size


def _check_text(text: str) -> None:
    if not text or not set(text) <= set(CHARACTERS):
        raise ValueError(f"text must be one or more of the characters {CHARACTERS!r}, got {text!r}")


def _checked_fonts(look: Look, fonts: Sequence[str] | None) -> tuple[str, ...]:
    _check_choice("look", look, get_args(Look))
    if fonts is None:
        found = find_fonts()
        if look == "default":
            return found[:1]
        if len(found) == 1:
            warnings.warn(
                "look='contest' wants several fonts, but only the captcha package's own was found: a model trained on "
                "its pictures will read no other font well; install matplotlib or pass fonts=[...]",
                stacklevel=3,
            )
        return found
    for font in fonts:
        if not draws_formulas(str(font)):
            raise ValueError(
                f"fonts must have all of the characters {CHARACTERS!r}, but {str(font)!r} has not"
            )
    if not fonts:
        raise ValueError("fonts must name at least one font file, got none")
    return tuple(str(font) for font in fonts)
