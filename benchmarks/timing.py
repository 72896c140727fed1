"""Sides that take turns, the medians of their times, and the floor that memory bandwidth sets."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

L2_SHARE = 2  # size of all inputs together, in sizes of the L2 cache


Clock = Callable[[], float]  # seconds since some moment


@dataclass(frozen=True)
class Side:
    """Something to be timed: `run(i)` makes `calls` calls, the first on the i-th input."""

    run: Callable[[int], object]
    calls: int = 1


def milliseconds(
    side: Side, first: int, runs: int, device: torch.device, clock: Clock = time.perf_counter
) -> float:
    """Return the milliseconds of one call, on the CPU by a clock that counts seconds."""
    if device.type == "cpu":
        start = clock()
        for i in range(first, first + runs):
            side.run(i)
        return (clock() - start) * 1e3 / (runs * side.calls)
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
    events[0].record()
    for i in range(first, first + runs):
        side.run(i)
    events[1].record()
    events[1].synchronize()
    return events[0].elapsed_time(events[1]) / (runs * side.calls)


def measure(
    sides: dict[str, Side],
    device: torch.device,
    seconds: float,
    quick: bool,
    *,
    least: int = 5,
    clock: Clock = time.perf_counter,
) -> dict[str, Any]:
    """Let the sides take turns for about `seconds`, and at least `least` times.

    Returns:
        The median, the quartiles and the minimum of each side, in milliseconds per call.
    """
    runs, total = {}, 0.0
    for name, side in sides.items():
        milliseconds(side, 0, 1 if quick or least < 5 else 2, device)  # warm-up
        once = milliseconds(side, 0, 1, device, clock) * side.calls
        runs[name] = 1 if quick else max(1, min(100, math.ceil(2 / once)))
        total += runs[name] * once
    rounds = 3 if quick else max(least, min(200, int(seconds * 1e3 / total)))
    samples: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds):
        for name in list(sides)[:: 1 if turn % 2 else -1]:
            samples[name].append(milliseconds(sides[name], turn * runs[name], runs[name], device, clock))
    result = {}
    for name, each in samples.items():
        low, median, high = statistics.quantiles(each, n=4)
        times = {"median_ms": median, "min_ms": min(each), "quartiles_ms": [low, high]}
        result[name] = {**times, "samples": rounds}
    return result


def measure_cpu(sides: dict[str, Side], seconds: float, quick: bool) -> dict[str, Any]:
    """Return CPU times of this process as `measure` does. Other processes change them little, so three turns do."""
    return measure(sides, torch.device("cpu"), seconds, quick, least=3, clock=time.process_time)


def buffers(size: int, cache: int) -> int:
    """Return how many inputs of this many bytes take turns, so that a cache does not hold them."""
    return min(64, math.ceil(L2_SHARE * cache / size) + 1)


def graph_side(call: Callable[[Any], Tensor], inputs: list[Any]) -> Side:
    """Return a CUDA graph of one call on every input; its last result must equal the result of a plain call."""
    expected = call(inputs[-1])
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for each in inputs:
            last = call(each)
    graph.replay()
    if not torch.equal(last, expected):
        raise RuntimeError("what was replayed differs")
    return Side(lambda _: graph.replay(), len(inputs))


def copy_bandwidth(device: torch.device) -> float:
    """Return bytes per second, read and written."""
    source = torch.randn(2**28, device=device)
    target = torch.empty_like(source)
    side = Side(lambda _: target.copy_(source))
    milliseconds(side, 0, 3, device)
    median = statistics.median(milliseconds(side, 0, 1, device) for _ in range(20))
    return 2 * source.numel() * 4 / (median / 1e3)
