"""Cycles of a loop: one warp that issues in order, along one path through the loop.

An instruction waits for its scoreboards, is issued, and the next one follows after its stall count. A scoreboard is
clear once the result of the instruction that set it is there. Other warps, caches, bank conflicts and throughput
limits are left out, so a figure is good for comparisons with the same figure of other code, not as a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from listing import Instruction, Kernel

CACHE, MEMORY = 270, 700  # cycles of a load from the L2 cache and from memory; about as on sm_90
OPERANDS = 12  # cycles until an instruction with a scoreboard has read its operands
TAKEN_BRANCH = 4  # cycles more than a branch that is not taken
OTHERS = 20
LATENCY = {  # of results, in cycles
    name: cycles
    for cycles, names in {
        2: "WARPSYNC",
        12: "VOTE VOTEU R2UR",
        15: "STG STS ST CCTL",
        16: "DADD DMUL DFMA DSETP DMNMX",
        18: "FRND MUFU F2F I2F F2I POPC FLO F2FP BREV",
        24: "SHFL",
        25: "S2R S2UR CS2R",
        29: "LDS",
        30: "LDC BAR",
        60: "ATOMS MATCH",
    }.items()
    for name in names.split()
}
SLOW_DOUBLES = {"sm_75": 40, "sm_86": 40, "sm_89": 40, "sm_120": 40}  # GPUs with few units for float64


@dataclass(frozen=True)
class Cost:
    """Of one turn of a loop."""

    cycles: int
    instructions: int
    waits: dict[int, int]  # the cycles that an instruction waits for scoreboards, by its number


def latency(instruction: Instruction, load: int, arch: str) -> int:
    name = instruction.name
    if name in ("LDG", "LD", "LDGSTS", "LDGDEPBAR"):
        return load
    if LATENCY.get(name) == LATENCY["DFMA"]:
        return SLOW_DOUBLES.get(arch, 16)
    return LATENCY.get(name, OTHERS)


def path(kernel: Kernel, loop: range, taken: Iterable[int] = ()) -> list[int]:
    """Return the numbers of the instructions of one turn, where the conditional branches `taken` are taken.

    Raises:
        ValueError: a branch on the path leaves the loop, or goes back inside of it.
    """
    taken, numbers, i = set(taken), [], loop.start
    while i != loop.stop - 1:
        numbers.append(i)
        instruction = kernel.instructions[i]
        goes = instruction.name == "BRA" and (i in taken or not instruction.conditional)
        target = kernel.target(instruction) if goes else i + 1
        if target is None or target not in loop or target <= i:
            raise ValueError(f"instruction {i} of {loop}, `{instruction.text}`, goes to {target}")
        i = target
    return [*numbers, i]


def simulate(
    kernel: Kernel,
    loop: range,
    taken: Iterable[int] = (),
    load: int = CACHE,
    arch: str = "sm_90",
    turns: int = 6,
) -> Cost:
    """Return the cost of the last of some turns, when the scoreboards have settled."""
    numbers = path(kernel, loop, taken)
    time, start, clear, waits = 0, 0, [0] * 6, {}
    for _ in range(turns):
        start, waits = time, {}
        for i, after in zip(numbers, [*numbers[1:], numbers[0]]):
            instruction = kernel.instructions[i]
            ready = max([time, *(clear[each] for each in instruction.waits)])
            if ready > time:
                waits[i] = ready - time
            for scoreboard, cycles in (
                (instruction.write_scoreboard, latency(instruction, load, arch)),
                (instruction.read_scoreboard, OPERANDS),
            ):
                if scoreboard is not None:
                    clear[scoreboard] = max(clear[scoreboard], ready + cycles)
            time = ready + max(1, instruction.stall) + (TAKEN_BRANCH if after != i + 1 else 0)
    return Cost(time - start, len(numbers), waits)


def skippable(kernel: Kernel, loop: range, rare: str, needed: str) -> list[int]:
    """Return the conditional branches over a block with an opcode like `rare` and none like `needed`."""
    opcodes = [instruction.opcode for instruction in kernel.instructions]
    found = []
    for i in loop:
        instruction = kernel.instructions[i]
        target = kernel.target(instruction)
        if instruction.name != "BRA" or not instruction.conditional or target is None:
            continue
        block = opcodes[i + 1 : target]
        is_rare = any(re.match(rare, opcode) for opcode in block)
        if i < target < loop.stop and is_rare and not any(re.match(needed, opcode) for opcode in block):
            found.append(i)
    return found


def shortest(kernel: Kernel, loop: range, needs: dict[str, int]) -> list[int] | None:
    """Return the conditional branches to take for the shortest path through a loop that has at least these opcodes.

    Returns None if no path has them. Loops inside of the loop are not entered twice.
    """
    opcodes = list(needs)
    paths: dict[int, dict[tuple[int, ...], tuple[int, list[int]]]] = {
        loop.start: {(0,) * len(needs): (0, [])}
    }
    for i in loop:
        instruction, target = kernel.instructions[i], kernel.target(kernel.instructions[i])
        branches = instruction.name == "BRA" and target is not None and i != loop.stop - 1
        following = [i + 1] if not branches or instruction.conditional else []
        if branches and target in loop and target > i:
            following.append(target)
        for counts, (length, taken) in paths.pop(i, {}).items() if instruction.name != "EXIT" else ():
            found = tuple(
                min(needs[name], count + (name == instruction.name)) for name, count in zip(opcodes, counts)
            )
            if i == loop.stop - 1:
                paths.setdefault(loop.stop, {})[found] = (length, taken)
                continue
            for to in following:
                goes = [*taken, i] if to != i + 1 and instruction.conditional else taken
                old = paths.setdefault(to, {}).get(found)
                if to in loop and (old is None or length + 1 < old[0]):
                    paths[to][found] = (length + 1, goes)
    ends = paths.get(loop.stop, {}).get(tuple(needs.values()))
    return ends[1] if ends else None
