"""The kernels that take most of the time, and their loops, which are found by what they contain."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from listing import Kernel

SCALAR_LOAD = r"LDG\.E$"


@dataclass(frozen=True)
class Loop:
    """A loop of a kernel.

    Of the innermost loops with at least `needs` opcodes, sorted by how many opcodes `order` they have, the largest
    first, it is those in the places `places`. Copies of the same loop count as one, the slowest.

    Attributes:
        units: what one turn does; a number, or an opcode and how many of it make a unit.
        rare, needed: a branch over opcodes that match `rare`, but none that match `needed`, is taken.
    """

    name: str
    unit: str
    needs: dict[str, int]
    units: int | tuple[str, int] = 1
    order: str = ""
    places: slice = field(default_factory=lambda: slice(None))
    rare: str = "$^"
    needed: str = "$^"

    def find(self, kernel: Kernel) -> list[range]:
        loops = kernel.loops()

        def count(loop: range, name: str) -> int:
            return sum(kernel.instructions[i].name == name for i in loop)

        def contains(outer: range, inner: range) -> bool:
            return outer != inner and inner.start in outer and inner.stop <= outer.stop

        inner = [loop for loop in loops if not any(contains(loop, each) for each in loops)]
        found = [loop for loop in inner if all(count(loop, name) >= n for name, n in self.needs.items())]
        return sorted(found, key=lambda loop: -count(loop, self.order))[self.places]

    def units_of(self, kernel: Kernel, turn: Iterable[int]) -> int:
        """Return what one turn does, from the numbers of its instructions."""
        if isinstance(self.units, int):
            return self.units
        name, each = self.units
        return sum(kernel.instructions[i].name == name for i in turn) // each


@dataclass(frozen=True)
class Hot:
    """A kernel: its file, its name, the threads of a block, its loops."""

    file: str
    name: str
    threads: int
    loops: tuple[Loop, ...] = ()


def walks(labels: int) -> tuple[Loop, ...]:
    """Return the loops of `recursions`, whose lanes have `labels` each. The first walk stores more numbers."""
    needs, units = {"SHFL": 8, "FRND": 8}, ("SHFL", 2 * labels)
    snapshots = {"rare": r"LD(\.|$)|ST(\.|$)", "needed": r"SHFL|LDG|LDGSTS"}
    return (
        Loop("first walk", "frame", needs, units, "STG", slice(0, 2), **snapshots),
        Loop("second walk", "frame", needs, units, "STG", slice(2, 4), **snapshots),
    )


def alignment(slots: int) -> tuple[Loop, ...]:
    return (
        Loop("walk", "frame", {"SHFL": 8, "VOTE": 8, "DADD": 8}, ("VOTE", 2 * slots)),
        Loop("way back", "frame", {"SHFL": 64, "LOP3": 150}, 32),
    )


PACKS = {"rare": SCALAR_LOAD, "needed": r"LDG\.E\.128|MUFU|SHFL"}
STATISTICS = (Loop("classes", "4 packs a thread", {"MUFU": 16, "LDG": 4}, **PACKS),)
GRADIENT = (
    Loop("classes", "2 packs a thread", {"MUFU": 8}, **PACKS),
    Loop("labels", "32 labels", {"SHFL": 12}),
)
TOKENS = (
    Loop("maximum", "16 classes a thread", {"LDG": 16, "FMNMX": 16}),
    Loop("softmax", "4 classes a thread", {"LDG": 4, "FRND": 4}),
)

HOT = [
    Hot("ctc_loss_forward", "statistics<float, 1>", 256, STATISTICS),
    Hot("ctc_loss_forward", "statistics<float, 8>", 256, STATISTICS),
    Hot("ctc_loss_forward", "recursions<float, float, 1, false>", 64, walks(1)),
    Hot("ctc_loss_forward", "recursions<float, float, 2, false>", 512, walks(2)),
    Hot("ctc_loss_forward", "recursions<float, float, 2, true>", 512, walks(2)),
    Hot("ctc_loss_backward", "gradient<float, 1>", 256, GRADIENT),
    Hot("ctc_loss_backward", "gradient<float, 8>", 256, GRADIENT),
    Hot("forced_align", "align<float, 1>", 256, alignment(1)),
    Hot("forced_align", "align<float, 2>", 256, alignment(2)),
    Hot("top_tokens", "top_tokens<float, float, 1>", 256, TOKENS),
    Hot("top_tokens", "top_tokens<float, float, 8>", 256),
    Hot("beam_search", "search<float, 32, NoScorer>", 32),
    Hot("beam_search", "search<float, 256, NoScorer>", 256),
    Hot("beam_search", "search<float, 1024, NoScorer>", 1024),
    Hot("beam_search", "search<float, 32, Scorer>", 32),
]


def short_name(demangled: str) -> str:
    """Return the name of a kernel with its template arguments, without namespaces and parameters."""
    name = re.sub(r"\(anonymous namespace\)::|fastctc::|cuda::|^void ", "", demangled)
    return re.sub(r"\(.*", "", name)
