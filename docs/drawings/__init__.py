"""The drawings of the pages, made by code."""

from __future__ import annotations

from collections.abc import Callable

from drawings import ctc, machine
from drawings.svg import Sheet

DRAWINGS: dict[str, Callable[[], Sheet]] = {
    "collapsing": ctc.collapsing,
    "lattice": ctc.lattice,
    "lattice-weighed": ctc.lattice_weighed,
    "beam": ctc.beam,
    "scaled-floats": machine.scaled_floats,
    "rooms": machine.rooms,
    "meeting": machine.meeting,
    "warp": machine.warp,
    "emulation": machine.emulation,
    "network": machine.network,
}
