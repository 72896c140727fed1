"""Hotwords: phrases whose occurrences add a bonus."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from fastctc.scoring.automaton import OTHERWISE, Automaton
from fastctc.text import Alphabet

__all__ = ["hotwords"]

FLOAT32_DIGITS = 24  # of a mantissa, in base 2


def hotwords(
    bonuses: Mapping[str, float] | Mapping[tuple[int, ...], float],
    alphabet: Alphabet | None = None,
    *,
    separator: int | str | None = None,
    partial_credit: bool = True,
) -> Automaton:
    """Return the automaton of phrases that add a bonus: A(y) = the sum of the bonuses of all occurrences in y.

    Occurrences that overlap count each. A label that begins no phrase has the weight 0, so nothing is forbidden.
    The algorithm is the one of Aho and Corasick (1975), "Efficient string matching".

    With ``partial_credit``, a phrase of which k of n labels have occurred is credited with k/n of its bonus. So a
    search keeps it. The credit is a potential: it is taken back when the phrase does not go on, and at the end of
    y. So finished sequences have the same weight with and without it.

    Args:
        bonuses: the bonus of each phrase, a natural logarithm that may be negative. A phrase is a text, or a tuple
            of labels.
        alphabet: the labels of texts.
        separator: the label (or the character) between words. With it, only whole words count: an occurrence begins
            at the beginning of y or after a separator, and it ends at the end of y or before one.
        partial_credit: whether a beginning of a phrase is credited.

    Returns:
        An automaton with a state for each beginning of a phrase. Bonuses are rounded to multiples of a power of
        two, so that all sums of its weights are exact. The error of a bonus is at most 2^-23 of the largest weight.

    Raises:
        TypeError: a phrase is a text, and there is no ``alphabet``.
        ValueError: a phrase is empty or has a character that the alphabet lacks, a bonus is not finite, or
            ``separator`` is no label and no character.

    >>> from fastctc import Alphabet
    >>> names = hotwords({"anna": 2.0, "an": 0.5}, Alphabet("an"))
    >>> names.score(Alphabet("an").encode("annanna"))  # twice "anna", twice "an"
    5.0
    """
    gap = _separator(separator, alphabet)
    trie = _Trie()
    for phrase, bonus in bonuses.items():
        labels = _labels(phrase, "bonuses", alphabet)
        if not math.isfinite(bonus):
            raise ValueError(f"bonuses[{phrase!r}] is {bonus}, expected a finite number")
        trie.add(labels, float(bonus), gap)
    trie.link()
    return trie.automaton(partial_credit, gap)


def _separator(separator: int | str | None, alphabet: Alphabet | None) -> int | None:
    if separator is None:
        return None
    (*rest, label) = _labels(separator if isinstance(separator, str) else [separator], "separator", alphabet)
    if rest:
        raise ValueError(f"separator is {separator!r}, expected one character")
    return label


def _labels(phrase: str | Sequence[int], name: str, alphabet: Alphabet | None) -> list[int]:
    if isinstance(phrase, str):
        if alphabet is None:
            raise TypeError(f"{name} has the text {phrase!r}, expected an alphabet for texts, or labels")
        labels = alphabet.encode(phrase)
    else:
        labels = [int(label) for label in phrase]
    if not labels or min(labels) < 0:
        raise ValueError(f"{name} has the phrase {phrase!r}, expected one label or more, each at least 0")
    return labels


class _Trie:
    """The beginnings of phrases. Node 0 is the empty one."""

    def __init__(self) -> None:
        self.children: list[dict[int, int]] = [{}]
        self.phrases: list[
            tuple[list[int], float, int]
        ] = []  # nodes from the second on, bonus, labels without gaps
        self.order = [0]  # nodes by depth
        self.failure = [-1]

    def add(self, labels: list[int], bonus: float, gap: int | None) -> None:
        nodes = [0]
        for label in labels if gap is None else [gap, *labels, gap]:
            children = self.children[nodes[-1]]
            if label not in children:
                children[label] = len(self.children)
                self.children.append({})
            nodes.append(children[label])
        self.phrases.append((nodes[1 if gap is None else 2 :], bonus, len(labels)))

    def link(self) -> None:
        """Set the failure arc of each node: to its longest proper ending that is a node."""
        self.failure = [-1] * len(self.children)
        for node in self.order:
            for label, child in self.children[node].items():
                self.order.append(child)
                self.failure[child] = self.follow(self.failure[node], label)

    def follow(self, node: int, label: int) -> int:
        """Return the longest ending of a node and the label that is a node; a node of -1 is before the root."""
        while node >= 0:
            target = self.children[node].get(label)
            if target is not None:
                return target
            node = self.failure[node]
        return 0

    def automaton(self, partial_credit: bool, gap: int | None) -> Automaton:
        gains, credits = self.values(1.0, partial_credit)
        largest = max(map(abs, gains)) + 2 * max(map(abs, credits))
        # All weights are multiples of `unit` and at most 2^24 of them: float32 holds them, and their differences.
        unit = 2.0 ** (math.ceil(math.log2(largest)) + 1 - FLOAT32_DIGITS) if largest > 0 else 1.0
        gains, credits = self.values(unit, partial_credit, rounded=True)
        counts = [len(children) for children in self.children]
        counts[0] += 1
        first_arc = torch.zeros(len(counts) + 1, dtype=torch.int32)
        first_arc[1:] = torch.tensor(counts).cumsum(0)
        labels, targets, weights = [OTHERWISE], [0], [0.0]
        for node, children in enumerate(self.children):
            for label in sorted(children):
                target = children[label]
                labels.append(label)
                targets.append(target)
                weights.append(gains[target] + credits[target] - credits[node])
        refunds = [credits[max(f, 0)] - credit for f, credit in zip(self.failure, credits)]
        finals = [-credit for credit in credits]
        if gap is not None:
            finals = [gains[self.follow(node, gap)] + final for node, final in enumerate(finals)]
        return Automaton.from_tensors(
            first_arc=first_arc,
            label=torch.tensor(labels, dtype=torch.int32),
            next_state=torch.tensor(targets, dtype=torch.int32),
            weight=torch.tensor(weights, dtype=torch.float32),
            failure_state=torch.tensor(self.failure, dtype=torch.int32),
            failure_weight=torch.tensor(refunds, dtype=torch.float32),
            final_weight=torch.tensor(finals, dtype=torch.float32),
            start=0 if gap is None else self.follow(0, gap),
        )

    def values(
        self, unit: float, partial_credit: bool, rounded: bool = False
    ) -> tuple[list[float], list[float]]:
        """Return of each node the bonuses of phrases that end in it, and the credit of those that go on."""

        def value(x: float) -> float:
            return round(x / unit) * unit if rounded else x

        gains = [0.0] * len(self.children)
        credits: list[float | None] = [None] * len(self.children)
        for nodes, bonus, length in self.phrases:
            gains[nodes[-1]] += value(bonus)
            for done, node in enumerate(nodes[:-1], start=1):
                credit, other = value(bonus * done / length), credits[node]
                credits[node] = credit if other is None else max(credit, other)
        for node in self.order[1:]:
            gains[node] += gains[self.failure[node]]
        return gains, [credit or 0.0 if partial_credit else 0.0 for credit in credits]
