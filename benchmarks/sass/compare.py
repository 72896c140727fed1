"""Two tables of kernels: what is worse in the second."""

from __future__ import annotations

from typing import Any

TOLERANCE = 0.02  # by which cycles and instructions of a loop may grow
MORE_IS_WORSE = ("spilled", "shared", "generic")
Figures = dict[str, Any]


def compare(before: Figures, after: Figures) -> tuple[list[str], list[str]]:
    """Return lines about what is worse, and about other differences. Kernels in only one table are no difference.

    Figures of two compilers are compared, too, but nothing is called worse then.
    """
    worse: list[str] = []
    other: list[str] = []
    for arch, kernels in after["kernels"].items():
        for name, new in kernels.items():
            old = before["kernels"].get(arch, {}).get(name)
            if old is None:
                if "registers" not in new:
                    worse.append(f"{arch} {name}: spills {new['spilled']} bytes; it did not spill")
                continue
            compare_kernel(f"{arch} {name}", old, new, worse, other)
    if before["nvcc"] != after["nvcc"]:
        note = f"the table was made by nvcc {before['nvcc']}, and this is {after['nvcc']}: not judged"
        return [], [note, *worse, *other] if worse or other else []
    return worse, other


def compare_kernel(where: str, old: Figures, new: Figures, worse: list[str], other: list[str]) -> None:
    def note(what: str, before: float, now: float, is_worse: bool) -> None:
        if before != now:
            (worse if is_worse else other).append(f"{where}: {what} {before} -> {now}")

    for key in MORE_IS_WORSE:
        if key in old and key in new:
            note(key, old[key], new[key], new[key] > old[key])
    if "warps" in old and "warps" in new:
        note("warps per SM", old["warps"], new["warps"], new["warps"] < old["warps"])
    for loop, cost in new.get("loops", {}).items():
        was = old.get("loops", {}).get(loop)
        for key in ("instructions", "cached", "memory"):
            if was:
                is_worse = cost[key] > was[key] * (1 + TOLERANCE)
                note(f"{loop}, {key} per {cost['unit']}", was[key], cost[key], is_worse)
