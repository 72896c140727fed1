"""Kernels as machine code: what nvdisasm prints of a cubin, with the scheduling that the assembler has put into it.

Each instruction of sm_70 and later has 128 bits. Bits 105 to 125 are for the scheduler:

    4 bits   stall: cycles until the warp may issue the next instruction
    1 bit    yield
    3 bits   the scoreboard that is set until the result is written; 7: none
    3 bits   the scoreboard that is set until the operands have been read; 7: none
    6 bits   the scoreboards that must be clear before the instruction is issued
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

INSTRUCTION = re.compile(r"\s*/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;\s*/\* (0x[0-9a-f]{16}) \*/")
SECOND_HALF = re.compile(r"\s*/\* (0x[0-9a-f]{16}) \*/\s*$")
LABEL = re.compile(r"(\.L_\w+):")
FUNCTION = re.compile(r"\.text\.(\S+):")


@dataclass(frozen=True)
class Instruction:
    text: str
    stall: int
    write_scoreboard: int | None
    read_scoreboard: int | None
    waits: tuple[int, ...]  # for scoreboards
    label: str | None = None  # where a branch goes

    @property
    def opcode(self) -> str:
        """Return the opcode with its suffixes: `LDG.E.64`."""
        return re.sub(r"^@!?U?P\w+\s+", "", self.text).split()[0]

    @property
    def name(self) -> str:
        """Return the opcode alone: `LDG`."""
        return self.opcode.split(".")[0]

    @property
    def conditional(self) -> bool:
        """Return True for predicated instructions and branches of divergent warps."""
        return self.text.startswith("@") or self.opcode.startswith("BRA.DIV")


@dataclass
class Kernel:
    name: str  # mangled
    instructions: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)  # the number of the instruction behind each

    def target(self, instruction: Instruction) -> int | None:
        return self.labels.get(instruction.label) if instruction.label else None

    def loops(self) -> list[range]:
        """Return the numbers of each loop's instructions, from the target of a backward branch to that branch."""
        found: dict[int, int] = {}  # of two branches to one place, the longer loop
        for number, instruction in enumerate(self.instructions):
            target = self.target(instruction)
            if instruction.name == "BRA" and target is not None and target < number:
                found[target] = max(number, found.get(target, 0))
        return [range(first, last + 1) for first, last in sorted(found.items())]


def decode(text: str, control: int) -> Instruction:
    """Return an instruction from its text and the second half of its encoding."""
    bits = control >> 41
    write, read, waits = bits >> 5 & 7, bits >> 8 & 7, bits >> 11 & 63
    label = re.search(r"`\((\.L_\w+)\)", text)
    return Instruction(
        text=" ".join(text.split()),
        stall=bits & 15,
        write_scoreboard=write if write < 6 else None,
        read_scoreboard=read if read < 6 else None,
        waits=tuple(each for each in range(6) if waits >> each & 1),
        label=label.group(1) if label and "BSSY" not in text else None,
    )


def parse(listing: str) -> list[Kernel]:
    """Return the kernels of the output of `nvdisasm -hex -c`.

    Raises:
        ValueError: it has no kernels, or an instruction has no second half.
    """
    kernels: list[Kernel] = []
    pending: str | None = None
    for line in listing.splitlines():
        if pending is not None:
            half = SECOND_HALF.match(line)
            if not half:
                raise ValueError(
                    f"`{pending}` should be followed by the second half of its encoding, not `{line}`"
                )
            kernels[-1].instructions.append(decode(pending, int(half.group(1), 16)))
            pending = None
        elif function := FUNCTION.match(line):
            kernels.append(Kernel(function.group(1)))
        elif kernels and (label := LABEL.match(line)):
            kernels[-1].labels[label.group(1)] = len(kernels[-1].instructions)
        elif kernels and (found := INSTRUCTION.match(line)):
            pending = found.group(2)
    if not kernels:
        raise ValueError("the listing has no kernels; expected the output of nvdisasm -hex -c")
    return kernels
