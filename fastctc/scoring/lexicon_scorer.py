"""A lexicon composed with a word model on the fly: labels are weighed by the words that they spell."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastctc.scoring.automaton import OTHERWISE, Automaton
from fastctc.scoring.lexicon import Lexicon
from fastctc.scoring.lexicon_bounds import search_tensors
from fastctc.scoring.scorer import Arc, AutomatonScorer, End

__all__ = ["UNKNOWN_WORD", "LexiconScorer"]

UNKNOWN_WORD = "<unk>"
ROOT, OUTSIDE = 0, -1  # the beginning of a word; within a word that the lexicon lacks


class State(NamedTuple):
    """A node of the trie, or OUTSIDE, and a state of the word model."""

    node: int
    model: int


class LexiconScorer:
    """Weigh labels by the words that they spell (a scorer; see :class:`fastctc.scoring.Scorer`).

    The weight of words w_1 ... w_n is ``lm_weight`` * (ln P(w_1 | <s>) + ... + ln P(</s> | ...)), plus n *
    ``word_bonus``, plus the weights of their spellings. ``separator`` and ``word_begin`` tell where words begin:

    | words are separated by | give | labels |
    | --- | --- | --- |
    | a token of its own | ``separator`` | words, with one separator or more between them; more at both ends |
    | tokens that begin a word ("▁the") | ``word_begin`` | a word ends before such a token |
    | nothing | neither | all ways to cut the labels into words are hypotheses |

    With look-ahead, an arc within a word carries the change of la(node) = the largest weight of a spelling below
    the node by unigrams, and the end of the word carries what is left. The sum over a word is the same, so finished
    sequences do not depend on it.

    Args:
        lexicon: words and spellings.
        model: an n-gram model with its words as ``symbols``, such as :func:`fastctc.scoring.read_arpa` returns. A
            word that it lacks counts as ``<unk>``. None: all words have the weight 0.
        lm_weight: a finite number of at least 0.
        word_bonus: added for each word.
        separator: the label between words.
        word_begin: the labels that begin a word.
        unknown_word: added for each word that the lexicon lacks, which takes the model weight of ``<unk>``. None
            forbids such words. It needs ``separator`` or ``word_begin``.
        look_ahead: whether the weight of a word is spread over its labels.

    Raises:
        ValueError: ``separator`` and ``word_begin`` are both given, or ``unknown_word`` without them. Or
            ``separator`` is part of a spelling, a number is not finite, or ``lm_weight`` is negative. Or ``model``
            has no symbols or no ``<unk>``.
    """

    def __init__(
        self,
        lexicon: Lexicon,
        model: Automaton | None = None,
        *,
        lm_weight: float = 1.0,
        word_bonus: float = 0.0,
        separator: int | None = None,
        word_begin: Iterable[int] | None = None,
        unknown_word: float | None = None,
        look_ahead: bool = True,
    ) -> None:
        for name, value in (
            ("lm_weight", lm_weight),
            ("word_bonus", word_bonus),
            ("unknown_word", unknown_word),
        ):
            if value is not None and (not math.isfinite(value) or (name == "lm_weight" and value < 0)):
                at_least = " of at least 0" if name == "lm_weight" else ""
                raise ValueError(f"{name} is {value}, expected a finite number{at_least}")
        if separator is not None and word_begin is not None:
            raise ValueError("separator and word_begin are both given, expected at most one")
        if unknown_word is not None and separator is None and word_begin is None:
            raise ValueError(
                "unknown_word needs separator or word_begin: else it is not known where words end"
            )
        if separator is not None and bool((lexicon.label == separator).any()):
            raise ValueError(f"separator is {separator}, which is part of a spelling")
        if model is None:
            model = Automaton.from_arcs([(0, OTHERWISE, 0, 0.0)], {0: 0.0}, symbols=[UNKNOWN_WORD])
        self.lexicon, self.model = lexicon, model.scaled(lm_weight)
        self.separator, self.unknown_word, self.word_bonus = separator, unknown_word, word_bonus
        self.word_begin = frozenset(word_begin or ())
        self.model_label, self.unknown_label = _model_labels(lexicon, model)
        self.look_ahead = torch.zeros(lexicon.num_nodes, dtype=torch.float64)
        if look_ahead:
            root = torch.tensor(self.model.root())
            unigrams = self.model.step(root, self.model_label.long())[1]
            self.look_ahead = lexicon.look_ahead(unigrams)

    @property
    def has_boundaries(self) -> bool:
        """Return True if labels tell where words begin."""
        return self.separator is not None or bool(self.word_begin)

    def word(self, number: int) -> str:
        """Return the word of a number; the one after the last stands for words that the lexicon lacks."""
        return self.lexicon.words[number] if number < len(self.lexicon.words) else UNKNOWN_WORD

    @property
    def device(self) -> torch.device:
        """Return the device of the tensors."""
        return self.model.device

    def to(self, device: torch.device | str) -> LexiconScorer:
        """Return the scorer on a device; itself if it is there already."""
        model = self.model.to(device)
        if model is self.model:
            return self
        moved = copy.copy(self)
        moved.model = model
        moved.__dict__["_tensors"] = [each.to(device) for each in self.tensors()]
        return moved

    @property
    def boundary(self) -> int:
        """Return what separates words: 0 nothing, 1 a label, 2 labels that begin a word."""
        return 1 if self.separator is not None else 2 if self.word_begin else 0

    def tensors(self) -> list[Tensor]:
        """Return the tensors that a search needs, without the model's (csrc/math/lexicon.h)."""
        return self._tensors

    @cached_property
    def _tensors(self) -> list[Tensor]:
        return search_tensors(self)

    @cached_property
    def _lists(self) -> _Lists:
        return _Lists(self)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_lists", "_tensors")}

    def begin(self) -> State:
        """Return the state before the first label."""
        return State(ROOT, self.model.start)

    def arcs(self, state: State, label: int) -> list[Arc]:
        """Return all ways to take a label."""
        if not self.has_boundaries:
            return self._arcs_without_boundaries(state, label)
        if label == self.separator:
            return self._finished(state)
        if label not in self.word_begin or state.node == ROOT:
            return self._continued(state, label)
        result = []
        for finished in self._finished(state):
            assert isinstance(finished.state, State)
            for arc in self._continued(finished.state, label):
                result.append(Arc(arc.state, finished.weight + arc.weight, finished.words))
        return result

    def ends(self, state: State) -> list[End]:
        """Return all ways to end: with each word that ends here."""
        if not self.has_boundaries and state.node != ROOT:
            return []
        lists, result = self._lists, []
        for arc in self._finished(state):
            assert isinstance(arc.state, State)
            result += [End(arc.weight + end.weight, arc.words) for end in lists.model.ends(arc.state.model)]
        return result

    def _continued(self, state: State, label: int) -> list[Arc]:
        """Return the arcs of a label within a word, or of the first one."""
        if state.node == OUTSIDE:
            return [Arc(state, 0.0)]
        lists = self._lists
        child = lists.children[state.node].get(label)
        if child is None:
            return self._unknown(state, OUTSIDE)
        return [Arc(State(child, state.model), lists.look_ahead[child] - lists.look_ahead[state.node])]

    def _finished(self, state: State) -> list[Arc]:
        """Return the arcs from a state to the beginning of the next word."""
        if state.node in (ROOT, OUTSIDE):
            words = (UNKNOWN_WORD,) if state.node == OUTSIDE else ()
            return [Arc(State(ROOT, state.model), 0.0, words)]
        return self._words(state.node, state.model) or (
            [] if self._lists.ends[state.node] else self._unknown(state, ROOT)
        )

    def _words(self, node: int, model: int) -> list[Arc]:
        """Return the arcs of all words that end in a node."""
        lists, result = self._lists, []
        for word, spelling in lists.ends[node]:
            target, weight = lists.model.step(model, lists.model_label[word])
            if weight > -math.inf:
                left = weight + spelling + self.word_bonus - lists.look_ahead[node]
                result.append(Arc(State(ROOT, target), left, (self.word(word),)))
        return result

    def _unknown(self, state: State, node: int) -> list[Arc]:
        """Return the arc of a label that no word has here, or of the end of a beginning that is no word."""
        if self.unknown_word is None:
            return []
        target, weight = self._lists.model.step(state.model, self.unknown_label)
        weight += self.unknown_word + self.word_bonus - self._lists.look_ahead[state.node]
        words = (UNKNOWN_WORD,) if node == ROOT else ()
        return [Arc(State(node, target), weight, words)] if weight > -math.inf else []

    def _arcs_without_boundaries(self, state: State, label: int) -> list[Arc]:
        lists = self._lists
        child = lists.children[state.node].get(label)
        if child is None:
            return []
        inner = lists.look_ahead[child] - lists.look_ahead[state.node]
        result = [Arc(State(child, state.model), inner)] if lists.children[child] else []
        return result + [arc._replace(weight=inner + arc.weight) for arc in self._words(child, state.model)]


class _Lists:
    """The same as Python lists, which are faster for one state at a time."""

    def __init__(self, scorer: LexiconScorer) -> None:
        lexicon = scorer.lexicon
        first, labels = lexicon.first_arc.tolist(), lexicon.label.tolist()
        nodes = range(lexicon.num_nodes)
        self.children = [{labels[arc]: arc + 1 for arc in range(first[n], first[n + 1])} for n in nodes]
        ends, words, weights = lexicon.first_end.tolist(), lexicon.word.tolist(), lexicon.weight.tolist()
        self.ends = [[(words[i], weights[i]) for i in range(ends[n], ends[n + 1])] for n in nodes]
        self.look_ahead = scorer.look_ahead.tolist()
        self.model = AutomatonScorer(scorer.model)
        self.model_label = scorer.model_label.tolist()


def _model_labels(lexicon: Lexicon, model: Automaton) -> tuple[Tensor, int]:
    """Return the label of each word in the model, int32, and the label of <unk>."""
    if model.symbols is None:
        raise ValueError("model has no symbols, expected the words by label")
    label_of = {word: label for label, word in enumerate(model.symbols)}
    unknown = label_of.get(UNKNOWN_WORD, label_of.get("<UNK>"))
    if unknown is None:
        raise ValueError(f"model has no {UNKNOWN_WORD} among its symbols")
    labels = torch.tensor([label_of.get(word, unknown) for word in lexicon.words], dtype=torch.int32)
    return labels, unknown
