"""Pictures of a data set: samples, labels, sizes, contrast, and the effects of preprocessing and augmentation."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fastctc.crnn.data import (
    CHANGES,
    AugmentConfig,
    Draw,
    ImageLike,
    Pixels,
    PreprocessConfig,
    augmented,
    draws,
    prepare,
    settings_of,
    steps,
)
from fastctc.crnn.report.exploration import Exploration
from fastctc.crnn.report.sheets import WIDTH, Titled, columns_of_grid, grid, thumbnail
from fastctc.crnn.report.visible import drawable_character
from fastctc.figures import COLORS, load_matplotlib, new_figure, styled, text_fonts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

_MOST_BARS = 60
_BLUE, _RED = COLORS[:2]


def steps_sheet(samples: Sequence[tuple[ImageLike, str]], preprocess: PreprocessConfig) -> Figure:
    """Draw images with their titles, one in a column, after each step of preprocessing, one in a row."""
    taken = [
        ([(name, thumbnail(pixels)) for name, pixels in steps(image, preprocess)], title)
        for image, title in samples
    ]
    taken = taken[: columns_of_grid([pictures[-1][1] for pictures, _ in taken], 6)]
    names = [name for name, _ in taken[0][0]]
    rows = [
        [Titled(pictures[i][1], "" if i else title) for pictures, title in taken] for i in range(len(names))
    ]
    return grid(rows, names)


def filters_sheet(samples: Sequence[tuple[ImageLike, str]], preprocess: PreprocessConfig) -> Figure:
    """Draw images, one in a column, as the model would see them with each filter that is off, one in a row."""
    configs = {"as configured": preprocess}
    for each in settings_of(PreprocessConfig, "shown"):
        if not getattr(preprocess, each.name):
            value = each.metadata["shown"]
            configs[_option(each.name, value)] = replace(preprocess, **{each.name: value})
    columns = columns_of_grid([prepare(image, preprocess).pixels for image, _ in samples], 6)
    rows = [
        [Titled(prepare(image, config).pixels, "" if row else title) for image, title in samples[:columns]]
        for row, config in enumerate(configs.values())
    ]
    return grid(rows, list(configs))


def augmentation_sheet(images: Sequence[Pixels], augment: AugmentConfig, seed: int) -> Figure:
    """Draw preprocessed images, then one under each change, weak and strong, then all under random changes.

    Args:
        images: (H, W) each, the last of them a faint one.
        augment: what training will do. A change that is off is shown at a usual strength.
        seed: of the random changes.
    """
    rows: list[list[Titled]] = []
    names: list[str] = []
    columns = columns_of_grid(images, 4)

    def add(name: str, pictures: list[Titled]) -> None:
        for start in range(0, len(pictures), columns):
            rows.append(pictures[start : start + columns])
            names.append("" if start else name)

    add("unchanged", [Titled(image) for image in images[:4]])
    for change in CHANGES:
        name, said = change.name, change.metadata["said"]
        on = getattr(augment, name)
        value = on or change.metadata["shown"]
        alone = AugmentConfig(**{each.name: 0 for each in CHANGES} | {name: value})
        amounts: list[Draw] = [{name: amount} for amount in change.metadata["draws"]]
        image = images[-1] if _changes_gray_alone(amounts, alone, images[0]) else images[0]
        pictures = [Titled(augmented(image, draw, alone), said(draw, alone, image.shape)) for draw in amounts]
        add(_option(name, value) + ("" if on else "\n(off)"), pictures)
    together = [
        augmented(images[n % len(images)], draw, augment)
        for n, draw in enumerate(draws(seed, 0, 4 * columns))
    ]
    add("as in training,\nat random", [Titled(pixels) for pixels in together])
    return grid(rows, names)


def _changes_gray_alone(amounts: Sequence[Draw], config: AugmentConfig, image: Pixels) -> bool:
    """Return True if black and white stay, so that a change is seen on faint ink alone."""
    sharp = np.where(image < 128, 0, 255).astype(np.uint8)
    return all((augmented(sharp, draw, config) == sharp).all() for draw in amounts)


def _option(name: str, value: float | bool) -> str:
    """Return the option of the command line that sets a value."""
    option = f"--{name.replace('_', '-')}"
    return option if value is True else f"{option} {value:g}"


@styled
def labels_figure(found: Exploration) -> Figure:
    """Draw the lengths of labels, and the number of occurrences of each character."""
    common = found.characters.most_common(_MOST_BARS)
    lengths = found.lengths
    ratios = [max(12, min(30, max(lengths, default=0))), max(12, len(common))]
    figure = new_figure(WIDTH, 2.9)
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": ratios})
    _integer_bars(left, lengths)
    left.set_xlabel("characters in a label")
    left.set_ylabel("labels")
    left.set_title("Length of labels", loc="left")
    right.bar(range(len(common)), [count for _, count in common], color=_BLUE, width=0.8)
    shown = [drawable_character(character) for character, _ in common]
    right.set_xticks(range(len(common)), shown, family=text_fonts())
    for label, text in zip(right.get_xticklabels(), shown, strict=True):
        label.set_rotation(90 if len(text) > 1 else 0)
    _whole_numbers(right.yaxis)
    right.set_xlim(-0.7, max(1, len(common)) - 0.3)
    right.set_ylabel("occurrences")
    more = len(found.characters) - len(common)
    right.set_xlabel(f"character, the {len(common)} most frequent" if more else "character")
    right.set_title("Characters" + (f" ({more} rarer ones not shown)" if more else ""), loc="left")
    return figure


@styled
def sizes_figure(found: Exploration) -> Figure:
    """Draw the sizes of the images, and the frames that their labels need."""
    figure = new_figure(WIDTH, 3.6)
    left, right = figure.subplots(1, 2)
    _bubbles(left, Counter((m.width, m.height) for m in found.measured))
    left.set_xlabel("width in pixels")
    left.set_ylabel("height in pixels")
    left.set_title("Size of the original images", loc="left")
    _bubbles(right, Counter((m.frames_needed, m.frames) for m in found.measured))
    end = max(right.get_xlim()[1], right.get_ylim()[1])
    right.fill_between([0, end], [0, end], color=_RED, alpha=0.12, lw=0, label="label too long to be learned")
    right.legend(loc="lower right", frameon=False, fontsize=8)
    right.set_xlim(0, end)
    right.set_ylim(0, end)
    right.set_xlabel("frames the label needs")
    right.set_ylabel("frames the model makes of the image")
    right.set_title("Room for the label", loc="left")
    return figure


@styled
def contrast_figure(found: Exploration) -> Figure:
    """Draw the distribution of contrasts."""
    values = [m.contrast for m in found.measured]
    figure = new_figure(WIDTH, 2.6)
    axes = figure.subplots()
    top = max(0.02, 1.02 * max(values))
    axes.hist(values, bins=60, range=(0, top), color=_BLUE)
    axes.axvline(statistics.median(values), color=_RED, lw=1.2, label="median")
    axes.legend(loc="upper right", frameon=False)
    axes.set_xlim(0, top)
    axes.set_xlabel("contrast of the original: standard deviation of gray levels / 255")
    axes.set_ylabel("images")
    axes.set_title("Contrast", loc="left")
    return figure


def _integer_bars(axes: Axes, counts: Counter[int]) -> None:
    """Draw bars over whole numbers; if there are many numbers, several share a bar."""
    low, high = min(counts, default=0), max(counts, default=0)
    width = -(-(high - low + 1) // _MOST_BARS)
    heights: Counter[int] = Counter()
    for value, count in counts.items():
        heights[(value - low) // width] += count
    places = [low + bar * width + (width - 1) / 2 for bar in heights]
    axes.bar(places, list(heights.values()), width=0.85 * width, color=_BLUE)
    axes.set_xlim(low - 0.7, max(low + 3, max(places, default=0) + width / 2) + 0.2)
    _whole_numbers(axes.xaxis, axes.yaxis)


def _whole_numbers(*sides: Axis) -> None:
    """Put ticks at whole numbers."""
    for axis in sides:
        axis.set_major_locator(load_matplotlib().ticker.MaxNLocator(integer=True))


def _bubbles(axes: Axes, pairs: Counter[tuple[int, int]]) -> None:
    """Draw a dot for each pair of numbers, its area by its count, on axes from zero."""
    most = max(pairs.values())
    x, y = zip(*pairs, strict=True)
    largest = max(15, 300 / math.sqrt(len(pairs)))
    areas = [8 + largest * count / most for count in pairs.values()]
    axes.scatter(x, y, s=areas, color=_BLUE, alpha=0.5, lw=0)
    axes.set_xlim(0, 1.12 * max(1, *x))
    axes.set_ylim(0, 1.12 * max(1, *y))
