"""The automaton of a list of texts: a search under it finds nothing else."""

from __future__ import annotations

from collections.abc import Iterable

from fastctc.scoring import Automaton
from fastctc.text import Alphabet

Arcs = tuple[tuple[int, int], ...]  # (label, next state), by label


def automaton_of_texts(texts: Iterable[str], alphabet: Alphabet) -> Automaton:
    """Return the smallest automaton that accepts these texts with the weight 0, and no others.

    Texts are added in the order of their labels. So a state is done as soon as a text leaves it. A state that
    equals one before is that one. (Daciuk et al., "Incremental construction of minimal acyclic finite-state
    automata", Computational Linguistics 26, 2000.)

    Args:
        texts: at least one, of the alphabet's characters.
        alphabet: characters and blank.
    """
    numbers: dict[tuple[bool, Arcs], int] = {}  # of the states that are done
    # The states on the way of the last text: the label that leads there, whether a text ends there, arcs.
    way: list[tuple[int, bool, list[tuple[int, int]]]] = [(-1, False, [])]

    def leave(length: int) -> None:
        while len(way) > length:
            label, final, arcs = way.pop()
            number = numbers.setdefault((final, tuple(arcs)), len(numbers))
            if way:
                way[-1][2].append((label, number))

    before: tuple[int, ...] = ()
    for labels in sorted({tuple(alphabet.encode(text)) for text in texts}):
        common = next((i for i, pair in enumerate(zip(before, labels)) if pair[0] != pair[1]), len(before))
        leave(common + 1)
        way += [(label, False, []) for label in labels[common:]]
        label, _, arcs = way[-1]
        way[-1] = label, True, arcs
        before = labels
    leave(0)
    return Automaton.from_arcs(
        [(state, label, to, 0.0) for (_, arcs), state in numbers.items() for label, to in arcs],
        {state: 0.0 for (final, _), state in numbers.items() if final},
        start=len(numbers) - 1,
    )
