"""The kernels that take most of the time, and their loops, which are found by what they contain."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from listing import Kernel
from simulate import shortest, skippable

SCALAR_LOAD = r"LDG\.E$"
LONGEST_TURN = 2000  # instructions of a loop whose turns are searched for


@dataclass(frozen=True)
class Loop:
    """A loop of a kernel.

    Of the innermost loops with at least `needs` opcodes, sorted by how many opcodes `order` they have, the largest
    first, it is those in the places `places`. Copies of the same loop count as one, the slowest.

    Attributes:
        units: what one turn does; a number, or an opcode and how many of it make a unit.
        rare, needed: a branch over opcodes that match `rare`, but none that match `needed`, is taken.
        turn: instead, the turn that is simulated is the shortest one with these opcodes. The loop may have others
            inside, and has fewer than `longest` instructions.
        absent: the loop may be absent, as on an architecture for which the compiler arranges the code otherwise.
    """

    name: str
    unit: str
    needs: dict[str, int]
    units: int | tuple[str, int] = 1
    order: str = ""
    places: slice = field(default_factory=lambda: slice(None))
    rare: str = "$^"
    needed: str = "$^"
    turn: dict[str, int] = field(default_factory=dict)
    longest: int = LONGEST_TURN
    absent: bool = False

    def find(self, kernel: Kernel) -> list[range]:
        loops = kernel.loops()

        def count(loop: range, name: str) -> int:
            return sum(kernel.instructions[i].name == name for i in loop)

        def contains(outer: range, inner: range) -> bool:
            return outer != inner and inner.start in outer and inner.stop <= outer.stop

        if self.turn:
            loops = [
                loop
                for loop in loops
                if len(loop) < self.longest
                and all(count(loop, name) >= n for name, n in self.turn.items())
                and shortest(kernel, loop, self.turn) is not None
            ]
        inner = [loop for loop in loops if not any(contains(loop, each) for each in loops)]
        found = [loop for loop in inner if all(count(loop, name) >= n for name, n in self.needs.items())]
        return sorted(found, key=lambda loop: -count(loop, self.order))[self.places]

    def taken(self, kernel: Kernel, loop: range) -> list[int]:
        """Return the conditional branches that are taken."""
        if self.turn:
            return shortest(kernel, loop, self.turn) or []
        return skippable(kernel, loop, self.rare, self.needed)

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


TILE = 8  # frames
WALKS, PRODUCERS = {"SHFL": 16, "STG": 8, "BAR": 1}, {"SHFL": 16, "LDG": 17, "STS": 8, "BAR": 1}
NARROW = (
    Loop("narrow first walk", "frame", WALKS, TILE, "STG", slice(1, 2), turn=WALKS),
    Loop("narrow second walk", "frame", WALKS, TILE, "STG", slice(0, 1), turn=WALKS | {"STG": 16}),
    Loop("its emissions, first", "frame", PRODUCERS, TILE, "LDGSTS", slice(1, 2), turn=PRODUCERS),
    Loop("its emissions, second", "frame", PRODUCERS, TILE, "LDGSTS", slice(0, 1), turn=PRODUCERS),
)


def alignment(slots: int) -> tuple[Loop, ...]:
    return (
        Loop("walk", "frame", {"SHFL": 8, "VOTE": 8, "DADD": 8}, ("VOTE", 2 * slots)),
        Loop("way back", "frame", {"SHFL": 64, "LOP3": 150}, 32),
    )


PACKS = {"rare": SCALAR_LOAD, "needed": r"LDG\.E\.128|MUFU|SHFL"}
STATISTICS = (Loop("classes", "4 packs a thread", {"MUFU": 16, "LDG": 4}, **PACKS),)
ROW = {"LDG": 1, "SHFL": 12, "MUFU": 6}
ROWS = (
    *STATISTICS,
    Loop("128 classes", "row", {"MUFU": 16}, turn=ROW),
    Loop("end of rows", "8 rows", {"MUFU": 16}, turn=ROW | {"STG": 3}, absent=True),
)
GRADIENT = (
    Loop("classes", "4 packs a thread", {"MUFU": 16}, **PACKS),
    Loop("labels", "32 labels", {"SHFL": 7, "LDG": 3}),
)
FRAMES = 4  # of a sample that a warp does together
GROUP = {"SHFL": 32, "MUFU": 20}
GRADIENTS = (
    Loop("classes", "128 classes", {"MUFU": 16}, FRAMES, **PACKS),
    Loop("labels", "32 labels", {"SHFL": 40, "LDG": 9}, FRAMES),
    Loop("128 classes, 32 labels", "row", {}, FRAMES, turn=GROUP, longest=4000, absent=True),
)
TOKENS = (
    Loop("maximum", "16 classes a thread", {"LDG": 16, "FMNMX": 16}),
    Loop("softmax", "4 classes a thread", {"LDG": 4, "FRND": 4}),
)

# The frames of a prefix search that lead to no new prefix: two sums of probabilities, of 37 DFMA each.
STAYS = {"DFMA": 65}
SEARCH = (Loop("frame without new prefixes", "frame", STAYS, turn=STAYS, longest=4000),)

HOT = [
    Hot("ctc_loss_forward", "statistics<float, 1>", 256, ROWS),
    Hot("ctc_loss_forward", "statistics<float, 8>", 256, STATISTICS),
    Hot("ctc_loss_forward", "recursions<float, float, 2, 4, false>", 256, (*NARROW, *walks(2))),
    Hot("ctc_loss_forward", "recursions<float, float, 2, 8, false>", 512, (*NARROW, *walks(2))),
    Hot("ctc_loss_forward", "recursions<float, float, 2, 8, true>", 512, walks(2)),
    Hot("ctc_loss_backward", "gradient<float, 1>", 256, GRADIENTS),
    Hot("ctc_loss_backward", "gradient<float, 8>", 256, GRADIENT),
    Hot("forced_align", "align<float, 1>", 256, alignment(1)),
    Hot("forced_align", "align<float, 2>", 256, alignment(2)),
    Hot("top_tokens", "top_tokens<float, float, 1>", 256, TOKENS),
    Hot("top_tokens", "top_tokens<float, float, 8>", 256),
    Hot("beam_search", "search<float, 32, NoScorer>", 32, SEARCH),
    Hot("beam_search", "search<float, 256, NoScorer>", 256, SEARCH),
    Hot("beam_search", "search<float, 1024, NoScorer>", 1024, SEARCH),
    Hot("beam_search", "search<float, 32, Scorer>", 32),
]


def short_name(demangled: str) -> str:
    """Return the name of a kernel with its template arguments, without namespaces and parameters."""
    name = re.sub(r"\(anonymous namespace\)::|fastctc::|cuda::|^void ", "", demangled)
    return re.sub(r"\(.*", "", name)
