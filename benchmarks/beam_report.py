"""The Markdown of the beam search benchmark: a table for each input, one for each sweep."""

from __future__ import annotations

from typing import Any

from report import Row, heading, number, table
from sides import timed, title


def result_table(row: Row) -> list[str]:
    """Return a table with a line per side: its times, and the quality of its hypotheses."""
    columns = ["", "ms", "least ms", "µs per frame", "time / fastctc", "best is fastctc's"]
    columns += ["mean log P of the best", "of the best in the n-best", "n"]
    known = timed([row])
    lines = []
    for side in [*known, *(each for each in row["sides"] if each not in known)]:
        of = row["sides"][side]
        ratio = row.get("ratio", {}).get(side)
        agreement = of.get("agreement")
        lines.append(
            [
                title(side),
                number(of.get("median_ms"), ".3f"),
                number(of.get("min_ms"), ".3f"),
                number(of.get("frame_us"), ".3f"),
                number(ratio, ".1f" if ratio and ratio < 100 else ".0f", "**"),
                "" if agreement is None else f"{100 * agreement:.0f}%",
                number(of.get("log_prob"), ".3f"),
                number(of.get("oracle_log_prob"), ".3f"),
                str(of.get("nbest", "")),
            ]
        )
    return table(columns, lines)


def caption(row: Row) -> str:
    found = row["statistics"]
    text = (
        f"{row['shape']}, {row['input']}: N = {row['N']}, T = {row['T']}, C = {row['C']}, beam {row['W']}; "
        f"mean of the frames' highest probabilities {found['mean_max_p']:.2f}, "
        f"the blank is best in {100 * found['blank_share']:.0f}%."
    )
    if "floor_ms" in row:
        text += f" Floor {row['floor_ms']:.4f} ms."
    if "speed_up" in row:
        text += f" More threads: {row['speed_up']:.2f} times as fast."
    return text + (f" Notes: {'; '.join(row['notes'])}." if row["notes"] else "")


def sweep_table(variable: str, rows: list[Row]) -> list[str]:
    """Return a table of milliseconds per side, and the time of the fastest peer over fastctc's."""
    sides = timed(rows)
    lines = []
    for row in rows:
        cells = [str(row[variable])]
        cells += [number(row["sides"].get(side, {}).get("median_ms"), ".3f") for side in sides]
        fastest = min(row.get("ratio", {}).values(), default=None)
        lines.append([*cells, number(fastest, ".1f", "**"), "; ".join(row["notes"])])
    columns = [variable, *(f"{title(side)} ms" for side in sides)]
    return table([*columns, "fastest peer / fastctc", "notes"], lines)


def markdown(result: dict[str, Any]) -> str:
    """Return the result as Markdown tables, below a description of machine and versions."""
    what = "`beam_search` without a language model, float32 log-probabilities"
    lines = [heading(what, result)]
    on_cuda = "gpu" in result["machine"]
    for row in result["results"]:
        lines += ["", caption(row), "", *result_table(row)]
    if result["results"]:
        frames = "T frames, of all samples at once" if on_cuda else "N * T frames"
        lines += [
            "",
            f"Medians; per frame: of the {frames}. log P is exact, in float64, over all paths; n is how many",
        ]
        lines[-1] += " hypotheses a side gives. `benchmarks/decoders.py` has the settings of each."
    for variable, rows in result["sweeps"].items():
        others = ", ".join(f"{size} = {rows[0][size]}" for size in "NTCW" if size != variable)
        lines += ["", f"{variable} swept, {rows[0]['input']}, {others}:", "", *sweep_table(variable, rows)]
    return "\n".join(lines) + "\n"
