"""Finite automata without weights: from the tree of a regular expression to the smallest deterministic one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from fastctc.scoring.expression_parser import Choice, Repeat, Series, Symbols, Tree

__all__ = ["Transitions", "determinize", "minimize"]

NOWHERE = -1


@dataclass
class Transitions:
    """A deterministic automaton over classes of symbols. State 0 is the start."""

    next: list[list[int]]  #: of each state, the state after each class, or -1
    accepting: list[bool]

    def run(self, state: int, classes: Iterable[int]) -> int:
        """Return the state after a sequence of classes, or -1."""
        for each in classes:
            if state == NOWHERE:
                break
            state = self.next[state][each]
        return state


class _Thompson:
    """The nondeterministic automaton of Thompson (1968): states with one set of symbols, or with free moves."""

    def __init__(self, max_states: int) -> None:
        self.max_states = max_states
        self.free: list[list[int]] = []
        self.symbols: list[tuple[frozenset[int], int] | None] = []

    def state(self) -> int:
        check_size(len(self.free), 10 * self.max_states)
        self.free.append([])
        self.symbols.append(None)
        return len(self.free) - 1

    def add(self, tree: Tree, start: int) -> int:
        """Add the paths of a tree from a state, and return the state where they end."""
        if isinstance(tree, Symbols):
            end = self.state()
            if tree.numbers:
                middle = self.state()
                self.free[start].append(middle)
                self.symbols[middle] = tree.numbers, end
            return end
        if isinstance(tree, Series):
            for part in tree.parts:
                start = self.add(part, start)
            return start
        if isinstance(tree, Choice):
            end = self.state()
            for part in tree.parts:
                begin = self.state()
                self.free[start].append(begin)
                self.free[self.add(part, begin)].append(end)
            return end
        return self.add_repeat(tree, start)

    def add_repeat(self, tree: Repeat, start: int) -> int:
        for _ in range(tree.least):
            start = self.add(tree.part, start)
        end = self.state()
        if tree.most is None:
            loop = self.state()
            self.free[start].append(loop)
            self.free[self.add(tree.part, loop)].append(loop)
            self.free[loop].append(end)
            return end
        self.free[start].append(end)
        for _ in range(tree.most - tree.least):
            start = self.add(tree.part, start)
            self.free[start].append(end)
        return end

    def closure(self, states: Iterable[int]) -> frozenset[int]:
        """Return the states with symbols, and without any move, that free moves lead to."""
        seen, todo = set(states), list(states)
        while todo:
            for target in self.free[todo.pop()]:
                if target not in seen:
                    seen.add(target)
                    todo.append(target)
        return frozenset(s for s in seen if self.symbols[s] is not None or not self.free[s])


def check_size(states: int, limit: int) -> None:
    """Raise ValueError if there are too many states."""
    if states > limit:
        raise ValueError(
            f"pattern needs an automaton of more than {limit} states, expected at most max_states; simplify the"
            " pattern or raise max_states"
        )


def determinize(tree: Tree, num_symbols: int, max_states: int) -> tuple[Transitions, list[int]]:
    """Return a deterministic automaton over classes of symbols, and the class of each symbol.

    Symbols that all sets of the tree treat alike are one class (subset construction).

    Raises:
        ValueError: there are more than ``max_states`` states.
    """
    machine = _Thompson(max_states)
    start = machine.state()
    end = machine.add(tree, start)
    symbol_class, representatives = _classes(machine, num_symbols)
    subsets = {machine.closure([start]): 0}
    result = Transitions([], [])
    todo = list(subsets)
    while todo:
        later = []
        for subset in todo:
            targets: dict[int, set[int]] = defaultdict(set)
            for state in subset:
                move = machine.symbols[state]
                if move is not None:
                    for each in representatives[move[0]]:
                        targets[each].add(move[1])
            row = [NOWHERE] * (max(symbol_class, default=-1) + 1)
            for each in sorted(targets):
                closed = machine.closure(targets[each])
                if closed not in subsets:
                    subsets[closed] = len(subsets)
                    check_size(len(subsets), max_states)
                    later.append(closed)
                row[each] = subsets[closed]
            result.next.append(row)
            result.accepting.append(end in subset)
        todo = later
    return result, symbol_class


def _classes(machine: _Thompson, num_symbols: int) -> tuple[list[int], dict[frozenset[int], list[int]]]:
    """Return the class of each symbol, and the classes that make up each set of symbols."""
    sets = sorted({move[0] for move in machine.symbols if move is not None}, key=sorted)
    member_of: list[list[int]] = [[] for _ in range(num_symbols)]
    for i, each in enumerate(sets):
        for symbol in each:
            member_of[symbol].append(i)
    numbers: dict[tuple[int, ...], int] = {}
    symbol_class = [numbers.setdefault(tuple(each), len(numbers)) for each in member_of]
    return symbol_class, {each: sorted({symbol_class[symbol] for symbol in each}) for each in sets}


def minimize(machine: Transitions) -> Transitions | None:
    """Return the smallest deterministic automaton of the same language; None if it accepts nothing.

    The states are numbered in the order of a breadth-first walk, so equal languages give equal automata.
    """
    useful = _leads_to_acceptance(machine)
    if not useful[0]:
        return None
    rows = [[t if t != NOWHERE and useful[t] else NOWHERE for t in row] for row in machine.next]
    block = _blocks(rows, machine.accepting)
    number, order = {block[0]: 0}, [0]
    for state in order:  # one state of each block
        for target in rows[state]:
            if target != NOWHERE and block[target] not in number:
                number[block[target]] = len(number)
                order.append(target)
    merged = [[NOWHERE if t == NOWHERE else number[block[t]] for t in rows[state]] for state in order]
    return Transitions(merged, [machine.accepting[state] for state in order])


def _leads_to_acceptance(machine: Transitions) -> list[bool]:
    before: dict[int, set[int]] = defaultdict(set)
    for state, row in enumerate(machine.next):
        for target in row:
            before[target].add(state)
    useful = list(machine.accepting)
    todo = [state for state, each in enumerate(useful) if each]
    while todo:
        for state in before[todo.pop()]:
            if not useful[state]:
                useful[state] = True
                todo.append(state)
    return useful


def _blocks(rows: list[list[int]], accepting: list[bool]) -> list[int]:
    """Return the block of equivalent states that each state is in (Hopcroft, 1971).

    The state after the last stands for a rejected text.
    """
    dead, classes = len(rows), len(rows[0])
    before: list[dict[int, list[int]]] = [defaultdict(list) for _ in range(classes)]
    for state, row in enumerate([*rows, [dead] * classes]):
        for each, target in enumerate(row):
            before[each][dead if target == NOWHERE else target].append(state)
    accepted = {state for state, each in enumerate(accepting) if each}
    blocks = [each for each in (accepted, set(range(dead + 1)) - accepted) if each]
    block = [0] * (dead + 1)
    for i, members in enumerate(blocks):
        for state in members:
            block[state] = i
    todo = set(range(len(blocks)))
    while todo:
        splitter = list(blocks[todo.pop()])
        for each in range(classes):
            touched: dict[int, set[int]] = defaultdict(set)
            for target in splitter:
                for state in before[each].get(target, ()):
                    touched[block[state]].add(state)
            for i, part in touched.items():
                if len(part) == len(blocks[i]):
                    continue
                blocks[i] -= part
                blocks.append(part)
                new = len(blocks) - 1
                for state in part:
                    block[state] = new
                todo.add(new if i in todo or len(part) <= len(blocks[i]) else i)
    return block
