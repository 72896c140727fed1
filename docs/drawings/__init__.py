"""The drawings of the pages, made by code."""

from __future__ import annotations

from collections.abc import Callable

from drawings import ctc, machine
from drawings.svg import Sheet
from IPython.display import HTML

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


def show(name: str, description: str) -> HTML:
    """Return a drawing as part of a page, with a description for screen readers."""
    return HTML(f'<div class="picture" role="img" aria-label="{description}">{DRAWINGS[name]().svg()}</div>')
