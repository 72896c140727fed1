"""Pictures of an evaluation: confused characters, accuracy by group, and the worst samples."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastctc.crnn.data import Pixels
from fastctc.crnn.read import CONTRAST_BINS, Evaluation, Outcome, Share, edit_alignment
from fastctc.crnn.report.visible import columns, drawable_character, visible, visible_character
from fastctc.figures import BLANK, COLORS, FAINT, INK, load_matplotlib, new_figure, styled, text_fonts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_CHARACTERS = 40
MOST_LENGTHS = 20
SHEET = (10, 3)  # rows and columns of the sheet of the worst samples
_LONGEST = 30  # characters of a text on that sheet
_WRONG = COLORS[1]


@styled
def plot_confusion(evaluation: Evaluation) -> Figure:
    """Draw how often each right character was read as each other character.

    A row for no character counts insertions, a column for no character counts what was left out. Of a large
    alphabet the 40 characters with the most mistakes are drawn.
    """
    pairs = evaluation.confusion()
    characters = _most_confused(pairs)
    keys = [*characters, ""]
    counts = np.array([[pairs[right, read] if right != read else 0 for read in keys] for right in keys])
    n = len(keys)
    figure = new_figure(2.2 + 0.3 * n, 1.5 + 0.3 * n)
    axes = figure.subplots()
    _draw_counts(axes, counts)
    names = [drawable_character(character) for character in characters]
    axes.set_xticks(range(n), [*names, "left\nout"])
    axes.set_yticks(range(n), [*names, "nothing"])
    for label in [*axes.get_xticklabels()[:-1], *axes.get_yticklabels()[:-1]]:
        label.set_fontfamily(text_fonts())
        label.set_fontsize(10 if len(label.get_text()) == 1 else 7)
    for label in axes.get_xticklabels()[:-1]:
        label.set_rotation(90 if len(label.get_text()) > 1 else 0)
    axes.set_xlabel("read as")
    axes.set_ylabel("right")
    for i, right in enumerate(keys):
        total = sum(count for pair, count in pairs.items() if pair[0] == right)
        lost = total - pairs[right, right]
        note = f"{lost} of {total}" if right else f"{lost} inserted"
        axes.text(n - 0.3, i, note, va="center", fontsize=7, color=INK if lost else BLANK)
    axes.set_title(f"{evaluation.edits} mistakes in {evaluation.characters} characters", loc="left")
    return figure


def _most_confused(pairs: Counter[tuple[str, str]]) -> list[str]:
    """Return the characters of a confusion matrix: digits, then letters, then the rest."""
    wrong = Counter[str]()
    for (right, read), count in pairs.items():
        for character in (right, read):
            wrong[character] += count if right != read else 0
    del wrong[""]
    most = sorted(sorted(wrong), key=lambda character: -wrong[character])[:MOST_CHARACTERS]
    return sorted(most, key=lambda c: (0 if c.isdigit() else 1 if c.isalpha() else 2, c))


def _draw_counts(axes: Axes, counts: Any) -> None:
    """Draw the cells of a confusion matrix, with a gray diagonal."""
    n = len(counts)
    shown = np.where(counts > 0, np.sqrt(counts), np.nan)
    axes.imshow(shown, cmap="OrRd", vmin=0, vmax=max(1.5, float(np.sqrt(counts.max())) * 1.25))
    for i in range(n):
        square = load_matplotlib().patches.Rectangle((i - 0.5, i - 0.5), 1, 1, color="#eeeeee", lw=0)
        axes.add_patch(square)
        for j in np.flatnonzero(counts[i]).tolist():
            axes.text(j, i, f"{counts[i, j]}", ha="center", va="center", fontsize=8, color="black")
    axes.set_xticks(np.arange(n + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(n + 1) - 0.5, minor=True)
    axes.grid(which="minor", color=FAINT, lw=0.6)
    axes.tick_params(which="both", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


class _Panel(NamedTuple):
    """Shares of groups along an axis.

    Attributes:
        name: of the axis.
        shares: of the groups.
        places: where they stand on the axis.
        ticks: places and texts of the ticks.
    """

    name: str
    shares: Sequence[Share]
    places: Sequence[float]
    ticks: tuple[Sequence[float], Sequence[str]]


@styled
def plot_accuracy(evaluation: Evaluation) -> Figure:
    """Draw exact match by length, by contrast, and by kind if the texts are of several kinds of a domain.

    A bar spans 95% confidence. The number at its foot counts the samples.
    """
    panels = _panels(evaluation)
    if not panels:
        return new_figure(4, 3)
    widths = [min(10.0, max(2.2, 1.2 + 0.5 * len(panel.shares))) for panel in panels]
    figure = new_figure(max(7.0, 0.8 + sum(widths)), 3.2)
    grid: Any = figure.subplots(1, len(panels), sharey=True, squeeze=False, width_ratios=widths)
    for axes, panel in zip(grid[0], panels, strict=True):
        _draw_panel(axes, panel, evaluation.exact_match)
    enough = max(10, evaluation.count // 50)  # samples of a group whose bar is drawn to its end
    lowest = min(
        share.interval()[0] if share.count >= enough else share.exact_match
        for share in [Share(evaluation.correct, evaluation.count), *(s for p in panels for s in p.shares)]
    )
    bottom = max(0.0, lowest - 0.2 * (1 - lowest))
    grid[0][0].set_ylim(bottom, 1 + 0.04 * (1 - bottom))
    grid[0][0].set_ylabel("exact match")
    grid[0][0].yaxis.set_major_formatter(load_matplotlib().ticker.PercentFormatter(1))
    figure.suptitle(
        f"{100 * evaluation.exact_match:.2f}% of {evaluation.count} samples read exactly (dotted);"
        " bars: 95% confidence; at the foot: number of samples",
        x=0.01, ha="left", fontsize=10,
    )  # fmt: skip
    return figure


def _panels(evaluation: Evaluation) -> list[_Panel]:
    """Return the panels that have groups."""
    panels = []
    lengths, contrasts, kinds = evaluation.by_length(), evaluation.by_contrast(), evaluation.by_kind()
    if lengths:
        shares = _joined(lengths)
        places = range(len(shares))
        panels.append(_Panel("characters of the text", list(shares.values()), places, (places, list(shares))))
    if contrasts:
        bins = [low * CONTRAST_BINS for low in contrasts]
        edges = range(round(min(bins)), round(max(bins)) + 2)
        ticks = edges, [f"{edge / CONTRAST_BINS:.2g}" for edge in edges]
        panels.append(
            _Panel(
                "contrast\n(standard deviation / 255)",
                list(contrasts.values()),
                [b + 0.5 for b in bins],
                ticks,
            )
        )
    if evaluation.domain is not None and len(kinds) > 1:
        names = [evaluation.domain.kinds[kind] for kind in kinds]
        places = range(len(kinds))
        panels.append(_Panel(evaluation.domain.name, list(kinds.values()), places, (places, names)))
    return panels


def _joined(lengths: dict[int, Share]) -> dict[str, Share]:
    """Return shares by the names of lengths; many lengths are joined to ranges."""
    size = -(-len(lengths) // MOST_LENGTHS)
    items = list(lengths.items())
    joined = {}
    for start in range(0, len(items), size):
        part = items[start : start + size]
        first, last = part[0][0], part[-1][0]
        name = f"{first}" if first == last else f"{first} to\n{last}"
        joined[name] = Share(sum(s.correct for _, s in part), sum(s.count for _, s in part))
    return joined


def _draw_panel(axes: Axes, panel: _Panel, overall: float) -> None:
    """Draw a point with its bar for each group."""
    axes.set_xticks(*panel.ticks)
    values = [share.exact_match for share in panel.shares]
    bounds = [share.interval() for share in panel.shares]
    errors = [
        [value - low for value, (low, _) in zip(values, bounds, strict=True)],
        [high - value for value, (_, high) in zip(values, bounds, strict=True)],
    ]
    axes.axhline(overall, color=BLANK, lw=0.9, ls=":", zorder=1)
    axes.errorbar(
        panel.places, values, np.maximum(errors, 0), fmt="o", color=COLORS[0], ms=5, capsize=3, lw=1.2
    )
    axes.set_xlim(min(panel.places) - 0.6, max(panel.places) + 0.6)
    axes.set_xlabel(panel.name)
    for place, share in zip(panel.places, panel.shares, strict=True):
        axes.text(
            place, 0.01, f"{share.count}", transform=axes.get_xaxis_transform(), ha="center", va="bottom",
            fontsize=7, color=INK, bbox={"facecolor": "white", "lw": 0, "pad": 1},
        )  # fmt: skip


@styled
def plot_worst(evaluation: Evaluation) -> Figure:
    """Draw the worst samples: what the model saw, the right text, what was read, and its probability.

    Samples with the most edits come first; with equal edits, the surest mistake. Then come samples read exactly,
    the least sure first.

    Raises:
        ValueError: the evaluation does not have the samples of its outcomes.
    """
    if len(evaluation.samples) != evaluation.count:
        raise ValueError(
            f"evaluation has {len(evaluation.samples)} samples, expected one for each of its"
            f" {evaluation.count} outcomes"
        )
    rows, across = SHEET
    worst = evaluation.worst()[: rows * across]
    rows = max(1, math.ceil(len(worst) / across))
    figure = new_figure(3.6 * across, 0.5 + 0.85 * rows)
    grid: Any = figure.subplots(rows, 2 * across, squeeze=False, width_ratios=[2.0, 1.5] * across)
    for axes in grid.flat:
        axes.set_axis_off()
    for (image, texts), index in zip(grid.reshape(-1, 2), worst, strict=False):
        _draw_image(image, evaluation.samples.images[index])
        _draw_texts(texts, evaluation.outcomes[index])
    mistakes = len(evaluation.mistakes)
    shown = f"The worst {len(worst)} of {mistakes}" if mistakes > len(worst) else f"All {mistakes}"
    heading = f"{shown} samples that were not read exactly" if mistakes else "All samples were read exactly"
    if len(worst) > mistakes:
        heading += f", and the {len(worst) - mistakes} that were read least surely"
    figure.suptitle(f"{heading}: the right text, and below it what was read", x=0.01, ha="left", fontsize=10)
    return figure


def _draw_image(axes: Axes, image: Pixels) -> None:
    """Draw an image with a frame."""
    height, width = image.shape
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, aspect="equal")
    axes.set_anchor("W")
    axes.set_xlim(-2, max(width, 3 * height) + 2)  # narrow images are not drawn larger than others
    axes.set_ylim(height + 2, -2)
    axes.plot([0, width, width, 0, 0], [0, 0, height, height, 0], color=FAINT, lw=0.8)


def _draw_texts(axes: Axes, outcome: Outcome) -> None:
    """Draw the right text, and what was read below it, with differences in color.

    Of long texts the part around the first difference is drawn.
    """
    pairs = edit_alignment(outcome.right, outcome.read)
    first = next((k for k, (right, read) in enumerate(pairs) if right != read), 0)
    begin = max(0, min(first - _LONGEST // 2, len(pairs) - _LONGEST))
    shown = pairs[begin : begin + _LONGEST]
    cells = [[visible_character(character) or "·" for character in pair] for pair in shown]
    places = list(accumulate((max(map(columns, cell)) for cell in cells), initial=0))
    step = 1 / max(14, places[-1])
    for pair, cell, place in zip(shown, cells, places, strict=False):
        same = pair[0] == pair[1]
        for y, text, color in ((0.86, cell[0], INK), (0.56, cell[1], INK if same else _WRONG)):
            axes.text(
                place * step, y, text, va="center", family=text_fonts(), fontsize=140 * step, color=color,
                weight="normal" if same else "bold",
            )  # fmt: skip
    name = visible(outcome.name)
    name = name if len(name) <= 30 else f"…{name[-29:]}"
    sure = f"{100 * math.exp(min(0.0, outcome.score)):.3g}%"
    axes.text(
        0,
        0.18,
        f"{sure} sure\n{name}",
        va="center",
        fontsize=6,
        color=BLANK,
        family=text_fonts(monospace=False),
    )
