"""Random automata, and the walk that defines their weights."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence

from fastctc import Automaton
from fastctc.scoring import OTHERWISE, AutomatonScorer

Arcs = dict[int, dict[int, tuple[int, float]]]


def random_automaton(seed: int, labels: Sequence[int], *, states: int = 6, density: float = 0.5) -> Automaton:
    """Return an automaton with failure arcs to lower states, -inf and positive weights, multiples of 1/8.

    A state has an arc for a label with the probability ``density``.
    """
    rng = random.Random(seed)

    def weight() -> float:
        return -math.inf if rng.random() < 0.1 else rng.randint(-16, 8) / 8

    order = rng.sample(range(states), states)  # failure arcs lead from later to earlier ones
    arcs, failure = [], {}
    for position, state in enumerate(order):
        chosen = [label for label in labels if rng.random() < density]
        if position and rng.random() < 0.6:
            failure[state] = order[rng.randrange(position)], rng.randint(-8, 8) / 8
        elif rng.random() < 0.5:
            chosen.append(OTHERWISE)
        arcs += [(state, label, rng.randrange(states), weight()) for label in chosen]
    rng.shuffle(arcs)
    final = {state: weight() for state in range(states) if rng.random() < 0.7}
    final[states - 1] = 0.0  # names every state
    return Automaton.from_arcs(arcs, final, start=rng.randrange(states), failure=failure)


def walk(automaton: Automaton, state: int, label: int) -> tuple[int, float]:
    """Return the next state and the weight of a label by the definition, -1 and -inf where it is rejected."""
    total = 0.0
    while state >= 0:
        first, end = automaton.first_arc[state : state + 2].tolist()
        for wanted in (label, OTHERWISE):
            for arc in range(first, end):
                if int(automaton.label[arc]) == wanted:
                    total += float(automaton.weight[arc])
                    return (int(automaton.next_state[arc]), total) if total > -math.inf else (-1, total)
        total += float(automaton.failure_weight[state])
        state = int(automaton.failure_state[state])
    return -1, -math.inf


def walk_score(automaton: Automaton, sequence: Sequence[int]) -> float:
    state, total = automaton.start, 0.0
    for label in sequence:
        state, weight = walk(automaton, state, label)
        total += weight
        if state < 0:
            return -math.inf
    return total + float(automaton.final_weight[state])


def quick_score(scorer: AutomatonScorer, sequence: Sequence[int]) -> float:
    """Return Automaton.score(sequence), without a tensor for each label."""
    state, total = scorer.begin(), 0.0
    for label in sequence:
        state, weight = scorer.step(state, label)
        total += weight
        if state < 0:
            return -math.inf
    return total + scorer.final_weight[state]


def sequences(labels: Sequence[int], longest: int) -> Iterator[tuple[int, ...]]:
    for length in range(longest + 1):
        yield from itertools.product(labels, repeat=length)
