"""The time of each CUDA kernel in a few calls of fastctc, by torch.profiler; on a CPU the time of each op.

The times are of kernels alone, without gaps between launches. --once makes each call twice and measures nothing,
for a profiler that starts this program, such as ncu.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

import beam_cases
import fastctc
import report
from cases import Shape, draw

LOSSES = {"loss, characters": Shape(1024, 32, 128, 96), "loss, word pieces": Shape(250, 32, 5000, 60)}
BEAM = beam_cases.SHAPES["d"]
ALIGNMENT = Shape(1500, 32, 32, 150)
ROUNDS = 20

Call = Callable[[], object]


def calls(device: torch.device, quick: bool) -> dict[str, Call]:
    """Return a call for each case, whose inputs are on the device."""

    def loss(shape: Shape) -> Call:
        case, logits = draw(shape)
        logits = logits.to(device).requires_grad_()
        targets = case.targets.to(device)
        lengths = list(case.input_lengths), list(case.target_lengths)

        def run() -> object:
            total = fastctc.ctc_loss(logits, targets, *lengths, from_logits=True, reduction="sum")
            return torch.autograd.grad(total, logits)

        return run

    def alignment(shape: Shape) -> Call:
        case, logits = draw(shape)
        log_probs = logits.transpose(0, 1).log_softmax(-1).contiguous().to(device)
        targets = case.targets.to(device)
        return lambda: fastctc.forced_align(log_probs, targets, case.input_lengths, case.target_lengths)

    def beam(shape: beam_cases.Shape) -> Call:
        log_probs = beam_cases.draw(shape, "peaked").to(device)
        return lambda: fastctc.beam_search(log_probs, beam_size=shape.W, blank=beam_cases.BLANK)

    def size(shape: Any) -> Any:
        return shape.quick() if quick else shape

    result = {name: loss(size(shape)) for name, shape in LOSSES.items()}
    result["beam search, word pieces"] = beam(size(BEAM))
    return result | {"alignment, characters": alignment(size(ALIGNMENT))}


def short_name(kernel: str) -> str:
    """Return the name of a kernel without its namespace, its parameters and the namespaces of its arguments."""
    name = re.sub(r"\(anonymous namespace\)::|fastctc::|cuda::|^void ", "", kernel)
    return re.sub(r"\(.*", "", name)


def times(call: Call, device: torch.device, rounds: int) -> list[dict[str, Any]]:
    """Return the kernels (on a CPU the ops) of fastctc in a call: launches and microseconds, longest first."""
    call()
    on_cuda = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]
    with profile(activities=activities) as found:
        for _ in range(rounds):
            call()
        if on_cuda:
            torch.cuda.synchronize()
    rows = []
    for event in found.key_averages():
        if "fastctc" not in event.key or (event.device_type == DeviceType.CUDA) != on_cuda:
            continue
        spent = event.self_device_time_total if on_cuda else event.self_cpu_time_total
        row = {"kernel": short_name(event.key), "launches": event.count / rounds, "us": spent / rounds}
        rows.append(row)
    return sorted(rows, key=lambda row: -row["us"])


def markdown(result: dict[str, Any]) -> str:
    lines = []
    for row in result["results"]:
        for kernel in row["kernels"]:
            cells = [row["case"], f"`{kernel['kernel']}`", f"{kernel['launches']:g}", f"{kernel['us']:.1f}"]
            lines.append(cells)
        lines.append([row["case"], "all", "", f"{sum(kernel['us'] for kernel in row['kernels']):.1f}"])
    heading = report.heading("Kernels, float32", result)
    return "\n".join([heading, "", *report.table(["call", "kernel", "launches", "µs per call"], lines), ""])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", help="cpu or cuda (default: cuda)")
    parser.add_argument("--quick", action="store_true", help="small shapes: a smoke test")
    parser.add_argument("--once", action="store_true", help="make each call twice, measure nothing")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write JSON and Markdown there")
    parser.add_argument("--note", default="", help="goes into the result")
    options = parser.parse_args(argv)
    device = torch.device(options.device)
    if options.once:
        for call in calls(device, options.quick).values():
            call()
            call()
        return 0
    result = report.begin("kernels", options) | {"peers": {}, "not_installed": []}
    for name, call in calls(device, options.quick).items():
        kernels = times(call, device, 2 if options.quick else ROUNDS)
        result["results"].append({"case": name, "kernels": kernels})
        if options.out:
            report.write(options.out, result, markdown(result))
    print(markdown(result), end="")
    return 0 if all(row["kernels"] for row in result["results"]) else 1


if __name__ == "__main__":
    sys.exit(main())
