"""The picture of a training run: loss, accuracy, blank rate and learning rate over the steps."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastctc.crnn.data import write_atomically
from fastctc.figures import COLORS, FAINT, INK, STYLE, load_matplotlib, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Lines = list[dict[str, Any]]


def save_curve(lines: Lines, path: Path, title: str = "") -> None:
    """Write :func:`plot_curve` as a PNG file, whole or not at all.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    figure, content = plot_curve(lines, title), io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    write_atomically(path, content.getvalue())


def plot_curve(lines: Lines, title: str = "") -> Figure:
    """Draw the log of a run; needs matplotlib.

    Args:
        lines: as :func:`fastctc.crnn.training.journal.read_log` gives them; ``exact_match`` where it was measured.
        title: above the picture.

    Returns:
        A figure of three rows over the steps: loss, on a logarithmic axis; exact match and blank rate; learning
        rate.
    """
    with load_matplotlib().rc_context(STYLE):
        figure = new_figure(7.0, 5.6)
        loss, share, rate = figure.subplots(3, 1, sharex=True, height_ratios=[3, 2.2, 1])
        figure.suptitle(title, fontsize=10)
        _loss(loss, lines)
        _shares(share, lines)
        steps, rates = _series(lines, "learning_rate")
        rate.plot(steps, [1e3 * value for value in rates], color=COLORS[0], lw=1.4)
        rate.set_ylabel("learning rate\n/ 0.001")
        rate.set_ylim(bottom=0)
        rate.set_xlabel("step")
        rate.set_xlim(0, max([line["step"] for line in lines], default=1))
        for axes in (loss, share, rate):
            axes.grid(color=FAINT, lw=0.6)
            axes.set_axisbelow(True)
        figure.align_ylabels()
    return figure


def _loss(axes: Axes, lines: Lines) -> None:
    steps, losses = _series(lines, "loss")
    axes.plot(steps, losses, color=COLORS[0], lw=1.4)
    axes.set_ylabel("loss per character, nats")
    if any(value > 0 for value in losses):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")


def _shares(axes: Axes, lines: Lines) -> None:
    steps, blank = _series(lines, "blank_rate")
    axes.plot(steps, [100 * value for value in blank], color=COLORS[1], lw=1.4, label="blank rate")
    steps, exact = _series(lines, "exact_match")
    if steps:
        axes.plot(
            steps,
            [100 * v for v in exact],
            color=COLORS[2],
            lw=1.4,
            marker="o",
            ms=4,
            clip_on=False,
            label="exact match",
        )
        axes.annotate(
            f"{100 * exact[-1]:.2f}%", (steps[-1], 100 * exact[-1]), (-4, -6), textcoords="offset points",
            ha="right", va="top", color=INK,
        )  # fmt: skip
    axes.set_ylabel("share, %")
    axes.set_ylim(-3, 103)
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 0.97), ncols=2, borderpad=0)


def _series(lines: Lines, name: str) -> tuple[list[int], list[float]]:
    """Return steps and values of the lines that have a value of this name."""
    points = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
    return [step for step, _ in points], [value for _, value in points]
