"""Lexicons: words and how they are spelled in labels, as a trie."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from fastctc.text import Alphabet

__all__ = ["Lexicon"]

Spelling = tuple[str, Sequence[int]]
ALTERNATIVE = re.compile(r"(.+)\((\d+)\)")  # the second pronunciation of a word: "read(2)"


class Lexicon:
    """Words and their spellings in labels: a trie whose nodes are the beginnings of spellings.

    A word may have several spellings (pronunciations), and a spelling several words (homophones). Node 0 is the
    empty beginning. Nodes are numbered by length, then in the order of labels. So equal contents give equal
    lexicons, whatever the order of the entries.

    Args:
        entries: (word, labels) or (word, labels, weight) of each spelling. The weight is a natural logarithm, such
            as ln P(pronunciation | word). Entries that occur twice count once, with the larger weight.

    Raises:
        ValueError: a word is empty or has a blank in it, its spelling is empty or has a negative label, a weight is
            NaN or infinite, or there are no entries.

    >>> lexicon = Lexicon.from_words(["an", "ant", "at"], Alphabet("ant"))
    >>> lexicon.num_nodes, lexicon.words
    (5, ('an', 'ant', 'at'))
    """

    first_arc: Tensor  #: (nodes + 1) int32, the arcs of node n are ``first_arc[n]`` to ``first_arc[n + 1]``
    label: Tensor  #: (nodes - 1) int32, increasing within a node; arc a leads to node a + 1
    first_end: Tensor  #: (nodes + 1) int32, node n has the spellings ``first_end[n]`` to ``first_end[n + 1]``
    word: Tensor  #: (spellings) int32, numbers of words
    weight: Tensor  #: (spellings) float32
    words: tuple[str, ...]  #: sorted

    def __init__(self, entries: Iterable[Spelling | tuple[str, Sequence[int], float]]) -> None:
        weights: dict[tuple[tuple[int, ...], str], float] = {}
        for position, entry in enumerate(entries):
            word, labels, weight = entry if len(entry) == 3 else (*entry, 0.0)
            key = _checked(position, word, labels, weight)
            weights[key] = max(weight, weights.get(key, -math.inf))
        if not weights:
            raise ValueError("entries is empty, expected at least one word")
        self.words = tuple(sorted({word for _, word in weights}))
        number = {word: i for i, word in enumerate(self.words)}

        parents, self.label, nodes = _grow([labels for labels, _ in weights])
        self.first_arc = _starts(parents, self.label.shape[0] + 1)
        ends = sorted(
            (node, number[word], weight) for node, ((_, word), weight) in zip(nodes, weights.items())
        )
        self.first_end = _starts(torch.tensor([node for node, _, _ in ends]), self.num_nodes)
        self.word = torch.tensor([word for _, word, _ in ends], dtype=torch.int32)
        self.weight = torch.tensor([weight for _, _, weight in ends], dtype=torch.float32)

    @classmethod
    def from_words(cls, words: Iterable[str], spell: Alphabet | Callable[[str], Sequence[int]]) -> Lexicon:
        """Return the lexicon of words that are spelled by their characters, or by a function.

        Args:
            words: the words.
            spell: an :class:`fastctc.Alphabet`, or what gives the labels of a word: a tokenizer's ``encode``.

        Raises:
            ValueError: a word has a character that the alphabet lacks.
        """
        encode = spell.encode if isinstance(spell, Alphabet) else spell
        return cls((word, encode(word)) for word in words)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], tokens: Sequence[str | None]) -> Lexicon:
        """Return the lexicon of a file with a word and the names of its tokens in each line, as cmudict's.

        ``word(2)`` is another spelling of ``word``. Empty lines and lines that begin with ``;;;`` are skipped.

        Args:
            path: the file, in UTF-8.
            tokens: the name of the token of each label.

        Raises:
            ValueError: a line has no token, or one that is not in ``tokens``; the message names the line.
        """
        label_of = {token: label for label, token in enumerate(tokens) if token is not None}

        def entries() -> Iterable[Spelling]:
            with open(path, encoding="utf-8") as file:
                for number, line in enumerate(file, start=1):
                    fields = line.split()
                    if not fields or line.startswith(";;;"):
                        continue
                    where = f"{os.fspath(path)}, line {number}"
                    word, *names = fields
                    if not names:
                        raise ValueError(f"{where}: expected a word and its tokens, got {line.strip()!r}")
                    unknown = [name for name in names if name not in label_of]
                    if unknown:
                        raise ValueError(f"{where}: expected names of tokens, got {unknown[0]!r}")
                    found = ALTERNATIVE.fullmatch(word)
                    yield found.group(1) if found else word, [label_of[name] for name in names]

        return cls(entries())

    @property
    def num_nodes(self) -> int:
        """Return the number of beginnings of spellings, with the empty one."""
        return self.first_arc.shape[0] - 1

    def look_ahead(self, values: Tensor) -> Tensor:
        """Return for each node the largest value of a spelling that begins there: of its word, plus its weight.

        Args:
            values: (words) floating-point, such as the unigram log-probability of each word.

        Returns:
            (nodes) float64. A node below which all values are -inf has the value of the node before it; the first
            node has 0.
        """
        first = self.first_arc.long()
        best = torch.full((self.num_nodes,), -math.inf, dtype=torch.float64)
        node_of_end = torch.repeat_interleave(self.first_end.long().diff())
        best.scatter_reduce_(0, node_of_end, values.double()[self.word.long()] + self.weight.double(), "amax")
        parent = torch.repeat_interleave(first.diff())
        depths = self._depths()
        for first_node, end in reversed(depths[1:]):
            best.scatter_reduce_(0, parent[first_node - 1 : end - 1], best[first_node:end].clone(), "amax")
        best[0] = 0.0
        for first_node, end in depths[1:]:
            part = best[first_node:end]
            best[first_node:end] = torch.where(part > -math.inf, part, best[parent[first_node - 1 : end - 1]])
        return best

    def _depths(self) -> list[tuple[int, int]]:
        """Return the first node of each length, and the one after the last."""
        ranges, first, end = [], 0, 1
        while first < end:
            ranges.append((first, end))
            first, end = end, int(self.first_arc[end]) + 1  # arc a leads to node a + 1
        return ranges

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Lexicon):
            return NotImplemented
        names = ("first_arc", "label", "first_end", "word", "weight")
        return self.words == other.words and all(
            torch.equal(getattr(self, n), getattr(other, n)) for n in names
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Lexicon(words={len(self.words)}, spellings={self.word.shape[0]}, nodes={self.num_nodes})"


def _checked(position: int, word: str, labels: Sequence[int], weight: float) -> tuple[tuple[int, ...], str]:
    if not isinstance(word, str) or word.split() != [word]:
        raise ValueError(
            f"entries[{position}] has the word {word!r}, expected a str without blanks, not empty"
        )
    labels = tuple(map(int, labels))
    if not labels or min(labels) < 0:
        raise ValueError(
            f"entries[{position}] spells {word!r} as {labels}, expected one label or more, each at least 0"
        )
    if not math.isfinite(weight):
        raise ValueError(f"entries[{position}] has the weight {weight}, expected a finite number")
    return labels, word


def _grow(spellings: list[tuple[int, ...]]) -> tuple[Tensor, Tensor, list[int]]:
    """Return the parent and the label of each node but the first, and the node where each spelling ends."""
    lengths = torch.tensor([len(labels) for labels in spellings])
    flat = torch.tensor([label for labels in spellings for label in labels])
    first = lengths.cumsum(0) - lengths
    base = int(flat.max()) + 1
    node = torch.zeros_like(lengths)
    parents, labels, count = [], [], 1
    for length in range(int(lengths.max())):
        growing = (lengths > length).nonzero()[:, 0]
        keys, place = torch.unique(node[growing] * base + flat[first[growing] + length], return_inverse=True)
        node[growing] = count + place
        parents.append(keys // base)
        labels.append(keys % base)
        count += keys.numel()
    return torch.cat(parents), torch.cat(labels).int(), node.tolist()


def _starts(numbers: Tensor, count: int) -> Tensor:
    """Return where each of 0 to count - 1 begins in sorted numbers, and their number."""
    starts = torch.zeros(count + 1, dtype=torch.int32)
    starts[1:] = torch.bincount(numbers, minlength=count).cumsum(0)
    return starts
