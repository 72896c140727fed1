"""An evaluation as pictures and one page: which characters are confused, where, and the worst samples.

Needs matplotlib.
"""

from __future__ import annotations

import base64
import html
import io
import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np
import numpy.typing as npt

from fastctc.crnn.data.collect import Samples
from fastctc.crnn.model.checkpoint import write_atomically
from fastctc.crnn.read.evaluate import CONTRAST_BINS, Evaluation, Outcome, Share, edit_alignment
from fastctc.crnn.report.exploration import visible_character
from fastctc.plot import BLANK, COLOURS, FAINT, INK, STYLE, load_matplotlib, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_CHARACTERS = 40
SHEET = (10, 3)  # rows and columns of the sheet of the worst samples
LONGEST = 30  # characters of a text on that sheet
WRONG = COLOURS[1]
KINDS = {"bare": "no value", "holds": "equation\nholds", "wrong": "wrong\nequation"}


def write_report(evaluation: Evaluation, samples: Samples, folder: str | Path, title: str) -> Path:
    """Writes ``confusion.png``, ``accuracy.png``, ``worst.png``, and ``report.html``, which holds all of them.

    Args:
        evaluation: of these samples, in this order.
        samples: for their images.
        folder: made if missing; files of these names are replaced.
        title: what was evaluated on what.

    Returns:
        The path of the page.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    folder = Path(folder)
    figures = {
        "confusion": plot_confusion(evaluation),
        "accuracy": plot_accuracy(evaluation),
        "worst": plot_worst(evaluation, samples),
    }
    pictures = {name: _png(figure) for name, figure in figures.items()}
    for name, content in pictures.items():
        _write(folder / f"{name}.png", content)
    page = folder / "report.html"
    _write(page, _page(evaluation, title, pictures).encode())
    return page


_Arguments = ParamSpec("_Arguments")


def _in_style(draw: Callable[_Arguments, Figure]) -> Callable[_Arguments, Figure]:
    """Draws in the style of the package's other pictures."""

    @wraps(draw)
    def styled(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> Figure:
        with load_matplotlib().rc_context({**STYLE, "text.parse_math": False}):
            return draw(*args, **kwargs)

    return styled


@_in_style
def plot_confusion(evaluation: Evaluation) -> Figure:
    """Counts of the characters read for each right character, those read rightly left out.

    A row and a column without a character are those of insertions and of what was left out. Of a large alphabet
    the 40 characters with the most mistakes are drawn.
    """
    pairs = evaluation.confusion()
    totals, wrong = Counter[str](), Counter[str]()
    for (right, read), count in pairs.items():
        totals[right] += count
        if right != read:
            wrong[right] += count
            wrong[read] += count
    characters = sorted({character for pair in pairs for character in pair if character}, key=_order)
    if len(characters) > MOST_CHARACTERS:
        most = sorted(characters, key=lambda character: -wrong[character])[:MOST_CHARACTERS]
        characters = sorted(most, key=_order)
    keys = [*characters, ""]
    counts = np.array([[pairs[right, read] if right != read else 0 for read in keys] for right in keys])

    n = len(keys)
    figure = new_figure(2.2 + 0.3 * n, 1.5 + 0.3 * n)
    axes = figure.subplots()
    shown = np.where(counts > 0, np.sqrt(counts), np.nan)
    axes.imshow(shown, cmap="OrRd", vmin=0, vmax=max(1.5, float(np.sqrt(counts.max())) * 1.25))
    for i in range(n):
        axes.add_patch(_cell(i))
        for j in np.flatnonzero(counts[i]).tolist():
            axes.text(j, i, f"{counts[i, j]}", ha="center", va="center", fontsize=8, color="black")
    names = [visible_character(character) for character in characters]
    axes.set_xticks(range(n), [*names, "left\nout"])
    axes.set_yticks(range(n), [*names, "nothing"])
    for label in [*axes.get_xticklabels()[:-1], *axes.get_yticklabels()[:-1]]:
        label.set_fontfamily("monospace")
        label.set_fontsize(10)
    axes.set_xlabel("read as")
    axes.set_ylabel("right")
    axes.set_xticks(np.arange(n + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(n + 1) - 0.5, minor=True)
    axes.grid(which="minor", color=FAINT, lw=0.6)
    axes.tick_params(which="both", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for i, right in enumerate(keys):
        lost = int(counts[i].sum()) if right == "" else totals[right] - pairs[right, right]
        note = f"{lost} inserted" if right == "" else f"{lost} of {totals[right]}"
        axes.text(n - 0.3, i, note, va="center", fontsize=7, color=INK if lost else BLANK)
    axes.set_title(
        f"{evaluation.edits} mistakes in {evaluation.characters} characters", loc="left", fontsize=10
    )
    return figure


@_in_style
def plot_accuracy(evaluation: Evaluation) -> Figure:
    """Exact match by length, by contrast, and of formulas by kind; bars span 95% confidence."""
    panels = [
        (name, shares)
        for name, shares in (
            ("characters of the text", evaluation.by_length()),
            ("contrast (standard deviation / 255)", evaluation.by_contrast()),
            ("formulas", evaluation.by_kind()),
        )
        if shares
    ]
    if not panels:
        return new_figure(4, 3)
    widths = [min(10.0, 1.2 + 0.5 * len(shares)) for _, shares in panels]
    figure = new_figure(max(7.0, 0.8 + sum(widths)), 3.2)
    grid: Any = figure.subplots(1, len(panels), sharey=True, squeeze=False, width_ratios=widths)
    for axes, (name, shares) in zip(grid[0], panels, strict=True):
        _draw_shares(axes, shares, evaluation.exact_match)
        axes.set_xlabel(name)
    enough = max(10, evaluation.count // 50)  # samples of a group whose bar is drawn to its end
    groups = [share for _, shares in panels for share in shares.values()]
    lowest = min(
        share.interval()[0] if share.count >= enough else share.exact_match
        for share in [Share(evaluation.correct, evaluation.count), *groups]
    )
    bottom = max(0.0, lowest - 0.2 * (1 - lowest))
    grid[0][0].set_ylim(bottom, 1 + 0.04 * (1 - bottom))
    grid[0][0].set_ylabel("exact match")
    grid[0][0].yaxis.set_major_formatter(load_matplotlib().ticker.PercentFormatter(1))
    figure.suptitle(
        f"{100 * evaluation.exact_match:.2f}% of {evaluation.count} samples read exactly (dotted);"
        " bars: 95% confidence; at the foot: how many samples",
        x=0.01, ha="left", fontsize=10,
    )  # fmt: skip
    return figure


@_in_style
def plot_worst(evaluation: Evaluation, samples: Samples) -> Figure:
    """The worst samples: what the model saw, the right text, what was read, and how probable that seemed.

    Most edits first, of equal edits the surest mistake; then those read exactly, the least sure first.
    """
    rows, columns = SHEET
    worst = evaluation.worst()[: rows * columns]
    rows = max(1, math.ceil(len(worst) / columns))
    figure = new_figure(3.6 * columns, 0.5 + 0.85 * rows)
    grid: Any = figure.subplots(rows, 2 * columns, squeeze=False, width_ratios=[2.0, 1.5] * columns)
    for axes in grid.flat:
        axes.set_axis_off()
    for (image, texts), index in zip(grid.reshape(-1, 2), worst, strict=False):
        _draw_image(image, samples.images[index])
        _draw_texts(texts, evaluation.outcomes[index])
    mistakes = len(evaluation.mistakes)
    shown = f"The worst {len(worst)} of {mistakes}" if mistakes > len(worst) else f"All {mistakes}"
    heading = f"{shown} samples not read exactly" if mistakes else "All samples were read exactly"
    if len(worst) > mistakes:
        heading += f", and the {len(worst) - mistakes} that were read least surely"
    figure.suptitle(
        f"{heading}: the right text, and below it what was read",
        x=0.01, ha="left", fontsize=10,
    )  # fmt: skip
    return figure


def _draw_shares(axes: Axes, shares: dict[Any, Share], overall: float) -> None:
    """A point with its bar for each group: at its number, between the ends of its bin, or at its name."""
    if all(isinstance(key, str) for key in shares):
        positions = [float(i) for i in range(len(shares))]
        axes.set_xticks(positions, [KINDS[key] for key in shares])
    elif all(isinstance(key, int) for key in shares):
        positions = list(shares)
        axes.xaxis.set_major_locator(load_matplotlib().ticker.MaxNLocator(integer=True))
    else:
        positions = [key * CONTRAST_BINS + 0.5 for key in shares]
        edges = range(int(min(positions)), int(max(positions)) + 2)
        axes.set_xticks(edges, [f"{edge / CONTRAST_BINS:.2g}" for edge in edges])
    values = [share.exact_match for share in shares.values()]
    bounds = [share.interval() for share in shares.values()]
    errors = [
        [v - low for v, (low, _) in zip(values, bounds)],
        [high - v for v, (_, high) in zip(values, bounds)],
    ]
    axes.axhline(overall, color=BLANK, lw=0.9, ls=":", zorder=1)
    axes.errorbar(
        positions, values, np.maximum(errors, 0), fmt="o", color=COLOURS[0], ms=5, capsize=3, lw=1.2
    )
    axes.set_xlim(min(positions) - 0.6, max(positions) + 0.6)
    for position, share in zip(positions, shares.values(), strict=True):
        axes.text(
            position, 0.01, f"{share.count}", transform=axes.get_xaxis_transform(), ha="center", va="bottom",
            fontsize=7, color=INK, bbox={"facecolor": "white", "lw": 0, "pad": 1},
        )  # fmt: skip


def _draw_image(axes: Axes, image: npt.NDArray[np.uint8]) -> None:
    height, width = image.shape
    axes.imshow(image, cmap="gray", vmin=0, vmax=255, aspect="equal")
    axes.set_anchor("W")
    axes.set_xlim(-2, max(width, 3 * height) + 2)  # narrow images are not drawn larger than others
    axes.set_ylim(height + 2, -2)
    axes.plot([0, width, width, 0, 0], [0, 0, height, height, 0], color=FAINT, lw=0.8)


def _draw_texts(axes: Axes, outcome: Outcome) -> None:
    """The right text, below it what was read, what differs in colour; of long texts where they differ first."""
    pairs = edit_alignment(outcome.right, outcome.read)
    first = next((k for k, (right, read) in enumerate(pairs) if right != read), 0)
    begin = max(0, min(first - LONGEST // 2, len(pairs) - LONGEST))
    shown = pairs[begin : begin + LONGEST]
    step = 1 / max(14, len(shown))
    for y, of_line in ((0.86, 0), (0.56, 1)):
        for k, pair in enumerate(shown):
            same = pair[0] == pair[1]
            axes.text(
                k * step, y, visible_character(pair[of_line]) or "·", va="center", family="monospace",
                fontsize=140 * step, color=INK if same or of_line == 0 else WRONG,
                weight="normal" if same else "bold",
            )  # fmt: skip
    name = outcome.name if len(outcome.name) <= 30 else f"…{outcome.name[-29:]}"
    axes.text(0, 0.18, f"{_percent(outcome.score)} sure\n{name}", va="center", fontsize=6, color=BLANK)


def _percent(score: float) -> str:
    return f"{100 * math.exp(min(0.0, score)):.3g}%"


def _page(evaluation: Evaluation, title: str, pictures: dict[str, bytes]) -> str:
    """A page that needs no other file."""
    groups = [
        ("kind", _labelled(evaluation.by_kind(), lambda kind: KINDS[kind].replace("\n", " "))),
        ("characters", _labelled(evaluation.by_length(), str)),
        ("contrast", _labelled(evaluation.by_contrast(), _bin_name)),
    ]
    tables = "".join(_table(name, shares) for name, shares in groups if shares)
    images = "".join(
        f'<h2>{heading}</h2>\n<img alt="{heading}" src="data:image/png;base64,'
        f'{base64.b64encode(pictures[name]).decode()}">\n'
        for name, heading in (
            ("confusion", "Confused characters"),
            ("accuracy", "Where mistakes are made"),
            ("worst", "The worst samples"),
        )
    )
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{html.escape(title)}</title>
<style>
body {{ font: 15px/1.5 sans-serif; color: {INK}; max-width: 1200px; margin: 2em auto; padding: 0 1em }}
h1 {{ font-size: 1.4em }} h2 {{ font-size: 1.1em; margin-top: 2em }}
img {{ max-width: 100% }}
table {{ border-collapse: collapse; display: inline-table; vertical-align: top; margin: 0 3em 1em 0 }}
td, th {{ text-align: right; padding: 1px 10px; border-bottom: 1px solid {FAINT}; font-weight: normal }}
th {{ color: {BLANK} }}
</style>
<h1>{html.escape(title)}</h1>
<p>{html.escape(evaluation.summary()[:1].upper() + evaluation.summary()[1:])}.</p>
{tables}
{images}</html>
"""


def _table(name: str, shares: Sequence[tuple[str, Share]]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(label)}<td>{100 * share.exact_match:.2f}%<td>{share.correct} of {share.count}\n"
        for label, share in shares
    )
    return f"<table>\n<tr><th>{name}<th>exact match<th>\n{rows}</table>\n"


def _labelled(shares: dict[Any, Share], label: Any) -> list[tuple[str, Share]]:
    return [(label(key), share) for key, share in shares.items()]


def _bin_name(low: float) -> str:
    return f"{low:.2f} to {low + 1 / CONTRAST_BINS:.2f}"


def _order(character: str) -> tuple[int, str]:
    """Digits, then letters, then the rest."""
    return (0 if character.isdigit() else 1 if character.isalpha() else 2), character


def _cell(i: int) -> Any:
    return load_matplotlib().patches.Rectangle((i - 0.5, i - 0.5), 1, 1, color="#eeeeee", lw=0)


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=130, facecolor="white")
    return content.getvalue()


def _write(path: Path, content: bytes) -> None:
    write_atomically(path, lambda temporary: temporary.write_bytes(content))
