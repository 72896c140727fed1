"""fastctc.forced_align against torchaudio's, which takes one sample at a time: batches are looped over for it.

Both are checked before anything is timed: the scores belong to a path that spells the target, and add up to
the best that torchaudio finds in float64. They run in one process, taking turns; the figures are medians and what
counts are their ratios. torchaudio may be missing.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

import fastctc
import memory
import report
from cases import INPUTS, LENGTHS, Case, Shape, draw, scores_of
from timing import Side, measure

EXAMPLES = """examples:
  python benchmarks/bench_forced_align.py --quick                                     does it run?
  python benchmarks/bench_forced_align.py --threads 1 --out benchmarks/results        a CPU result
  python benchmarks/bench_forced_align.py --threads 1 --shapes A D --lengths varied   batches of varied lengths
  python benchmarks/bench_forced_align.py --device cuda --out benchmarks/results      on a GPU
"""
SHAPES = {
    "A": Shape(1500, 1, 32, 300),  # half a minute of speech as characters
    "B": Shape(15000, 1, 32, 2500),  # five minutes
    "C": Shape(100_000, 1, 32, 10_000),  # half an hour
    "D": Shape(1500, 32, 32, 150),
    "E": Shape(150, 32, 100, 40),  # lines of text
    "F": Shape(1000, 8, 5000, 100),  # word pieces
}
TOLERANCE = 1e-6  # of the sum of scores, relatively

Row = dict[str, Any]
Align = Callable[[Tensor], tuple[list[Tensor], list[Tensor]]]  # paths and scores of each sample


def in_fastctc(case: Case, kind: str) -> Align:
    """Return a call of fastctc on scores (N, T, C)."""
    targets, lengths = case.targets, (list(case.input_lengths), list(case.target_lengths))

    def align(scores: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        paths, best = fastctc.forced_align(scores, targets, *lengths, from_logits=kind == "logits")
        return list(paths), list(best)

    return align


def in_torchaudio(case: Case, kind: str) -> Align:
    """Return a call of torchaudio, sample by sample; a log-softmax is computed for the whole batch."""
    theirs = importlib.import_module("torchaudio.functional").forced_align

    def align(scores: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        log_probs = scores.log_softmax(-1) if kind == "logits" else scores
        results = [
            theirs(log_probs[n : n + 1, :frames].contiguous(), targets[n : n + 1, :labels].contiguous())
            for n, (frames, labels) in enumerate(zip(case.input_lengths, case.target_lengths))
        ]
        return [paths[0] for paths, _ in results], [best[0] for _, best in results]

    targets = case.targets
    return align


SIDES = {"fastctc": in_fastctc, "torchaudio": in_torchaudio}


def available(side: str) -> str | None:
    """Return the version; None if torchaudio is not installed or does not load."""
    try:
        module = importlib.import_module(side)
    except (ImportError, OSError):
        return None
    return str(module.__version__)


def check(
    align: Align, case: Case, logits: Tensor, kind: str, best: list[float] | None
) -> tuple[bool, float]:
    """Return whether every path spells its target with its scores, and the largest distance from the best score."""
    scores = batch_first(logits, kind)
    log_probs = scores.double().log_softmax(-1) if kind == "logits" else scores.double()
    right, worst = True, 0.0
    for n, (path, found) in enumerate(zip(*align(scores))):
        frames = case.input_lengths[n]
        path, found = path[:frames].cpu(), found[:frames].cpu().double()
        tokens = [span.token for span in fastctc.merge_tokens(path, found)]
        right &= tokens == case.targets[n, : case.target_lengths[n]].tolist()
        expected = log_probs[n, :frames].cpu().gather(1, path[:, None].long())[:, 0]
        right &= torch.allclose(found, expected, rtol=1e-5, atol=1e-5)
        if best:
            worst = max(worst, abs(float(found.sum()) / best[n] - 1))
    return right, worst


def batch_first(logits: Tensor, kind: str) -> Tensor:
    """Return (N, T, C) scores of (T, N, C) logits."""
    return scores_of(logits, kind).transpose(0, 1).contiguous()


def best_scores(case: Case, logits: Tensor) -> list[float]:
    """Return torchaudio's scores in float64."""
    exact = batch_first(logits, "log-probs").double()
    return [float(best.sum()) for best in in_torchaudio(case, "log-probs")(exact)[1]]


def bench(
    name: str, shape: Shape, lengths: str, kind: str, options: argparse.Namespace, sides: list[str]
) -> Row:
    """Return the times of each side, unless it is wrong."""
    device = torch.device(options.device)
    case, logits = on_device(options.device, *draw(shape, lengths))
    row: Row = {"shape": name, **asdict(shape), "lengths": lengths, "input": kind}
    row |= {"sides": {}, "notes": [], "refused": False}
    best = None
    if "torchaudio" in sides:
        try:
            best = best_scores(case, logits)
        except Exception as error:  # a peer may raise anything
            row["notes"].append(
                f"torchaudio failed ({(str(error) or repr(error)).splitlines()[0]}): not timed"
            )
            sides = [side for side in sides if side != "torchaudio"]
    to_time: dict[str, Side] = {}
    scores = batch_first(logits, kind)
    for side in sides:
        align = SIDES[side](case, kind)
        right, error = check(align, case, logits, kind, best)
        row["sides"][side] = {"error": error}
        if not right or (side == "fastctc" and error > TOLERANCE):
            row["notes"].append(f"{side} is wrong: not timed")
            row["refused"] |= side == "fastctc"
            continue
        to_time[side] = Side(lambda _, align=align: align(scores))
    if row["refused"]:
        return row
    for side, times in measure(to_time, device, options.seconds, options.quick).items():
        row["sides"][side] |= times
    ours = row["sides"]["fastctc"]["median_ms"]
    row["ratio"] = {s: row["sides"][s]["median_ms"] / ours for s in to_time if s != "fastctc"}
    if options.memory and not options.quick:
        for side in to_time:
            if scores.is_cuda:
                align = SIDES[side](case, kind)
                size, _ = memory.peak_on_cuda(lambda align=align: align(scores))
            else:
                size = extra_bytes(side, shape, lengths, kind, options)
            row["sides"][side]["extra_bytes"] = size
    return row


def extra_bytes(side: str, shape: Shape, lengths: str, kind: str, options: argparse.Namespace) -> int:
    """Return the most memory that a call on the CPU needs beyond its input, from the peak of a fresh process."""
    request = {"side": side, "lengths": lengths, "kind": kind, **asdict(shape)}
    command = [sys.executable, str(Path(__file__).resolve()), "--probe", json.dumps(request)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed leaves the process
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return int(done.stdout)


def probe(side: str, lengths: str, kind: str, **sizes: int) -> int:
    torch.set_num_threads(1)
    case, logits = draw(Shape(16, 1, 8, 3))
    SIDES[side](case, kind)(batch_first(logits, kind))  # everything is loaded now
    case, logits = draw(Shape(**sizes), lengths)
    align, scores = SIDES[side](case, kind), batch_first(logits, kind)
    del logits
    memory.map_libraries()
    memory.reset_peak()
    before = peak()
    align(scores)
    return peak() - before


def peak() -> int:
    """Return the peak memory of this process in bytes since the reset; getrusage would add the parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def on_device(device: str, case: Case, logits: Tensor) -> tuple[Case, Tensor]:
    return replace(case, targets=case.targets.to(device)), logits.to(device)


def markdown(result: dict[str, Any]) -> str:
    machine, versions = result["machine"], result["versions"]
    where = machine.get("gpu", f"{machine['cpu']} ({machine['instruction_set']})")
    sides = [
        side for side in SIDES if any("median_ms" in r["sides"].get(side, {}) for r in result["results"])
    ]
    peers = [side for side in sides if side != "fastctc"]
    columns = ["shape", "T, N, C, S", "lengths", "from", *(f"{side} ms" for side in sides)]
    columns += [f"{peer} / fastctc" for peer in peers]
    columns += [f"{side} MB" for side in sides] + [f"{side}'s error" for side in sides] + ["notes"]
    lines = []
    for row in result["results"]:
        of = row["sides"]
        cells = [row["shape"], ", ".join(str(row[size]) for size in "TNCS"), row["lengths"], row["input"]]
        cells += [report.number(of.get(side, {}).get("median_ms"), ".3f") for side in sides]
        cells += [report.number(row.get("ratio", {}).get(peer), ".1f", "**") for peer in peers]
        cells += [report.megabytes(of.get(side, {}).get("extra_bytes")) for side in sides]
        cells += [report.number(of.get(side, {}).get("error"), ".1e") for side in sides]
        lines.append([*cells, "; ".join(row["notes"])])
    found = ", ".join(f"{name} {version}" for name, version in result["peers"].items() if version)
    return "\n".join(
        [
            f"`forced_align`, float32. {where}; {result['threads']} CPU thread(s), load average "
            f"{machine['load_average'][0]:.1f} on {machine['cores']} core(s); PyTorch {versions['torch']}, "
            f"{found}; {result['date']}. {result['note']}".rstrip(),
            "",
            *report.table(columns, lines),
            "",
            "MB: the most memory a call needs beyond its input. Errors: of the sum of a sample's scores, against "
            "the best path in float64, relatively.",
            "",
        ]
    )


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES), metavar="A..F")
    add("--input", nargs="+", choices=INPUTS, default=["log-probs", "logits"])
    add("--lengths", nargs="+", choices=LENGTHS, default=["fixed"], help="default: fixed")
    add("--no-memory", dest="memory", action="store_false", help="do not measure memory")
    add("--device", default="cpu", help="cpu or cuda")
    add("--threads", type=int, help="CPU threads (default: PyTorch's)")
    add("--seconds", type=float, default=3.0, help="of timing for each row (default: 3)")
    add("--quick", action="store_true", help="small shapes, three samples: a smoke test")
    add("--out", type=Path, metavar="DIR", help="write JSON and Markdown there")
    add("--note", default="", help="goes into the result, e.g. how busy the machine was")
    add("--probe", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Return the exit status: 0, or 1 if fastctc was wrong somewhere."""
    options = parse(argv)
    if options.probe:
        request = json.loads(options.probe)
        print(probe(**request))
        return 0
    if options.threads:
        torch.set_num_threads(options.threads)
    options.memory &= options.device != "cpu" or memory.possible()
    versions = {side: available(side) for side in SIDES}
    result: dict[str, Any] = {
        "benchmark": "forced_align",
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": report.describe_machine(torch.device(options.device)),
        "versions": report.describe_versions(),
        "peers": versions,
        "device": options.device,
        "threads": torch.get_num_threads(),
        "quick": options.quick,
        "note": options.note,
        "results": [],
    }
    saved: Path | None = None
    todo = list(itertools.product(options.shapes, options.lengths, options.input))
    for name, lengths, kind in tqdm(todo, file=sys.stderr, unit="row", disable=None):
        shape = SHAPES[name].quick() if options.quick else SHAPES[name]
        row = bench(name, shape, lengths, kind, options, [side for side, v in versions.items() if v])
        result["results"].append(row)
        ratios = [f"{peer} / fastctc {ratio:.1f}" for peer, ratio in row.get("ratio", {}).items()]
        tqdm.write(", ".join([name, lengths, kind, *ratios, *row["notes"]]), file=sys.stderr)
        if options.out:
            saved = report.write(options.out, result, markdown(result))
    print(markdown(result), end="")
    if saved:
        print(saved)
    return 1 if any(row["refused"] for row in result["results"]) else 0


if __name__ == "__main__":
    sys.exit(main())
