"""Plots of a result in JSON, beside it: ratios of the shapes, and times against each swept size.

python benchmarks/plots.py RESULT.json ...
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from report import timed, title

LOOK = {  # of each side: colour and marker
    "fastctc": ("#1f5fbf", "o"),
    "fastctc_graph": ("#6ea8fe", "D"),
    "torch": ("#d9541e", "s"),
    "cudnn": ("#2f9e44", "v"),
    "optax": ("#8a4fbf", "^"),
    "paddle": ("#8c8c8c", "P"),
}
MEANING = {"T": "frames", "S": "labels", "C": "classes", "N": "samples"}
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
    """Milliseconds; NaN where the side was not timed."""
    return [row["sides"].get(side, {}).get("median_ms") or float("nan") for row in rows]


def draw_sweep(axes: Axes, variable: str, rows: list[dict[str, Any]]) -> None:
    """Lines on log-log axes; above them stands torch's time over fastctc's."""
    sizes = [row[variable] for row in rows]
    for side in timed(rows):
        colour, marker = LOOK[side]
        width, order = (2.2, 3) if side == "fastctc" else (1.4, 2)
        axes.plot(
            sizes,
            times_of(rows, side),
            marker,
            ls="-",
            c=colour,
            lw=width,
            ms=5,
            zorder=order,
            label=title(side),
        )
    for row, size in zip(rows, sizes):
        if ratio := row.get("ratio", {}).get("torch"):
            highest = max(each["median_ms"] for each in row["sides"].values() if "median_ms" in each)
            text = f"{ratio:{'.1f' if ratio < 10 else '.0f'}}\N{MULTIPLICATION SIGN}"
            axes.annotate(
                text,
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
    others = ", ".join(f"{size} = {rows[0][size]}" for size in "TNCS" if size != variable)
    axes.set_title(others, fontsize=9, color="#777777", loc="left")


def where(result: dict[str, Any]) -> str:
    """The machine, in a few words."""
    machine = result["machine"]
    threads = f"{result['threads']} thread" + "s" * (result["threads"] > 1)
    return machine.get("gpu") or f"{machine['cpu']} ({machine['instruction_set']}), {threads}"


def legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), frameon=False)


def sweep_figure(result: dict[str, Any]) -> Figure:
    """A panel for each swept size."""
    sweeps = result["sweeps"]
    columns = min(2, len(sweeps))
    lines = -(-len(sweeps) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.3 * lines + 0.5), layout="constrained")
    panels = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axes in panels[len(sweeps) :]:
        axes.remove()
    for axes, (variable, rows) in zip(panels, sweeps.items()):
        draw_sweep(axes, variable, rows)
    legend(figure, figure.axes[0])
    figure.suptitle("CTC loss and gradient from logits", x=0.01, ha="left", fontsize=11, weight="bold")
    figure.supxlabel(
        f"orange figures: torch's time over fastctc's.  {where(result)}",
        x=0.01,
        ha="left",
        fontsize=8,
        color="#777777",
    )
    return figure


def draw_ratios(axes: Axes, rows: list[dict[str, Any]], peers: list[str]) -> None:
    """A group of bars for each shape: the peers' times over fastctc's."""
    width = 0.8 / len(peers)
    for i, peer in enumerate(peers):
        at = [x + (i - (len(peers) - 1) / 2) * width for x in range(len(rows))]
        ratios = [row.get("ratio", {}).get(peer) or float("nan") for row in rows]
        bars = axes.bar(at, ratios, 0.92 * width, color=LOOK[peer][0], label=title(peer))
        texts = ["" if math.isnan(r) else f"{r:.1f}" if r < 10 else f"{r:.0f}" for r in ratios]
        axes.bar_label(bars, texts, fontsize=7, padding=1.5)
    axes.axhline(1, color=LOOK["fastctc"][0], lw=1.6, label="fastctc = 1")
    axes.set_xticks(
        range(len(rows)), ["{shape}\n{T}, {N},\n{C}, {S}".format(**row) for row in rows], fontsize=8
    )
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y", color=FAINT, lw=0.7)
    axes.margins(x=0.02)
    axes.set_title(f"from {rows[0]['input']}, {rows[0]['lengths']} lengths", fontsize=9, loc="left")


def ratio_figure(result: dict[str, Any]) -> Figure:
    """A panel for each kind of input and of lengths."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in result["results"]:
        groups.setdefault((row["lengths"], row["input"]), []).append(row)
    peers = [side for side in timed(result["results"]) if not side.startswith("fastctc")]
    columns = len({kind for _, kind in groups})
    lines = len(groups) // columns
    widest = max(map(len, groups.values()))
    size = (max(3.6, 0.5 + 0.65 * widest) * columns, 2.9 * lines + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True)
    for axes, rows in zip(panels.flat, groups.values()):
        draw_ratios(axes, rows, peers)
    for axes in panels[:, 0]:
        axes.set_ylabel("time / fastctc's time")
    legend(figure, panels[0, 0])
    figure.suptitle("CTC loss and gradient", x=0.01, ha="left", fontsize=11, weight="bold")
    figure.supxlabel(
        f"below the shapes: T, N, C, S.  {where(result)}", x=0.01, ha="left", fontsize=8, color="#777777"
    )
    return figure


def write(path: Path, result: dict[str, Any]) -> list[Path]:
    """The figures there are rows for, as PNG beside `path`."""
    figures = {}
    with matplotlib.rc_context(STYLE):
        if any("ratio" in row for row in result["results"]):
            figures[path.with_name(f"{path.stem}-ratios.png")] = ratio_figure(result)
        if any(result["sweeps"].values()):
            figures[path.with_name(f"{path.stem}-sweeps.png")] = sweep_figure(result)
        for file, figure in figures.items():
            figure.savefig(file, dpi=160, facecolor="white")
    return list(figures)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(*write(Path(name), json.loads(Path(name).read_text())), sep="\n")
