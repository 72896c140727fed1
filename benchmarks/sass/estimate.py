"""The model of an H200 for estimates.py, and the estimates of the loss. Nothing is measured.

A kernel takes the longest of three times, and LAUNCH more:

- the bytes that it moves, at MEMORY_RATE;
- the cycles of its longest chain of dependent work, at CLOCK;
- its instructions, at ISSUE_RATE per SM.

The estimates leave out caches, bank conflicts, the tails of waves and the start of a block.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compare import Figures

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

ARCH = "sm_90"
SMS, CLOCK, ISSUE_RATE = 132, 1.98e9, 4  # SMs, cycles per second, instructions of warps per cycle and SM
MEMORY_RATE = 4.8e12  # bytes per second
LAUNCH = 2e-6  # seconds
FLOAT = 4  # bytes
INSPECTION = 3 * 700  # cycles: a block loads lengths, then labels, and tests them, before it walks
LONG_ROW = 2048  # classes; a block does a longer row
PUBLISHED = {  # times of others in µs, by op and shape; the sources name them
    ("ctc_loss, forward", "T=1024 N=32 C=128 S=96"): "1,116: PyTorch, in FlagGems #2723",
    ("beam_search", "N=16 T=200 C=5000, beam 10"): "2,550: OASR, on an RTX 5090",
}


@dataclass(frozen=True)
class Work:
    """The work of one kernel.

    Attributes:
        moved: bytes that are read from or written to memory.
        cycles: of the longest chain of dependent work.
        instructions: of all warps.
    """

    name: str
    moved: float = 0
    cycles: float = 0
    instructions: float = 0

    def times(self) -> dict[str, float]:
        """Return the three times in seconds."""
        return {
            "memory": self.moved / MEMORY_RATE,
            "chain": self.cycles / CLOCK,
            "issue": self.instructions / (SMS * ISSUE_RATE * CLOCK),
        }

    def seconds(self) -> float:
        return max(self.times().values()) + LAUNCH


@dataclass(frozen=True)
class Estimate:
    """One row of the table."""

    op: str
    case: str
    kernels: tuple[Work, ...]

    def seconds(self) -> float:
        return sum(kernel.seconds() for kernel in self.kernels)

    def floor(self) -> float:
        """Return the time of the bytes alone."""
        return sum(kernel.times()["memory"] for kernel in self.kernels)


def loop(table: Figures, kernel: str, name: str, key: str = "cached") -> float:
    """Return a figure of a loop in the table: `cached` and `memory` are cycles, `instructions` is the third."""
    return float(table["kernels"][ARCH][kernel]["loops"][name][key])


def waves(blocks: int, per_sm: int) -> int:
    return -(-blocks // (SMS * per_sm))


def ctc_loss(table: Figures, shape: Any, backward: bool) -> tuple[Work, ...]:
    """Return the kernels of the loss of float logits without options; `backward` adds the gradient."""
    T, N, C, S = shape.T, shape.N, shape.C, shape.S
    rows, narrow = T * N, S <= 126
    walks = "recursions<float, float, 2, 4, false>" if S <= 126 else "recursions<float, float, 2, 8, false>"
    prefix = "narrow " if narrow else ""
    columns = -(-(S + 1) // 64)
    kernel = table["kernels"][ARCH][walks]
    per_sm = max(1, int(kernel["warps"]) * 32 // (128 * columns if narrow else 64 * min(columns, 8)))
    passes = ["first walk", "second walk"] if backward else ["first walk"]
    chain, instructions = 0.0, 0.0
    for each in passes:
        frames = T / 2 + (0 if narrow else 8 * (columns - 1))
        chain += frames * loop(table, walks, prefix + each)
        instructions += T * N * columns * loop(table, walks, prefix + each, "instructions")
        if narrow:
            emissions = f"its emissions, {each.split()[0]}"
            instructions += T * N * columns * loop(table, walks, emissions, "instructions")
    kept = 2 * rows * (S + 1) * 2 * FLOAT + rows * S * FLOAT if backward else 0
    of_row, of_end = rows_of_statistics(table, C)
    found = [
        Work("statistics", rows * C * FLOAT, instructions=rows * (of_row + of_end)),
        Work("recursions", kept, (INSPECTION + chain) * waves(N, per_sm), instructions),
        Work("recursions, wide"),
    ]
    if backward:
        moved = (2 * C + S) * rows * FLOAT
        found += [
            Work("sort_labels"),
            Work("gradient", moved, instructions=rows * row_of_gradient(table, C, S)),
        ]
    return tuple(found)


def rows_of_statistics(table: Figures, C: int) -> tuple[float, float]:
    """Return the instructions of a row of C classes, and its part of what is done for several rows."""
    if C >= LONG_ROW:
        return 8 * -(-C // 4096) * loop(table, "statistics<float, 8>", "classes", "instructions"), 0
    name = "statistics<float, 1>"
    row = loop(table, name, "128 classes", "instructions")
    end = loop(table, name, "end of rows", "instructions") - row
    more = -(-max(0, C - 128) // 512) * loop(table, name, "classes", "instructions")
    return row + more, end / 8


def row_of_gradient(table: Figures, C: int, S: int) -> float:
    """Return the instructions of a row of C classes and S labels."""
    labels = -(-max(0, S - 32) // 32)
    if C >= LONG_ROW:
        name, classes, warps = "gradient<float, 8>", -(-C // 4096), 8
        first = 0.0
    else:
        name, classes, warps = "gradient<float, 1>", -(-max(0, C - 128) // 128), 1
        first = loop(table, name, "128 classes, 32 labels", "instructions")
    more = classes * warps * loop(table, name, "classes", "instructions")
    return first + more + labels * loop(table, name, "labels", "instructions")


def all_losses(table: Figures) -> list[Estimate]:
    from cases import SHAPES, Shape

    shapes = {**SHAPES, "issue": Shape(1024, 32, 128, 96)}
    return [
        Estimate(
            "ctc_loss, forward + backward" if backward else "ctc_loss, forward",
            f"{name}: T={shape.T} N={shape.N} C={shape.C} S={shape.S}",
            ctc_loss(table, shape, backward),
        )
        for name, shape in shapes.items()
        for backward in (False, True)
    ]


OPS: list[Callable[[Figures], list[Estimate]]] = [all_losses]  # each op has a function


def markdown(estimates: list[Estimate]) -> str:
    lines = [
        f"Estimates for an H200, not measurements: {SMS} SMs at {CLOCK / 1e9:.2f} GHz, "
        f"{MEMORY_RATE / 1e12:.1f} TB/s, {LAUNCH * 1e6:.0f} µs for a launch. By `estimates.py`.",
        "",
        "| op | case | estimate, µs | bytes alone, µs | published, µs | launches | longest kernels, µs |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for each in estimates:
        longest = sorted(each.kernels, key=lambda kernel: -kernel.seconds())[:3]
        parts = []
        for kernel in longest:
            times = kernel.times()
            bound = max(times, key=lambda name: times[name])
            parts.append(f"{kernel.name} {kernel.seconds() * 1e6:.0f} ({bound})")
        published = PUBLISHED.get((each.op, each.case.partition(": ")[2]), "")
        lines.append(
            f"| {each.op} | {each.case} | {each.seconds() * 1e6:.0f} | {each.floor() * 1e6:.1f} | {published} | "
            f"{len(each.kernels)} | {', '.join(parts)} |"
        )
    return "\n".join(lines) + "\n"
