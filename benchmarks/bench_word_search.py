"""fastctc.beam_search with a lexicon and a word 3-gram against other CTC searches for words.

FOLDER is what prepare_speech.py makes. Its sentences take turns: the weights of each side and beam are tuned on the
even ones, and the result is from the odd ones. All sides run in one process, taking turns. The figures are medians
of CPU time, because one thread computes and others may use the machine.

Before anything is timed, fastctc must give the hypotheses of the plain reference on the first frames. The model's
part of its scores must be the weight of the words by the model alone, and the acoustic part at most the exact
ln P(y | x). Otherwise it is not timed. `word_decoders.py` has the settings of each side.

parts: words    word error rate against time, for each beam
       tokens   a token 3-gram and 10,000 hotwords, over no model, on the shapes of bench_beam_search.py
       load     the time to load the word model
       memory   the peak of the resident memory, in a process for each side
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import report
import word_decoders
import word_plots
import word_report
from timing import Side, measure_cpu
from token_search import token_rows
from word_cases import CASES, Case, Words, check_folder, word_error_rate
from word_checks import faults, margin
from word_decoders import PEERS, Fastctc, Searcher, Weights
from word_memory import load_row, memory_rows
from word_weights import GRID, weights_of

EXAMPLES = """examples:
  python benchmarks/prepare_speech.py speech                                   makes the folder
  python benchmarks/bench_word_search.py speech --quick                        does it run?
  python benchmarks/bench_word_search.py speech --out results                  a CPU result
  python benchmarks/bench_word_search.py speech --parts words --cases speech --tune
  python benchmarks/bench_word_search.py speech --parts tokens load --peers none
"""
PARTS = ["words", "tokens", "load", "memory"]
BEAMS = {  # of each side in each case
    "speech": {
        "fastctc": [10, 50, 200],
        "fastctc_cut": [5, 10, 20, 50, 100, 200, 500],
        "flashlight": [50, 200, 500],
        "flashlight_sum": [50],
    },
    "letters": {side: [100] for side in ["fastctc", "fastctc_cut", *PEERS]},
}
QUICK_BEAMS = [4, 8]

Row = dict[str, Any]  # of the result


def searchers(case: Case, options: argparse.Namespace, notes: list[str]) -> dict[str, Searcher]:
    """Return fastctc and the peers that can be used for a case."""
    ours = Fastctc(case)
    sides: dict[str, Searcher] = {"fastctc": ours, "fastctc_cut": ours.cut()}
    for name in options.usable:
        if case.name in PEERS[name].cases:
            try:
                sides[name] = PEERS[name].make(case)
            except Exception as error:  # a peer may raise anything
                notes.append(f"{name} failed ({first_line(error)}): not timed")
    return sides


def first_line(error: Exception) -> str:
    return (str(error) or repr(error)).splitlines()[0]


def tune(searcher: Searcher, case: Case, beam: int) -> Weights:
    """Return the weights of the grid with the fewest errors on a case; the first of equals."""
    prepared = searcher.prepare(case.utterances)
    rates = {
        weights: word_error_rate(case.references, searcher.tune(beam, weights)(prepared)) for weights in GRID
    }
    return min(rates, key=lambda weights: rates[weights])


def entries(row: Row, sides: dict[str, Searcher], options: argparse.Namespace) -> list[Row]:
    """Return an entry per side and beam with the weights to use."""
    tuning = CASES[row["case"]](options.folder, "tuning").first(options.limit) if options.tune else None
    found = []
    for name, searcher in sides.items():
        for beam in QUICK_BEAMS if options.quick else options.beams or BEAMS[row["case"]][name]:
            weights = tune(searcher, tuning, beam) if tuning else weights_of(row["case"], name, beam)
            found.append({"side": name, "beam": beam, **weights._asdict()})
            tqdm.write(f"{row['case']}: {name} at beam {beam}: {weights}", file=sys.stderr)
    return found


def search_words(row: Row, case: Case, sides: dict[str, Searcher], options: argparse.Namespace) -> None:
    """Add the word error rate and the time of each entry of a row; remove what fails."""
    runs: dict[str, Side] = {}
    for entry in list(row["entries"]):
        searcher, weights = sides[entry["side"]], Weights(entry["lm_weight"], entry["word_bonus"])
        try:
            search, prepared = searcher.tune(entry["beam"], weights), searcher.prepare(case.utterances)
            found: Words = search(prepared)
            entry["word_error_rate"] = word_error_rate(case.references, found)
        except Exception as error:
            if isinstance(searcher, Fastctc):
                raise
            row["notes"].append(f"{entry['side']} failed ({first_line(error)}): not timed")
            row["entries"].remove(entry)
            continue
        ours = sides["fastctc"]
        if case.separator is not None and isinstance(ours, Fastctc) and searcher is not ours:
            entry |= margin(ours, case, entry["beam"], weights, found)
        runs[name_of(entry)] = Side(lambda _, search=search, prepared=prepared: search(prepared))  # type: ignore[misc]
    times = measure_cpu(runs, options.seconds, options.quick)
    for entry in row["entries"]:
        entry |= times[name_of(entry)]
        entry["frame_us"] = entry["median_ms"] * 1e3 / case.frames


def name_of(entry: Row) -> str:
    return f"{entry['side']} {entry['beam']}"


def word_row(name: str, options: argparse.Namespace) -> Row:
    """Return the word error rates and the times of a case, unless fastctc is wrong."""
    case = CASES[name](options.folder, "report").first(options.limit)
    row: Row = {"case": name, "utterances": len(case.utterances), "frames": case.frames, "notes": []}
    row |= {"words": sum(map(len, case.references)), "entries": [], "refused": False}
    sides = searchers(case, options, row["notes"])
    ours = sides["fastctc"]
    assert isinstance(ours, Fastctc)
    row["entries"] = entries(row, sides, options)
    first = row["entries"][0]
    if wrong := faults(ours, case, Weights(first["lm_weight"], first["word_bonus"]), options.quick):
        row |= {"refused": True, "entries": []}
        row["notes"] += [f"fastctc is wrong: {each}: not timed" for each in wrong]
        return row
    search_words(row, case, sides, options)
    return row


def run(result: dict[str, Any], options: argparse.Namespace) -> None:
    """Fill `result`, showing progress on stderr."""
    if "words" in options.parts:
        for name in tqdm(options.cases, unit="case", file=sys.stderr, disable=None):
            result["results"].append(word_row(name, options))
    if "tokens" in options.parts:
        result["tokens"] = token_rows(options.usable, options.seconds, options.quick)
    if "load" in options.parts:
        result["load"] = load_row(options.folder, options.seconds, options.quick)
    if "memory" in options.parts:
        sides = {case: ["fastctc", *(n for n in options.usable if case in PEERS[n].cases)] for case in CASES}
        result["memory"] = memory_rows(options.folder, {case: sides[case] for case in options.cases})


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="as prepare_speech.py makes it")
    add("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    add("--cases", nargs="+", choices=list(CASES), default=list(CASES), help="default: both")
    add(
        "--peers",
        nargs="+",
        choices=[*PEERS, "none"],
        metavar="NAME",
        default=list(PEERS),
        help=f"of {', '.join(PEERS)}, or none (default: all that can be used)",
    )
    add("--beams", nargs="+", type=int, metavar="W", help="of all sides (default: as BEAMS in this file)")
    add("--tune", action="store_true", help="tune the weights of each side and beam anew, by a grid")
    add("--limit", type=int, metavar="N", help="the first N utterances of a half alone")
    add("--seconds", type=float, default=3.0, help="of timing for each row, at the least (default: 3)")
    add("--quick", action="store_true", help="two utterances, small beams, three samples: a smoke test")
    add("--out", type=Path, metavar="DIR", help="write JSON, Markdown and plots there")
    add("--note", default="", help="goes into the result, e.g. how busy the machine was")
    options = parser.parse_args(argv)
    options.peers = [name for name in options.peers if name != "none"]
    options.device = "cpu"
    if options.quick:
        options.limit = min(options.limit or 2, 2)
    return options


def main(argv: list[str] | None = None) -> int:
    """Return the exit status: 0, or 1 if fastctc was wrong or the folder lacks a file."""
    options = parse(argv)
    try:
        check_folder(options.folder)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    torch.set_num_threads(1)
    options.usable, missing = word_decoders.choose(options.peers)
    result = report.begin("word_search", options)
    result |= {"peers": options.usable, "not_installed": missing, "tuned": options.tune}
    run(result, options)
    text = word_report.markdown(result)
    print(text, end="")
    if options.out:
        path = report.write(options.out, result, text)
        print(path, *word_plots.write(path, result), sep="\n")
    rows = [*result["results"], *result.get("tokens", [])]
    return 1 if any(row["refused"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
