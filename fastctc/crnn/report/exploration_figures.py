"""Pictures of a data set: samples, labels, sizes, contrast, and what preprocessing and augmentation do to it."""

from __future__ import annotations

import math
import statistics
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from fastctc.crnn.data.augment import AugmentConfig, Draw, augmented, bounded_angle, draws
from fastctc.crnn.data.preprocess import ImageLike, PreprocessConfig, load_grey, steps
from fastctc.crnn.report.exploration import Exploration, visible, visible_character
from fastctc.plot import COLOURS, FAINT, STYLE, load_matplotlib, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Pixels = npt.NDArray[np.uint8]

DPI = 130
_WIDTH = 11.0  # of a figure, in inches
_MARGIN = 1.45  # for the names of rows
_HIGH = 0.75  # of a picture in a grid, at most
_SAMPLE = 0.55  # height of a sample
_MOST_BARS = 60
_BLUE, _RED = COLOURS[:2]
# The first of them that is installed and has a character draws it.
_FONTS = (
    "DejaVu Sans Mono", "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Micro Hei", "PingFang SC",
    "Microsoft YaHei", "Arial Unicode MS",
)  # fmt: skip

# What each filter and each change is shown at where it is switched off.
_FILTERS: dict[str, Any] = {
    "median": 3, "gaussian": 0.8, "equalize": True, "binarize": True, "opening": 3, "closing": 3,
}  # fmt: skip
_CHANGES = {"shift": 4.0, "stretch": 0.08, "rotate": 5.0, "blur": 1.0, "contrast": 0.5, "noise": 20.0}


class Titled(NamedTuple):
    """An image, (H, W) or (H, W, 3) uint8, with what stands above it."""

    pixels: Pixels
    title: str = ""


def write_png(figure: Figure, path: Path) -> None:
    """Writes a figure, without a word about characters that no font has."""
    with _style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing", category=UserWarning)
        figure.savefig(path, dpi=DPI, format="png")


def thumbnail(pixels: Pixels) -> Pixels:
    """An image no larger than a sheet shows it."""
    image = Image.fromarray(pixels)
    image.thumbnail((1600, 320))
    return np.asarray(image, dtype=np.uint8)


def samples_sheet(samples: Sequence[Titled]) -> Figure:
    """Images of one height in rows, as many to a row as have room, each below its title."""
    placed, x, top = [], 0.05, 0.3
    for sample in samples:
        rows, columns = sample.pixels.shape[:2]
        wide = min(_WIDTH - 0.1, max(1.0, _SAMPLE * columns / rows))
        if x > 0.05 and x + wide > _WIDTH:
            x, top = 0.05, top + _SAMPLE + 0.35
        placed.append(_Placed(sample, x, top, wide, _SAMPLE))
        x += wide + 0.15
    return _canvas(placed, [], top + _SAMPLE + 0.05)


def steps_sheet(samples: Sequence[tuple[ImageLike, str]], preprocess: PreprocessConfig) -> Figure:
    """Images, one a column, after each step of preprocessing, one a row."""
    taken = [
        ([(name, thumbnail(pixels)) for name, pixels in steps(image, preprocess)], title)
        for image, title in samples
    ]
    taken = taken[: _columns([Titled(pictures[-1][1]) for pictures, _ in taken], 6)]
    names = [name for name, _ in taken[0][0]]
    rows = [
        [Titled(pictures[i][1], "" if i else title) for pictures, title in taken] for i in range(len(names))
    ]
    return _grid(rows, names)


def filters_sheet(samples: Sequence[tuple[ImageLike, str]], preprocess: PreprocessConfig) -> Figure:
    """Images, one a column, as the model would see them with each filter that is switched off, one a row."""
    configs = {"as configured": preprocess}
    for name, value in _FILTERS.items():
        if not getattr(preprocess, name):
            option = f"--{name}" if value is True else f"--{name} {value}"
            configs[option] = replace(preprocess, **{name: value})
    columns = _columns([Titled(load_grey(image, preprocess)) for image, _ in samples], 6)
    rows = [
        [Titled(load_grey(image, config), "" if row else title) for image, title in samples[:columns]]
        for row, config in enumerate(configs.values())
    ]
    return _grid(rows, list(configs))


def augmentation_sheet(images: Sequence[Pixels], augment: AugmentConfig, seed: int) -> Figure:
    """Preprocessed images; one of them under each change, small and large; all of them under random ones."""
    rows: list[list[Titled]] = []
    names: list[str] = []
    columns = _columns([Titled(image) for image in images], 4)

    def add(name: str, pictures: list[Titled]) -> None:
        for start in range(0, len(pictures), columns):
            rows.append(pictures[start : start + columns])
            names.append("" if start else name)

    add("unchanged", [Titled(image) for image in images[:4]])
    for name, shown_at in _CHANGES.items():
        most = getattr(augment, name)
        config = replace(AugmentConfig(shift=0, stretch=0), **{name: most or shown_at})
        image = images[-1] if name == "contrast" else images[0]  # which is faint, and shows it
        add(
            f"--{name} {most or shown_at:g}" + ("" if most else "\n(off)"),
            [Titled(augmented(image, draw, config), _said(draw, config, image)) for draw in _shown(name)],
        )
    together = [
        augmented(images[n % len(images)], draw, augment)
        for n, draw in enumerate(draws(seed, 0, 4 * columns))
    ]
    add("as in training,\nat random", [Titled(pixels) for pixels in together])
    return _grid(rows, names)


def _shown(name: str) -> list[Draw]:
    """Draws of one change, from one extreme to the other, or from weak to strong."""
    amounts: tuple[Any, ...] = (-1.0, -0.5, 0.5, 1.0)
    if name in ("shift", "stretch"):
        amounts = ((-1.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.0, 1.0))
    elif name in ("blur", "noise"):
        amounts = (0.25, 0.5, 0.75, 1.0)
    return [Draw()._replace(**{name: amount}) for amount in amounts]


def _said(draw: Draw, config: AugmentConfig, image: Pixels) -> str:
    """What a draw of one change does to an image, in words."""
    if any(draw.shift):
        (dx, dy), rows = draw.shift, config.shift / 2
        if dx:
            return f"{abs(config.shift * dx):g} px {'right' if dx > 0 else 'left'}"
        return f"{abs(rows * dy):g} px {'down' if dy > 0 else 'up'}"
    if any(draw.stretch):
        side = "width" if draw.stretch[0] else "height"
        return f"{side} {100 * config.stretch * sum(draw.stretch):+.0f}%"
    if draw.rotate:
        return f"{bounded_angle(image.shape, config.rotate * draw.rotate):+.1f}°"
    if draw.blur:
        return f"{config.blur * draw.blur:.2g} px"
    if draw.contrast:
        return f"power {(1 + config.contrast) ** draw.contrast:.2f}"
    return f"{config.noise * draw.noise:.2g} levels"


def labels_figure(found: Exploration) -> Figure:
    """How long labels are, and how often each character occurs."""
    from matplotlib.ticker import MaxNLocator

    common = found.characters.most_common(_MOST_BARS)
    lengths = found.lengths
    with _style():
        ratios = [max(12, min(30, max(lengths, default=0))), max(12, len(common))]
        figure = new_figure(_WIDTH, 2.9)
        left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": ratios})
        _integer_bars(left, lengths)
        left.set_xlabel("characters in a label")
        left.set_ylabel("labels")
        left.set_title("Length of labels", loc="left")
        right.bar(range(len(common)), [count for _, count in common], color=_BLUE, width=0.8)
        shown = [_drawable(character) for character, _ in common]
        right.set_xticks(range(len(common)), shown, parse_math=False, family=_families())
        for label, text in zip(right.get_xticklabels(), shown, strict=True):
            label.set_rotation(90 if len(text) > 1 else 0)
        right.yaxis.set_major_locator(MaxNLocator(integer=True))
        right.set_xlim(-0.7, max(1, len(common)) - 0.3)
        right.set_ylabel("occurrences")
        more = len(found.characters) - len(common)
        right.set_xlabel(f"character, the {len(common)} most frequent" if more else "character")
        right.set_title("Characters" + (f" ({more} rarer ones not shown)" if more else ""), loc="left")
        return figure


def sizes_figure(found: Exploration) -> Figure:
    """How large the images are, and whether their labels fit."""
    with _style():
        figure = new_figure(_WIDTH, 3.6)
        left, right = figure.subplots(1, 2)
        _bubbles(left, Counter((m.width, m.height) for m in found.measured))
        left.set_xlabel("width in pixels")
        left.set_ylabel("height in pixels")
        left.set_title("Size of the original images", loc="left")
        frames = Counter((m.frames_needed, m.frames) for m in found.measured)
        _bubbles(right, frames)
        end = max(right.get_xlim()[1], right.get_ylim()[1])
        right.fill_between(
            [0, end], [0, end], color=_RED, alpha=0.12, lw=0, label="label too long to be learnt"
        )
        right.legend(loc="lower right", frameon=False, fontsize=8)
        right.set_xlim(0, end)
        right.set_ylim(0, end)
        right.set_xlabel("frames the label needs")
        right.set_ylabel("frames the model makes of the image")
        right.set_title("Room for the label", loc="left")
        return figure


def contrast_figure(found: Exploration) -> Figure:
    """How contrasts are distributed."""
    values = [m.contrast for m in found.measured]
    with _style():
        figure = new_figure(_WIDTH, 2.6)
        axes = figure.subplots()
        top = max(0.02, 1.02 * max(values))
        axes.hist(values, bins=60, range=(0, top), color=_BLUE)
        axes.axvline(statistics.median(values), color=_RED, lw=1.2, label="median")
        axes.legend(loc="upper right", frameon=False)
        axes.set_xlim(0, top)
        axes.set_xlabel("contrast of the original: standard deviation of grey levels / 255")
        axes.set_ylabel("images")
        axes.set_title("Contrast", loc="left")
        return figure


def _integer_bars(axes: Axes, counts: Counter[int]) -> None:
    """Bars over whole numbers, some numbers to a bar where there are many."""
    from matplotlib.ticker import MaxNLocator

    low, high = min(counts, default=0), max(counts, default=0)
    width = -(-(high - low + 1) // _MOST_BARS)
    heights: Counter[int] = Counter()
    for value, count in counts.items():
        heights[(value - low) // width] += count
    places = [low + bar * width + (width - 1) / 2 for bar in heights]
    axes.bar(places, list(heights.values()), width=0.85 * width, color=_BLUE)
    axes.set_xlim(low - 0.7, max(low + 3, max(places, default=0) + width / 2) + 0.2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))


def _bubbles(axes: Axes, pairs: Counter[tuple[int, int]]) -> None:
    """A dot for each pair of numbers, its area its share; from zero on."""
    most = max(pairs.values())
    x, y = zip(*pairs, strict=True)
    largest = max(15, 300 / math.sqrt(len(pairs)))
    areas = [8 + largest * count / most for count in pairs.values()]
    axes.scatter(x, y, s=areas, color=_BLUE, alpha=0.5, lw=0)
    axes.set_xlim(0, 1.12 * max(x))
    axes.set_ylim(0, 1.12 * max(y))


class _Placed(NamedTuple):
    """A picture and where it goes: inches from the left and the top, and the room it has."""

    picture: Titled
    x: float
    top: float
    wide: float
    high: float


def _columns(pictures: Sequence[Titled], most: int) -> int:
    """How many pictures fit beside each other a third of an inch high."""
    aspect = float(np.quantile([p.pixels.shape[1] / p.pixels.shape[0] for p in pictures], 0.75))
    return max(1, min(most, int((_WIDTH - _MARGIN) / (0.33 * aspect))))


def _grid(rows: Sequence[Sequence[Titled]], names: Sequence[str]) -> Figure:
    """Pictures in rows and columns, each scaled into its cell; the rows' names on the left."""
    cell = (_WIDTH - _MARGIN) / max(len(row) for row in rows)
    wide = cell - 0.15
    placed: list[_Placed] = []
    labels: list[tuple[str, float]] = []
    top = 0.05
    for row, name in zip(rows, names, strict=True):
        high = max(min(_HIGH, wide * p.pixels.shape[0] / p.pixels.shape[1]) for p in row)
        top += 0.24 if any(p.title for p in row) else 0.0
        labels.append((name, top + high / 2))
        placed += [_Placed(p, _MARGIN + column * cell, top, wide, high) for column, p in enumerate(row)]
        top += high + 0.12
    return _canvas(placed, labels, top)


def _canvas(placed: Sequence[_Placed], labels: Sequence[tuple[str, float]], height: float) -> Figure:
    """A figure of pictures where they go, and of labels on the left at their distance from the top."""
    with _style():
        figure = new_figure(_WIDTH, height, layout="none")
        axes = figure.add_axes((0, 0, 1, 1))
        for label, y in labels:
            axes.text(0.05, y, label, va="center", fontsize=9, linespacing=1.4)
        for each in placed:
            _draw_picture(axes, each)
        axes.set_xlim(0, _WIDTH)
        axes.set_ylim(height, 0)
        axes.set_axis_off()
        return figure


def _draw_picture(axes: Axes, placed: _Placed) -> None:
    """A picture as large as fits, and its title as long as fits."""
    (pixels, title), x, top, wide, high = placed
    rows, columns = pixels.shape[:2]
    scale = min(wide / columns, high / rows)
    right, bottom = x + scale * columns, top + scale * rows
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, extent=(x, right, bottom, top), aspect="auto")
    axes.plot([x, right, right, x, x], [bottom, bottom, top, top, bottom], color=FAINT, lw=0.6)
    title, room = visible(title), max(4, int(wide / 0.07))
    title = title if len(title) <= room else title[: room - 1] + "…"
    axes.text(x, top - 0.05, title, fontsize=8, va="baseline", family=_families(), parse_math=False)


@cache
def _families() -> list[str]:
    """The fonts of labels that are installed."""
    from matplotlib import font_manager

    installed = set(font_manager.get_font_names())
    return [name for name in _FONTS if name in installed]


def _drawable(character: str) -> str:
    """A character, or its code point where it cannot be seen or no font has it."""
    shown = visible_character(character)
    return shown if all(ord(c) in _glyphs() for c in shown) else f"U+{ord(character):04X}"


@cache
def _glyphs() -> set[int]:
    """The code points that the fonts of labels have."""
    from matplotlib import font_manager, ft2font

    paths = [font_manager.findfont(name) for name in _families()]
    return {code for path in paths for code in ft2font.FT2Font(path).get_charmap()}


def _style() -> Any:
    return load_matplotlib().rc_context({**STYLE, "axes.titlesize": 10})
