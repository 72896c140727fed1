"""The picture of the word search benchmark: word error rate against time, a line per side and a point per beam.

python benchmarks/word_plots.py RESULT.json ...
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

COLORS = {
    "fastctc": "#6ea8fe",
    "fastctc_cut": "#1f5fbf",
    "flashlight": "#d9541e",
    "flashlight_sum": "#f0a35e",
    "pyctcdecode": "#8a4fbf",
    "ctc_beam_decoder": "#2f9e44",
}


def draw(axes: Any, row: dict[str, Any], names: Callable[[str], str]) -> None:
    """Draw the panel of a case."""
    for side, color in COLORS.items():
        entries = sorted((e for e in row["entries"] if e["side"] == side), key=lambda e: e["beam"])
        if not entries:
            continue
        times = [entry["frame_us"] for entry in entries]
        rates = [100 * entry["word_error_rate"] for entry in entries]
        width = 2.2 if side == "fastctc_cut" else 1.4
        axes.plot(times, rates, "o-", c=color, lw=width, ms=5, label=names(side))
        for entry, time, rate in zip(entries, times, rates):
            axes.annotate(
                str(entry["beam"]),
                (time, rate),
                (0, 5),
                textcoords="offset points",
                ha="center",
                fontsize=7,
                color=color,
            )
    axes.set_xscale("log")
    axes.grid(color="#e4e4e4", lw=0.7)
    axes.margins(x=0.1, y=0.12)
    axes.set_xlabel("µs per frame")
    axes.set_ylabel("word error rate, %")
    axes.set_title(f"{row['case']}, {row['words']} words", fontsize=9, loc="left")


def write(path: Path, result: dict[str, Any]) -> list[Path]:
    """Write a PNG beside `path` if a case was timed and matplotlib is there."""
    rows = [row for row in result["results"] if row["entries"]]
    if not rows:
        return []
    try:
        import matplotlib
        from matplotlib.figure import Figure

        import plots
        from sides import title
    except ModuleNotFoundError as error:
        print(f"no plots: {error}", file=sys.stderr)
        return []
    with matplotlib.rc_context(plots.STYLE):  # type: ignore[arg-type, unused-ignore]
        figure = Figure(figsize=(max(6.0, 4.8 * len(rows)), 3.8), layout="constrained")
        panels = figure.subplots(1, len(rows), squeeze=False)[0]
        for axes, row in zip(panels, rows):
            draw(axes, row, title)
            axes.legend(frameon=False)
        figure.suptitle("Words with a lexicon and a 3-gram", x=0.01, ha="left", fontsize=11, weight="bold")
        figure.supxlabel(
            f"beam sizes at the points.  {plots.where(result)}",
            x=0.01,
            ha="left",
            fontsize=8,
            color="#777777",
        )
        file = path.with_name(f"{path.stem}.png")
        figure.savefig(file, dpi=160, facecolor="white")
    return [file]


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(*write(Path(name), json.loads(Path(name).read_text())), sep="\n")
