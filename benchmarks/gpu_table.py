"""One table of a run of gpu_suite.sh, for benchmarks/results/ and README: times, peers, and what was estimated.

  python benchmarks/gpu_table.py FILES          print it, in Markdown

FILES is the unpacked results.tar.gz. A part that a run lacks is left out.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

from report import number, table

SASS = Path(__file__).resolve().parent / "sass"
ESTIMATED = {"ctc_loss": "ctc_loss, forward + backward", "beam_search": "beam_search"}
METRICS = (
    "Duration",
    "Registers Per Thread",
    "Achieved Occupancy",
    "DRAM Throughput",
    "Compute (SM) Throughput",
)

Row = dict[str, Any]


def estimates() -> dict[tuple[str, str], float]:
    """Return the estimated milliseconds on an H200 by op and case."""
    sys.path.insert(0, str(SASS))
    try:
        from estimate import OPS
        from search_estimates import searches
    finally:
        sys.path.remove(str(SASS))
    found = json.loads((SASS / "table.json").read_text())
    return {(each.op, each.case): 1e3 * each.seconds() for op in (*OPS, searches) for each in op(found)}


def case_of(benchmark: str, row: Row) -> str:
    """Return the case of a row as the estimates name it."""
    if benchmark == "beam_search":
        return f"{row['shape']}: N={row['N']} T={row['T']} C={row['C']}, beam {row['W']}"
    return f"{row['shape']}: T={row['T']} N={row['N']} C={row['C']} S={row['S']}"


def times(results: list[Row]) -> list[str]:
    """Return the rows of all benchmarks: fastctc, the fastest peer, and the estimate."""
    expected, lines = estimates(), []
    for result in results:
        benchmark = result["benchmark"]
        for row in result["results"]:
            sides = {name: side.get("median_ms") for name, side in row["sides"].items()}
            own = sides.get("fastctc")
            peers = {name: ms for name, ms in sides.items() if ms and not name.startswith("fastctc")}
            best = min(peers, key=lambda name: peers[name], default=None)
            case = case_of(benchmark, row)
            usual = row.get("lengths", "fixed") == "fixed" and row["input"] in ("logits", "flat")
            estimate = expected.get((ESTIMATED.get(benchmark, ""), case)) if usual else None
            both = own and best and peers[best] / own
            lines.append(
                [
                    benchmark,
                    case,
                    ", ".join(row[each] for each in ("input", "lengths") if each in row),
                    number(own, ".3f"),
                    "" if best is None else f"{best} {peers[best]:.3f}",
                    number(both or None, ".1f"),
                    number(estimate, ".3f"),
                    number(own / estimate if own and estimate else None, ".2f"),
                ]
            )
    columns = [
        "op",
        "case",
        "input",
        "ms",
        "fastest peer, ms",
        "peer / fastctc",
        "estimate, ms",
        "ms / estimate",
    ]
    return table(columns, lines) if lines else []


def profile(text: str) -> list[str]:
    """Return the table of ncu's CSV: a row for each kernel, the first launch of it."""
    start = text.find('"ID"')
    found: dict[str, dict[str, str]] = {}
    for line in csv.DictReader(io.StringIO(text[start:])) if start >= 0 else ():
        name = line["Kernel Name"].replace("fastctc::cuda::", "").removeprefix("void ").partition("(")[0]
        figures = found.setdefault(name, {})
        figures.setdefault(line["Metric Name"], f"{line['Metric Value']} {line['Metric Unit']}".strip())
    lines = [[f"`{name}`", *(figures.get(each, "") for each in METRICS)] for name, figures in found.items()]
    return table(["kernel", *METRICS], lines) if lines else []


def markdown(files: Path) -> str:
    """Return what a run found: what ran where, the times, and the profile of the kernels."""
    found = [json.loads(path.read_text()) for path in sorted((files / "results").glob("*.json"))]
    parts = []
    if (files / "summary.txt").exists():
        parts.append("```\n" + (files / "summary.txt").read_text().rstrip() + "\n```")
    compared = [each for each in found if each["benchmark"] in ("ctc_loss", "beam_search", "forced_align")]
    for title, lines in (
        ("Times: medians. Estimates are of a model of an H200.", times(compared)),
        (
            "Kernels, by ncu.",
            profile((files / "ncu.csv").read_text() if (files / "ncu.csv").exists() else ""),
        ),
    ):
        if lines:
            parts += [title, "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Print the table of a run of gpu_suite.sh.")
    parser.add_argument("files", type=Path, metavar="FILES", help="the unpacked results")
    print(markdown(parser.parse_args().files), end="")


if __name__ == "__main__":
    main()
