"""The Markdown of the word search benchmark."""

from __future__ import annotations

from typing import Any

from report import Row, heading, number, table
from sides import title


def percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}%"


def is_ours(entry: Row) -> bool:
    return bool(entry["side"].startswith("fastctc"))


def fastctc_as_good(entry: Row, entries: list[Row]) -> Row | None:
    """Return the fastest entry of fastctc, with or without cuts, whose errors are at most another side's."""
    ours = [e for e in entries if is_ours(e) and e["word_error_rate"] <= entry["word_error_rate"]]
    return min(ours, key=lambda each: each["median_ms"], default=None)


def word_table(row: Row) -> list[str]:
    columns = ["", "beam", "lm_weight", "word_bonus", "word error rate", "µs per frame"]
    columns += ["time / fastctc at no more errors", "fastctc's score, nats above", "lower", "not in lexicon"]
    lines = []
    for entry in row["entries"]:
        ours = fastctc_as_good(entry, row["entries"]) if not is_ours(entry) else None
        ratio = f"**{entry['median_ms'] / ours['median_ms']:.1f}** (beam {ours['beam']})" if ours else ""
        lines.append(
            [
                title(entry["side"]),
                str(entry["beam"]),
                f"{entry['lm_weight']:.2f}",
                f"{entry['word_bonus']:.2f}",
                percent(entry["word_error_rate"]),
                number(entry["frame_us"], ".1f"),
                ratio,
                number(entry.get("score_margin"), ".3f"),
                *(str(entry.get(key, "")) for key in ("lower", "not_in_lexicon")),
            ]
        )
    return table(columns, lines)


def token_table(rows: list[Row]) -> list[str]:
    columns = ["shape", "N, T, C, beam", "input", "no model, µs per frame", "3-gram", "10,000 hotwords"]
    columns += ["3-gram / none", "hotwords / none", "flashlight with the 3-gram", "over fastctc's", "notes"]
    lines = []
    for row in rows:
        us = {side: times["frame_us"] for side, times in row["sides"].items()}
        over = row.get("over_none", {})
        theirs = us.get("flashlight_ngram")
        lines.append(
            [
                row["shape"],
                ", ".join(str(row[size]) for size in "NTCW"),
                row["input"],
                *(number(us.get(side), ".2f") for side in ("none", "ngram", "hotwords")),
                *(number(over.get(side), ".2f", "**") for side in ("ngram", "hotwords")),
                number(theirs, ".1f"),
                number(theirs / us["ngram"] if theirs else None, ".0f"),
                "; ".join(row["notes"]),
            ]
        )
    return table(columns, lines)


def load_table(row: Row) -> list[str]:
    names = {"fastctc": "fastctc, ARPA", "saved": "fastctc, its own file", "kenlm": "KenLM, ARPA"}
    lines = []
    for side, times in row["sides"].items():
        size = row["bytes"]["saved" if side == "saved" else "arpa"]
        lines.append([names[side], number(times["median_ms"], ".1f"), f"{size / 1e6:.1f}"])
    return table(["", "ms", "file, MB"], lines)


def memory_table(rows: list[Row]) -> list[str]:
    lines = []
    for row in rows:
        cells = [row["case"], title(row["side"])]
        if "error" in row:
            lines.append([*cells, "", "", row["error"]])
            continue
        sizes = [row["loaded"] - row["before"], row["peak"] - row["before"]]
        lines.append([*cells, *(f"{size / 1e6:.0f}" for size in sizes), ""])
    return table(["case", "", "loaded, MB", "peak, MB", "notes"], lines)


def markdown(result: dict[str, Any]) -> str:
    """Return the result as Markdown tables, below a description of machine and versions."""
    lines = [heading("`beam_search` with a lexicon and a word 3-gram, float32 log-probabilities", result)]
    for row in result["results"]:
        notes = f" Notes: {'; '.join(row['notes'])}." if row["notes"] else ""
        lines += ["", f"{row['case']}: {row['utterances']} utterances, {row['words']} words,"]
        lines[-1] += f" {row['frames']} frames.{notes}"
        lines += ["", *word_table(row)]
    if result["results"]:
        lines += [
            "",
            "Medians of CPU time. Weights were tuned on the other half of the sentences. The score is",
        ]
        lines[-1] += (
            " ln P(y | x) + A(y), exact, with the weights of the peer: mean difference of the best words,"
        )
        lines[-1] += " and how often fastctc's is lower. `benchmarks/word_decoders.py` has the settings."
    if result.get("tokens"):
        lines += ["", "A token 3-gram and 10,000 hotwords:", "", *token_table(result["tokens"])]
    if result.get("load"):
        lines += ["", "Time to load the word 3-gram:", "", *load_table(result["load"])]
        if "ratio" in result["load"]:
            lines += ["", f"KenLM takes **{result['load']['ratio']:.2f}** times as long as fastctc."]
    if result.get("memory"):
        lines += [
            "",
            "Resident memory beyond the input, with model and lexicon, and the peak of loading and a search at",
        ]
        lines[-1] += " beam 50:"
        lines += ["", *memory_table(result["memory"])]
    return "\n".join(lines) + "\n"
