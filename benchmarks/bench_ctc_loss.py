"""fastctc.ctc_loss against torch.nn.functional.ctc_loss: loss and gradient, from logits and from log-probs.

Both are checked against PyTorch's float64 result before anything is timed, and a wrong fastctc is not timed.
They run in one process, taking turns; the figures are medians and what counts is their ratio. On CUDA,
cuDNN's loss is a third side where PyTorch would use it (int32 targets, blank 0, at most 256 labels) and a
captured graph of fastctc a fourth (no launch gaps); the inputs rotate so that the L2 cache does not hold
them; and beside each figure stands its floor: the bytes that must move over the copy bandwidth measured here.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import fastctc

EXAMPLES = """examples:
  python benchmarks/bench_ctc_loss.py --quick
  python benchmarks/bench_ctc_loss.py --threads 1 --shapes A B --out benchmarks/results
  python benchmarks/bench_ctc_loss.py --device cuda --out results --note "idle machine"
"""
# Of the summed loss, relatively; of the gradient of the logits, relatively to its largest entry.
TOLERANCES = 1e-5, 1e-5  # fastctc beyond them is refused
PEER_TOLERANCES = 1e-3, 0.5  # a peer beyond them is left out; float32 in log-space is that inexact
INPUTS = ["logits", "log-probs"]
L2_SHARE = 2  # the inputs together are so many times the L2 cache

Row = dict[str, Any]  # of the result
Loss = Callable[[Tensor], Tensor]  # from logits or log-probs to the sum of a batch's losses


@dataclass(frozen=True)
class Shape:
    T: int
    N: int
    C: int
    S: int

    def quick(self) -> Shape:
        return Shape(min(self.T, 50), min(self.N, 2), min(self.C, 100), min(self.S, 10))


SHAPES = {
    "A": Shape(36, 256, 18, 12),
    "B": Shape(100, 64, 37, 20),
    "C": Shape(150, 32, 100, 40),
    "D": Shape(500, 16, 32, 100),
    "E": Shape(1000, 8, 5000, 100),
    "F": Shape(250, 32, 5000, 60),
    "G": Shape(2000, 4, 32, 400),
}


@dataclass(frozen=True)
class Side:
    """Something to be timed: `run(i)` makes `calls` calls, the first on the i-th input."""

    run: Callable[[int], object]
    calls: int = 1


def loss_and_gradient(loss: Loss, scores: Tensor) -> tuple[Tensor, Tensor]:
    value = loss(scores)
    (gradient,) = torch.autograd.grad(value, scores)
    return value.detach(), gradient


def losses(shape: Shape, targets: Tensor, scores: Tensor, from_logits: bool) -> dict[str, Loss]:
    """The functions to compare, each with its arguments as it likes them best."""
    device = scores.device
    lengths = (shape.T,) * shape.N, (shape.S,) * shape.N
    lengths_there = [torch.tensor(each, device=device) for each in lengths]
    targets_there = targets.to(device)
    targets_of_cudnn = targets.flatten().int()

    def ours(scores: Tensor) -> Tensor:
        return fastctc.ctc_loss(
            scores, targets_there, *lengths_there, reduction="sum", from_logits=from_logits
        )

    def torchs(targets: Tensor) -> Loss:
        if from_logits:
            return lambda logits: F.ctc_loss(logits.log_softmax(-1), targets, *lengths, reduction="sum")
        return lambda log_probs: F.ctc_loss(log_probs, targets, *lengths, reduction="sum")

    sides = {"fastctc": ours, "torch": torchs(targets_there)}
    if device.type == "cuda" and torch._use_cudnn_ctc_loss(scores.detach(), targets_of_cudnn, *lengths, 0):
        sides["cudnn"] = torchs(targets_of_cudnn)
    return sides


def reference(logits: Tensor, targets: Tensor, shape: Shape) -> tuple[float, Tensor]:
    """PyTorch's loss and gradient of the logits in float64 on the CPU."""
    exact = logits.detach().double().cpu().requires_grad_()
    lengths = (shape.T,) * shape.N, (shape.S,) * shape.N
    loss = F.ctc_loss(exact.log_softmax(-1), targets, *lengths, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, exact)
    return float(loss.detach()), gradient


def errors(loss: Loss, scores: Tensor, from_logits: bool, expected: tuple[float, Tensor]) -> dict[str, float]:
    """How far off the loss and the gradient of the logits are, relatively; NaN if they are NaN."""
    value, gradient = loss_and_gradient(loss, scores)
    gradient = gradient.double().cpu()
    if not from_logits:  # through the log-softmax, as its backward does it
        gradient -= scores.detach().double().cpu().exp() * gradient.sum(-1, keepdim=True)
    off = (gradient - expected[1]).abs().max() / expected[1].abs().max()
    return {"loss_error": abs(float(value) / expected[0] - 1), "gradient_error": float(off)}


def within(found: dict[str, float], loss_error: float, gradient_error: float) -> bool:
    return found["loss_error"] <= loss_error and found["gradient_error"] <= gradient_error


def graph_side(loss: Loss, inputs: list[Tensor]) -> Side:
    """A CUDA graph of one call on every input; its last gradient must be the one that a plain call gives."""
    expected = loss_and_gradient(loss, inputs[-1])[1]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for each in inputs:
            last = loss_and_gradient(loss, each)[1]
    graph.replay()
    if not torch.equal(last, expected):
        raise RuntimeError("the replayed gradient differs")
    return Side(lambda _: graph.replay(), len(inputs))


def milliseconds(side: Side, first: int, runs: int, device: torch.device) -> float:
    """For one call."""
    if device.type == "cpu":
        start = time.perf_counter()
        for i in range(first, first + runs):
            side.run(i)
        return (time.perf_counter() - start) * 1e3 / (runs * side.calls)
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
    events[0].record()
    for i in range(first, first + runs):
        side.run(i)
    events[1].record()
    events[1].synchronize()
    return events[0].elapsed_time(events[1]) / (runs * side.calls)


def measure(sides: dict[str, Side], device: torch.device, seconds: float, quick: bool) -> dict[str, Any]:
    """The sides take turns for about `seconds`: the quartiles of the milliseconds that a call takes."""
    runs, total = {}, 0.0
    for name, side in sides.items():
        milliseconds(side, 0, 1 if quick else 2, device)  # warm-up
        once = milliseconds(side, 0, 1, device) * side.calls
        runs[name] = 1 if quick else max(1, min(100, math.ceil(2 / once)))
        total += runs[name] * once
    rounds = 3 if quick else max(5, min(200, int(seconds * 1e3 / total)))
    samples: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds):
        for name in list(sides)[:: 1 if turn % 2 else -1]:
            samples[name].append(milliseconds(sides[name], turn * runs[name], runs[name], device))
    result = {}
    for name, each in samples.items():
        low, median, high = statistics.quantiles(each, n=4)
        result[name] = {"median_ms": median, "quartiles_ms": [low, high], "samples": rounds}
    return result


def floor_bytes(shape: Shape, from_logits: bool, cache: int) -> int:
    """What must move: the gradient is written; logits are read for their softmax and again for the gradient
    (from the cache, if they fit), log-probs only where there is a label."""
    whole = 4 * shape.T * shape.N * shape.C
    if from_logits:
        return whole * (3 if whole > cache else 2)
    return whole + 4 * shape.T * shape.N * min(shape.C, shape.S + 1)


def copy_bandwidth(device: torch.device) -> float:
    """Bytes per second, read and written."""
    source = torch.randn(2**28, device=device)
    target = torch.empty_like(source)
    side = Side(lambda _: target.copy_(source))
    milliseconds(side, 0, 3, device)
    median = statistics.median(milliseconds(side, 0, 1, device) for _ in range(20))
    return 2 * source.numel() * 4 / (median / 1e3)


def check(row: Row, functions: dict[str, Loss], scores: Tensor, expected: tuple[float, Tensor]) -> None:
    """Notes each side's errors and whether fastctc is refused; removes peers that are not to be timed."""
    for side, loss in list(functions.items()):
        try:
            row["sides"][side] = errors(loss, scores, row["input"] == "logits", expected)
            right = within(row["sides"][side], *(TOLERANCES if side == "fastctc" else PEER_TOLERANCES))
            reason = "is wrong"
        except RuntimeError as error:
            right, reason = False, f"failed ({str(error).splitlines()[0]})"
        if not right:
            row["notes"].append(f"{side} {reason}: not timed")
            row["refused"] |= side == "fastctc"
            del functions[side]


def sides_to_time(row: Row, functions: dict[str, Loss], inputs: list[Tensor]) -> dict[str, Side]:
    """A call of each function on input after input; on CUDA a graph of fastctc's as well."""
    sides = {
        side: Side(lambda i, loss=loss: loss_and_gradient(loss, inputs[i % len(inputs)]))
        for side, loss in functions.items()
    }
    if inputs[0].is_cuda:
        try:
            sides["fastctc_graph"] = graph_side(functions["fastctc"], inputs)
        except RuntimeError as error:
            row["notes"].append(f"no CUDA graph: {str(error).splitlines()[0]}")
    return sides


def bench(name: str, kind: str, machine: dict[str, Any], options: argparse.Namespace) -> Row:
    """One row of the result: the errors of each side and, unless fastctc is wrong, its time."""
    shape = SHAPES[name].quick() if options.quick else SHAPES[name]
    device, cache = torch.device(options.device), machine.get("l2_bytes", 0)
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(1, shape.C, (shape.N, shape.S), generator=generator)
    logits = torch.randn(shape.T, shape.N, shape.C, generator=generator)
    scores = (logits if kind == "logits" else logits.double().log_softmax(-1).float()).to(device)
    count = min(64, math.ceil(L2_SHARE * cache / (scores.numel() * 4)) + 1)
    inputs = [scores.clone().requires_grad_() for _ in range(count)]

    row: Row = {"shape": name, **asdict(shape), "input": kind, "buffers": count}
    row |= {"sides": {}, "notes": [], "refused": False}
    functions = losses(shape, targets, inputs[0], kind == "logits")
    check(row, functions, inputs[0], reference(logits, targets, shape))
    if row["refused"]:
        return row
    sides = sides_to_time(row, functions, inputs)
    for side, times in measure(sides, device, options.seconds, options.quick).items():
        row["sides"].setdefault(side, {}).update(times)
    ours = row["sides"]["fastctc"]["median_ms"]
    row["ratio"] = {peer: row["sides"][peer]["median_ms"] / ours for peer in functions if peer != "fastctc"}
    if cache:
        moved = floor_bytes(shape, kind == "logits", cache)
        row["floor_ms"] = moved / machine["copy_bytes_per_s"] * 1e3
    return row


def describe_machine(device: torch.device) -> dict[str, Any]:
    """What the figures depend on."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(": ")[1] for line in lines if line.startswith("model name")), cpu)
    machine = {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "cores_allowed": len(os.sched_getaffinity(0)),
        "instruction_set": fastctc.build_info()["cpu_instruction_set"],
        "load_average": list(os.getloadavg()),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        machine |= {"gpu": properties.name, "l2_bytes": properties.L2_cache_size}
        machine["copy_bytes_per_s"] = copy_bandwidth(device)
    return machine


def describe_versions() -> dict[str, Any]:
    info = fastctc.build_info()
    del info["cpu_instruction_set"]
    cudnn = torch.backends.cudnn.version()
    return {"python": platform.python_version(), "fastctc": info.pop("version"), "cudnn": cudnn, **info}


def cell(row: dict[str, Any], side: str, key: str = "median_ms", form: str = ".3f") -> str:
    value = row["sides"].get(side, {}).get(key)
    return "" if value is None else format(value, form)


def markdown(result: dict[str, Any]) -> str:
    """The result as a table, with what it depends on above it."""
    machine, versions = result["machine"], result["versions"]
    where = machine.get("gpu", f"{machine['cpu']} ({machine['instruction_set']})")
    lines = [
        f"`ctc_loss`, loss and gradient, float32. {where}; {result['threads']} CPU thread(s), load average "
        f"{machine['load_average'][0]:.1f} on {machine['cores']} core(s); PyTorch {versions['torch']}, "
        f"fastctc {versions['fastctc']}; {result['date']}. {result['note']}".rstrip(),
        "",
    ]
    on_gpu = "gpu" in machine
    columns = ["shape", "T, N, C, S", "from", "torch ms", "fastctc ms", "torch / fastctc"]
    columns += ["cuDNN ms", "fastctc graph ms", "floor ms"] if on_gpu else []
    columns += ["torch's gradient error", "fastctc's", "notes"]
    lines += ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    for row in result["results"]:
        ratio = row.get("ratio", {}).get("torch")
        cells = [row["shape"], ", ".join(str(row[k]) for k in "TNCS"), row["input"]]
        cells += [cell(row, "torch"), cell(row, "fastctc"), f"**{ratio:.1f}**" if ratio else ""]
        if on_gpu:
            floor = f"{row['floor_ms']:.4f}" if "floor_ms" in row else ""
            cells += [cell(row, "cudnn"), cell(row, "fastctc_graph"), floor]
        cells += [cell(row, side, "gradient_error", ".1e") for side in ("torch", "fastctc")]
        cells.append("; ".join(row["notes"]))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def without_nan(value: Any) -> Any:
    """JSON has no NaN and no infinity: null."""
    if isinstance(value, dict):
        return {key: without_nan(each) for key, each in value.items()}
    if isinstance(value, list):
        return [without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write(folder: Path, result: dict[str, Any]) -> Path:
    """DIR/ctc_loss-DATE-MACHINE.json and .md, each complete or not there at all."""
    machine = result["machine"]
    kind = "cuda-" + machine["gpu"] if "gpu" in machine else "cpu-" + machine["instruction_set"]
    kind = kind.lower().replace(" ", "-").replace("/", "-") + ("-quick" if result["quick"] else "")
    path = folder / f"ctc_loss-{result['date'][:10]}-{kind}.json"
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        path: json.dumps(without_nan(result), indent=1, allow_nan=False) + "\n",
        path.with_suffix(".md"): markdown(result),
    }
    for final, text in texts.items():
        temporary = final.with_name(f"{final.name}.{os.getpid()}")
        temporary.write_text(text)
        temporary.replace(final)
    return path


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES), metavar="A..G")
    parser.add_argument("--input", nargs="+", choices=INPUTS, default=INPUTS)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of timing for each row (default: 3)")
    parser.add_argument("--quick", action="store_true", help="small shapes, three samples: a smoke test")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write JSON and Markdown there")
    parser.add_argument("--note", default="", help="goes into the result, e.g. how busy the machine was")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """The exit status: 0, or 1 if fastctc was wrong somewhere."""
    options = parse(argv)
    if options.threads:
        torch.set_num_threads(options.threads)
    result: dict[str, Any] = {
        "benchmark": "ctc_loss",
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": describe_machine(torch.device(options.device)),
        "versions": describe_versions(),
        "device": options.device,
        "threads": torch.get_num_threads(),
        "quick": options.quick,
        "note": options.note,
        "results": [],
    }
    for name, kind in itertools.product(options.shapes, options.input):
        row = bench(name, kind, result["machine"], options)
        result["results"].append(row)
        print(name, kind, row.get("ratio", ""), *row["notes"], file=sys.stderr, flush=True)
    print(markdown(result), end="")
    if options.out:
        print(write(options.out, result))
    return 1 if any(row["refused"] for row in result["results"]) else 0


if __name__ == "__main__":
    sys.exit(main())
