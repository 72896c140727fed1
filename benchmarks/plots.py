"""Plots of a result in JSON, beside it: ratios of the shapes, and times against each swept size.

python benchmarks/plots.py RESULT.json ...
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from sides import timed, title

LOOK = {  # of each side: color and marker; sides that are not here are not drawn
    "fastctc": ("#1f5fbf", "o"),
    "fastctc_graph": ("#6ea8fe", "D"),
    "torch": ("#d9541e", "s"),
    "cudnn": ("#2f9e44", "v"),
    "optax": ("#8a4fbf", "^"),
    "paddle": ("#8c8c8c", "P"),
    "flashlight": ("#d9541e", "s"),
    "flashlight_fast": ("#f0a35e", "X"),
    "torchaudio": ("#8c8c8c", "P"),
    "fast_ctc_decode": ("#2f9e44", "v"),
    "pyctcdecode": ("#8a4fbf", "^"),
    "ctcdecode": ("#b5892b", "*"),
    "cuda_ctc_decoder": ("#d9541e", "s"),
    "cuda_ctc_decoder_skip": ("#f0a35e", "X"),
}
MEANING = {"T": "frames", "S": "labels", "C": "classes", "N": "samples", "W": "prefixes in the beam"}


@dataclass(frozen=True)
class Kind:
    """How the figures of a benchmark are made."""

    title: str
    sweep_title: str
    panel: str  # over a panel of ratios, of a row
    sizes: str  # of a shape
    baseline: str | None  # the peer whose ratios stand in sweeps; None: the fastest
    ratio_scale: str = "linear"


KINDS = {
    "ctc_loss": Kind(
        "CTC loss and gradient",
        "CTC loss and gradient from logits",
        "from {input}, {lengths} lengths",
        "TNCS",
        "torch",
    ),
    "beam_search": Kind(
        "CTC beam search",
        "CTC beam search",
        "{input} input",
        "NTCW",
        None,
        ratio_scale="log",
    ),
}
INK, FAINT = "#333333", "#e4e4e4"
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9a9a9a",
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "axes.axisbelow": True,
}


def plain(value: float, _: object = None) -> str:
    return f"{value:g}"


def times_of(rows: list[dict[str, Any]], side: str) -> list[float]:
    """Return milliseconds; NaN where the side was not timed."""
    return [row["sides"].get(side, {}).get("median_ms") or float("nan") for row in rows]


def drawn(rows: list[dict[str, Any]]) -> list[str]:
    """Return the sides that were timed somewhere and have a look."""
    return [side for side in timed(rows) if side in LOOK]


def ratio_text(ratio: float) -> str:
    return "" if math.isnan(ratio) else f"{ratio:.1f}" if ratio < 10 else f"{ratio:.0f}"


def draw_sweep(axes: Axes, variable: str, rows: list[dict[str, Any]], kind: Kind) -> None:
    """Draw lines on log-log axes; above them the baseline's time over fastctc's."""
    sizes = [row[variable] for row in rows]
    for side in drawn(rows):
        color, marker = LOOK[side]
        width, order = (2.2, 3) if side == "fastctc" else (1.4, 2)
        axes.plot(
            sizes,
            times_of(rows, side),
            marker,
            ls="-",
            c=color,
            lw=width,
            ms=5,
            zorder=order,
            label=title(side),
        )
    for row, size in zip(rows, sizes):
        ratios = row.get("ratio", {})
        if ratio := ratios.get(kind.baseline) if kind.baseline else min(ratios.values(), default=None):
            highest = max(
                row["sides"][side].get("median_ms", 0) for side in drawn(rows) if side in row["sides"]
            )
            axes.annotate(
                ratio_text(ratio) + "\N{MULTIPLICATION SIGN}",
                (size, highest),
                (0, 6),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color=LOOK["torch"][0],
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(plain))
    axes.yaxis.set_major_formatter(FuncFormatter(plain))
    axes.margins(y=0.12)
    axes.grid(color=FAINT, lw=0.7)
    axes.set_xlabel(f"{variable}, {MEANING[variable]}")
    axes.set_ylabel("ms")
    others = ", ".join(f"{size} = {rows[0][size]}" for size in kind.sizes if size != variable)
    axes.set_title(others, fontsize=9, color="#777777", loc="left")


def where(result: dict[str, Any]) -> str:
    """Return a short description of the machine."""
    machine = result["machine"]
    threads = f"{result['threads']} thread" + "s" * (result["threads"] > 1)
    return machine.get("gpu") or f"{machine['cpu']} ({machine['instruction_set']}), {threads}"


def legend(figure: Figure, axes: Axes) -> None:
    """Draw the legend beside the title; in rows of three for many sides."""
    handles, labels = axes.get_legend_handles_labels()
    columns = len(labels) if len(labels) < 6 else 3
    figure.legend(handles, labels, loc="outside upper right", ncols=columns, frameon=False)


def sweep_figure(result: dict[str, Any]) -> Figure:
    """Draw a panel per swept size."""
    sweeps, kind = result["sweeps"], KINDS[result["benchmark"]]
    columns = min(2, len(sweeps))
    lines = -(-len(sweeps) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.3 * lines + 0.5), layout="constrained")
    panels = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axes in panels[len(sweeps) :]:
        axes.remove()
    for axes, (variable, rows) in zip(panels, sweeps.items()):
        draw_sweep(axes, variable, rows, kind)
    legend(figure, figure.axes[0])
    figure.suptitle(kind.sweep_title, x=0.01, ha="left", fontsize=11, weight="bold")
    figure.supxlabel(
        f"orange figures: {kind.baseline or 'the fastest peer'}'s time over fastctc's.  {where(result)}",
        x=0.01,
        ha="left",
        fontsize=8,
        color="#777777",
    )
    return figure


def draw_ratios(axes: Axes, rows: list[dict[str, Any]], peers: list[str], kind: Kind) -> None:
    """Draw a group of bars per shape: the peers' times over fastctc's."""
    width = 0.8 / len(peers)
    for i, peer in enumerate(peers):
        at = [x + (i - (len(peers) - 1) / 2) * width for x in range(len(rows))]
        ratios = [row.get("ratio", {}).get(peer) or float("nan") for row in rows]
        bars = axes.bar(at, ratios, 0.92 * width, color=LOOK[peer][0], label=title(peer))
        axes.bar_label(bars, list(map(ratio_text, ratios)), fontsize=7, padding=1.5)
    axes.axhline(1, color=LOOK["fastctc"][0], lw=1.6, label="fastctc = 1")
    pairs = [kind.sizes[:2], kind.sizes[2:]]
    shapes = [",\n".join(", ".join(str(row[size]) for size in pair) for pair in pairs) for row in rows]
    names = [f"{row['shape']}\n{shape}" for row, shape in zip(rows, shapes)]
    axes.set_xticks(range(len(rows)), names, fontsize=8)
    axes.set_yscale(kind.ratio_scale)
    if kind.ratio_scale == "log":
        axes.yaxis.set_major_formatter(FuncFormatter(plain))
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y", color=FAINT, lw=0.7)
    axes.margins(x=0.02)
    axes.set_title(kind.panel.format(**rows[0]), fontsize=9, loc="left")


def ratio_figure(result: dict[str, Any]) -> Figure:
    """Draw a panel per kind of input and of lengths."""
    kind = KINDS[result["benchmark"]]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in result["results"]:
        groups.setdefault((row.get("lengths", ""), row["input"]), []).append(row)
    peers = [side for side in drawn(result["results"]) if not side.startswith("fastctc")]
    columns = len({each for _, each in groups})
    lines = len(groups) // columns
    widest = max(map(len, groups.values()))
    of_a_group = max(0.65, 0.2 * len(peers))
    size = (max(3.6, 0.5 + of_a_group * widest) * columns, 2.9 * lines + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True)
    for axes, rows in zip(panels.flat, groups.values()):
        draw_ratios(axes, rows, peers, kind)
    for axes in panels[:, 0]:
        axes.set_ylabel("time / fastctc's time")
    legend(figure, panels[0, 0])
    figure.suptitle(kind.title, x=0.01, ha="left", fontsize=11, weight="bold")
    figure.supxlabel(
        f"below the shapes: {', '.join(kind.sizes)}.  {where(result)}",
        x=0.01,
        ha="left",
        fontsize=8,
        color="#777777",
    )
    return figure


def write(path: Path, result: dict[str, Any]) -> list[Path]:
    """Write the figures that have rows, as PNG beside `path`."""
    figures = {}
    with matplotlib.rc_context(STYLE):
        if any(row.get("ratio") for row in result["results"]):
            figures[path.with_name(f"{path.stem}-ratios.png")] = ratio_figure(result)
        if any(result["sweeps"].values()):
            figures[path.with_name(f"{path.stem}-sweeps.png")] = sweep_figure(result)
        for file, figure in figures.items():
            figure.savefig(file, dpi=160, facecolor="white")
    return list(figures)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(*write(Path(name), json.loads(Path(name).read_text())), sep="\n")
