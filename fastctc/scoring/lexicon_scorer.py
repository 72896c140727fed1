"""A lexicon composed with a word model on the fly: labels are weighed by the words that they spell."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch

from fastctc.scoring.automaton import Automaton
from fastctc.scoring.lexicon import Lexicon
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
        self.separator, self.unknown_word, self.word_bonus = separator, unknown_word, word_bonus
        self.word_begin = frozenset(word_begin or ())
        self.words = lexicon.words
        if model is None:
            model = Automaton.from_arcs([(0, -1, 0, 0.0)], {0: 0.0}, symbols=[UNKNOWN_WORD])
        self.model = AutomatonScorer(model.scaled(lm_weight))
        self.model_label, self.unknown_label = _model_labels(lexicon, model)

        first, labels = lexicon.first_arc.tolist(), lexicon.label.tolist()
        nodes = range(lexicon.num_nodes)
        self.children = [{labels[arc]: arc + 1 for arc in range(first[n], first[n + 1])} for n in nodes]
        ends, words, weights = lexicon.first_end.tolist(), lexicon.word.tolist(), lexicon.weight.tolist()
        self.ends_of = [[(words[i], weights[i]) for i in range(ends[n], ends[n + 1])] for n in nodes]
        self.look_ahead = [0.0] * lexicon.num_nodes
        if look_ahead:
            root = self.model.root()
            unigrams = [self.model.step(root, label)[1] for label in self.model_label]
            self.look_ahead = lexicon.look_ahead(torch.tensor(unigrams, dtype=torch.float64)).tolist()

    def begin(self) -> State:
        """Return the state before the first label."""
        return State(ROOT, self.model.begin())

    def arcs(self, state: State, label: int) -> list[Arc]:
        """Return all ways to take a label."""
        if self.separator is None and not self.word_begin:
            return self._arcs_without_boundaries(state, label)
        if label == self.separator:
            return self._finished(state)
        if label not in self.word_begin or state.node == ROOT:
            return self._continued(state, label)
        result = []
        for finished in self._finished(state):
            assert isinstance(finished.state, State)
            for arc in self._continued(finished.state, label):
                words = (*finished.words, *arc.words)
                result.append(Arc(arc.state, finished.weight + arc.weight, words))
        return result

    def ends(self, state: State) -> list[End]:
        """Return all ways to end: with each word that ends here."""
        if self.separator is None and not self.word_begin and state.node != ROOT:
            return []
        result = []
        for arc in self._finished(state):
            assert isinstance(arc.state, State)
            result += [End(arc.weight + end.weight, arc.words) for end in self.model.ends(arc.state.model)]
        return result

    def _continued(self, state: State, label: int) -> list[Arc]:
        """Return the arcs of a label within a word, or of the first one."""
        if state.node == OUTSIDE:
            return [Arc(state, 0.0)]
        child = self.children[state.node].get(label)
        if child is None:
            return self._unknown(state, OUTSIDE)
        return [Arc(State(child, state.model), self.look_ahead[child] - self.look_ahead[state.node])]

    def _finished(self, state: State) -> list[Arc]:
        """Return the arcs from a state to the beginning of the next word."""
        if state.node in (ROOT, OUTSIDE):
            return [Arc(State(ROOT, state.model), 0.0)]
        return self._words(state.node, state.model) or (
            [] if self.ends_of[state.node] else self._unknown(state, ROOT)
        )

    def _words(self, node: int, model: int) -> list[Arc]:
        """Return the arcs of all words that end in a node."""
        result = []
        for word, spelling in self.ends_of[node]:
            target, weight = self.model.step(model, self.model_label[word])
            if weight > -math.inf:
                left = weight + spelling + self.word_bonus - self.look_ahead[node]
                result.append(Arc(State(ROOT, target), left, (self.words[word],)))
        return result

    def _unknown(self, state: State, node: int) -> list[Arc]:
        """Return the arc of a word that the lexicon lacks."""
        if self.unknown_word is None:
            return []
        target, weight = self.model.step(state.model, self.unknown_label)
        weight += self.unknown_word + self.word_bonus - self.look_ahead[state.node]
        return [Arc(State(node, target), weight, (UNKNOWN_WORD,))] if weight > -math.inf else []

    def _arcs_without_boundaries(self, state: State, label: int) -> list[Arc]:
        child = self.children[state.node].get(label)
        if child is None:
            return []
        inner = self.look_ahead[child] - self.look_ahead[state.node]
        result = [Arc(State(child, state.model), inner)] if self.children[child] else []
        return result + [arc._replace(weight=inner + arc.weight) for arc in self._words(child, state.model)]


def _model_labels(lexicon: Lexicon, model: Automaton) -> tuple[list[int], int]:
    """Return the label of each word in the model, and the label of <unk>."""
    if model.symbols is None:
        raise ValueError("model has no symbols, expected the words by label")
    label_of = {word: label for label, word in enumerate(model.symbols)}
    unknown = label_of.get(UNKNOWN_WORD, label_of.get("<UNK>"))
    if unknown is None:
        raise ValueError(f"model has no {UNKNOWN_WORD} among its symbols")
    return [label_of.get(word, unknown) for word in lexicon.words], unknown
