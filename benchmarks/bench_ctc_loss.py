"""fastctc.ctc_loss against the CTC losses of PyTorch, cuDNN, optax and Paddle: loss and gradient.

All are checked against PyTorch's float64 result before anything is timed, and a wrong fastctc is not timed.
They run in one process, taking turns; the figures are medians and what counts are their ratios. Peers that are
not installed are left out. On CUDA, cuDNN's loss is there where PyTorch would use it, and a captured graph of
fastctc (no launch gaps); the inputs rotate so that the L2 cache does not hold them; and beside each figure
stands its floor: the bytes that must move over the copy bandwidth measured here.

Beside the table of shapes there are sweeps of one size at a time (--sweep), the accuracy on long inputs
(--accuracy) and the memory that a call needs at most (a column of the table).
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

import accuracy
import memory
import peers
import report
from cases import BASE, INPUTS, LENGTHS, LONG, SHAPES, SWEEPS, Case, Shape, draw, reference, scores_of, sweep
from peers import Peer
from timing import Side, buffers, graph_side, measure

EXAMPLES = """examples:
  python benchmarks/bench_ctc_loss.py --quick                                    does it run?
  python benchmarks/bench_ctc_loss.py --threads 1 --shapes A B --out results     two shapes
  python benchmarks/bench_ctc_loss.py --threads 1 --sweep T C --shapes none      only two sweeps
  python benchmarks/bench_ctc_loss.py --threads 1 --accuracy --shapes none       only the accuracy
  python benchmarks/bench_ctc_loss.py --threads 1 --lengths fixed varied --sweep all --accuracy --out results
  python benchmarks/bench_ctc_loss.py --device cuda --out results --note "idle machine"     on a GPU
  python benchmarks/plots.py results/ctc_loss-*.json                             the plots anew
"""
# Of the summed loss, relatively; of the gradient of the logits, relatively to its largest entry.
TOLERANCES = 1e-5, 1e-5  # fastctc beyond them is refused
PEER_TOLERANCES = 1e-3, 0.5  # a peer beyond them is left out; float32 in log-space is that inexact

Row = dict[str, Any]  # of the result


def errors(peer: Peer, scores: Tensor, from_logits: bool, expected: tuple[float, Tensor]) -> dict[str, float]:
    """Return the relative errors of the loss and of the gradient of the logits; NaN if they are NaN."""
    value, gradient = peer.result(*peer(peer.prepare(scores)))
    if not from_logits:  # through the log-softmax, as its backward does it
        gradient = gradient - scores.detach().double().cpu().exp() * gradient.sum(-1, keepdim=True)
    off = (gradient - expected[1]).abs().max() / expected[1].abs().max()
    return {"loss_error": abs(value / expected[0] - 1), "gradient_error": float(off)}


def within(found: dict[str, float], loss_error: float, gradient_error: float) -> bool:
    return found["loss_error"] <= loss_error and found["gradient_error"] <= gradient_error


def check(row: Row, sides: dict[str, Peer], scores: Tensor, expected: tuple[float, Tensor]) -> None:
    """Record each side's errors and whether fastctc is refused; remove peers that are not to be timed."""
    for side, peer in list(sides.items()):
        try:
            row["sides"][side] = errors(peer, scores, row["input"] == "logits", expected)
            right = within(row["sides"][side], *(TOLERANCES if side == "fastctc" else PEER_TOLERANCES))
            reason = "is wrong"
        except Exception as error:  # a peer may raise anything
            if side == "fastctc" and not isinstance(error, RuntimeError):
                raise
            right, reason = False, f"failed ({(str(error) or repr(error)).splitlines()[0]})"
        if not right:
            row["notes"].append(f"{side} {reason}: not timed")
            row["refused"] |= side == "fastctc"
            del sides[side]


def sides_to_time(row: Row, sides: dict[str, Peer], inputs: list[Tensor]) -> dict[str, Side]:
    """Return a call per peer on input after input; on CUDA also a graph of fastctc's."""

    def side(peer: Peer) -> Side:
        prepared = [peer.prepare(each) for each in inputs]
        return Side(lambda i: peer(prepared[i % len(prepared)]))

    result = {name: side(peer) for name, peer in sides.items()}
    if inputs[0].is_cuda:
        try:
            result["fastctc_graph"] = graph_side(lambda each: sides["fastctc"](each)[1], inputs)
        except RuntimeError as error:
            row["notes"].append(f"no CUDA graph: {str(error).splitlines()[0]}")
    return result


def floor_bytes(shape: Shape, from_logits: bool, cache: int) -> int:
    """Return the bytes that must move.

    The gradient is written. Logits are read for their softmax and again for the gradient, from the cache if they
    fit. Log-probabilities are read only where there is a label.
    """
    whole = 4 * shape.T * shape.N * shape.C
    if from_logits:
        return whole * (3 if whole > cache else 2)
    return whole + 4 * shape.T * shape.N * min(shape.C, shape.S + 1)


def add_memory(row: Row, sides: dict[str, Peer], scores: Tensor, probe: memory.Probe | None) -> None:
    """Add the extra bytes of the sides in PyTorch; on the CPU `probe` measures them."""
    sizes = {}
    for side in [side for side in memory.SIDES if side in sides]:
        if scores.is_cuda:
            sizes[side] = memory.extra_on_cuda(sides[side], scores)
        elif probe:
            try:
                shape = Shape(*(row[size] for size in "TNCS"))
                sizes[side] = probe.extra(side, shape, row["lengths"], row["input"])
            except RuntimeError as error:
                row["notes"].append(f"memory of {side}: {error}")
    for side, size in sizes.items():
        row["sides"][side]["extra_bytes"] = size
    if len(sizes) == 2 and sizes["fastctc"] > memory.RESOLUTION:
        row["memory_ratio"] = sizes["torch"] / sizes["fastctc"]


def bench(
    name: str,
    shape: Shape,
    lengths: str,
    kinds: list[str],
    result: dict[str, Any],
    options: argparse.Namespace,
    probe: memory.Probe | None = None,
) -> Iterator[Row]:
    """Return a row per kind of input: the errors of each side and, unless fastctc is wrong, times and memory."""
    device, cache = torch.device(options.device), result["machine"].get("l2_bytes", 0)
    case, logits = draw(shape, lengths)
    expected = reference(logits, case)
    for kind in kinds:
        row: Row = {"shape": name, **asdict(shape), "lengths": lengths, "input": kind}
        row |= {"sides": {}, "notes": [], "refused": False}
        scores = scores_of(logits, kind).to(device)
        row["buffers"] = buffers(scores.numel() * 4, cache)
        inputs = [scores.clone().requires_grad_() for _ in range(row["buffers"])]
        sides = sides_of(case, inputs[0], kind, result, options)
        check(row, sides, inputs[0], expected)
        if not row["refused"]:
            for side, times in measure(
                sides_to_time(row, sides, inputs), device, options.seconds, options.quick
            ).items():
                row["sides"].setdefault(side, {}).update(times)
            ours = row["sides"]["fastctc"]["median_ms"]
            row["ratio"] = {
                peer: row["sides"][peer]["median_ms"] / ours for peer in sides if peer != "fastctc"
            }
            add_memory(row, sides, inputs[0], probe)
            if cache:
                moved = floor_bytes(shape, kind == "logits", cache)
                row["floor_ms"] = moved / result["machine"]["copy_bytes_per_s"] * 1e3
        yield row


def sides_of(
    case: Case, scores: Tensor, kind: str, result: dict[str, Any], options: argparse.Namespace
) -> dict[str, Peer]:
    """Return fastctc and the selected peers that are available."""
    sides = peers.in_torch(case, scores, kind == "logits")
    sides = {side: peer for side, peer in sides.items() if side == "fastctc" or side in options.peers}
    return sides | peers.others(case, list(result["peers"]))


def choose_peers(options: argparse.Namespace) -> dict[str, Any]:
    """Return the peers outside PyTorch for this device: those installed, with versions, and those missing."""
    on_cpu = torch.device(options.device).type == "cpu"
    versions = {name: peers.version(name) for name in peers.OTHERS if on_cpu and name in options.peers}
    return {
        "peers": {name: version for name, version in versions.items() if version},
        "not_installed": [name for name, version in versions.items() if not version],
    }


def run(result: dict[str, Any], options: argparse.Namespace) -> None:
    """Fill `result`, showing progress on stderr."""
    shapes = [] if "none" in options.shapes else options.shapes
    swept = {variable: sweep(BASE, SWEEPS, variable, options.quick) for variable in options.sweep}
    long = [Shape(200, 2, 32, 40)] if options.quick else LONG
    total = len(shapes) * len(options.lengths) * len(options.input) + sum(map(len, swept.values()))
    total += len(long) * options.accuracy
    on_cpu = torch.device(options.device).type == "cpu"
    probe = (
        memory.Probe(result["threads"])
        if shapes and options.memory and on_cpu and memory.possible()
        else None
    )
    with (
        tqdm(total=total, file=sys.stderr, unit="row", disable=None) as bar,
        closing(probe) if probe else nullcontext(),
    ):

        def add(rows: list[Row], row: Row, *what: object) -> None:
            rows.append(row)
            ratios = [f"{peer} / fastctc {ratio:.2f}" for peer, ratio in row.get("ratio", {}).items()]
            tqdm.write(", ".join(map(str, [*what, *ratios, *row.get("notes", [])])), file=sys.stderr)
            bar.update()
            if options.out:  # now, in case the run is cut off
                report.write(options.out, result, report.markdown(result))

        for name, lengths in itertools.product(shapes, options.lengths):
            shape = SHAPES[name].quick() if options.quick else SHAPES[name]
            for row in bench(name, shape, lengths, options.input, result, options, probe):
                add(result["results"], row, name, lengths, row["input"])
        for variable, points in swept.items():
            swept_rows = result["sweeps"].setdefault(variable, [])
            for shape in points:
                name = f"{variable} = {getattr(shape, variable)}"
                for row in bench(name, shape, "fixed", ["logits"], result, options):
                    add(swept_rows, row, name)
        if options.accuracy:
            for row in accuracy.rows(long, options.seeds, torch.device(options.device)):
                add(result["accuracy"], row, f"T = {row['T']}, errors", *row["worst"].values())


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--shapes", nargs="+", choices=[*SHAPES, "none"], default=list(SHAPES), metavar="A..G", help="or none"
    )
    add("--input", nargs="+", choices=INPUTS, default=INPUTS)
    add("--lengths", nargs="+", choices=LENGTHS, default=["fixed"], help="default: fixed")
    add(
        "--peers", nargs="+", choices=peers.NAMES, default=peers.NAMES, help="default: all that are installed"
    )
    add(
        "--sweep",
        nargs="+",
        choices=[*SWEEPS, "all"],
        default=[],
        help="time against these sizes (from logits)",
    )
    add("--accuracy", action="store_true", help="gradient errors on long inputs")
    add("--seeds", type=int, default=3, help="of --accuracy (default: 3)")
    add("--no-memory", dest="memory", action="store_false", help="do not measure memory")
    add("--device", default="cpu", help="cpu or cuda")
    add("--threads", type=int, help="CPU threads (default: PyTorch's)")
    add("--seconds", type=float, default=3.0, help="of timing for each row (default: 3)")
    add("--quick", action="store_true", help="small shapes, three samples: a smoke test")
    add("--out", type=Path, metavar="DIR", help="write JSON, Markdown and plots there")
    add("--note", default="", help="goes into the result, e.g. how busy the machine was")
    options = parser.parse_args(argv)
    if "all" in options.sweep:
        options.sweep = list(SWEEPS)
    return options


def main(argv: list[str] | None = None) -> int:
    """Return the exit status: 0, or 1 if fastctc was wrong somewhere."""
    options = parse(argv)
    if options.threads:
        torch.set_num_threads(options.threads)
    result = report.begin("ctc_loss", options) | choose_peers(options) | {"accuracy": []}
    if result["peers"]:
        peers.limit_threads(result["threads"])
    run(result, options)
    text = report.markdown(result)
    print(text, end="")
    if options.out:
        report.save(options.out, result, text)
    timed = itertools.chain(result["results"], *result["sweeps"].values())
    return 1 if any(row["refused"] for row in timed) else 0


if __name__ == "__main__":
    sys.exit(main())
