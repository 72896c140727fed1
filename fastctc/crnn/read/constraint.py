"""Reading under a constraint: the most probable of the allowed texts.

The constraint proposes candidates, given the texts of a beam search without it. If it lists its texts, their
automaton is the scorer of another search, whose texts are candidates too. Candidates are compared by their exact
CTC probabilities.

The probabilities of all texts sum to 1. So no other text can beat a candidate with more probability than all unseen
texts together. Where it has less, as for an image of no allowed text, all listed texts are scored. Then the answer
is the most probable allowed text for certain, and the beam only decides how often the long way is taken.

A constraint of your own, a list of words:

>>> class OneOf:
...     def __init__(self, words):
...         self.words = words
...     def candidates(self, nbest):
...         return [text for text in nbest if text in self.words]
...     def all_texts(self):
...         return self.words
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from fastctc import decode
from fastctc.crnn.data import Constraint
from fastctc.crnn.read.grammar import automaton_of_texts
from fastctc.loss import ctc_loss
from fastctc.scoring import Automaton
from fastctc.text import Alphabet

Scored = dict[str, float]
"""Texts with their natural-log probabilities."""

_ROUNDING = 1e-4  # of a sum of probabilities computed in float32
_GATHERED = 1 << 24  # log-probabilities copied at once: 64 MiB


class _Targets(NamedTuple):
    """Texts as the loss takes them: padded tokens (K, S), and the number of tokens of each text (K,)."""

    texts: Sequence[str]
    tokens: Tensor
    lengths: Tensor


class TextList:
    """The allowed texts that a model can spell, for the search and for the loss.

    Attributes:
        texts: at least one.
        alphabet: characters and blank.
    """

    def __init__(self, texts: Sequence[str], alphabet: Alphabet) -> None:
        self.texts, self.alphabet = texts, alphabet

    @cached_property
    def grammar(self) -> Automaton:
        """Return the automaton of the texts."""
        return automaton_of_texts(self.texts, self.alphabet)

    @cached_property
    def targets(self) -> _Targets:
        """Return the texts for the loss."""
        return _targets(self.texts, self.alphabet)


def text_list(constraint: Constraint, alphabet: Alphabet) -> TextList | None:
    """Return the texts that a constraint lists; None if it does not.

    The lists of the last few constraints are kept, because texts may be many.

    Raises:
        ValueError: none is made of the alphabet's characters.
    """
    texts = constraint.all_texts()
    return None if texts is None else _text_list(tuple(texts), alphabet)


@lru_cache(maxsize=8)
def _text_list(texts: tuple[str, ...], alphabet: Alphabet) -> TextList:
    allowed = _spellable(texts, alphabet)
    if not allowed:
        raise ValueError(f"no allowed text is made of the model's characters {alphabet.characters!r}")
    return TextList(allowed, alphabet)


def _spellable(texts: Iterable[str], alphabet: Alphabet) -> list[str]:
    """Return the texts that a model can spell, each once."""
    known = set(alphabet.characters)
    return [text for text in dict.fromkeys(texts) if known.issuperset(text)]


def _targets(texts: Sequence[str], alphabet: Alphabet) -> _Targets:
    tokens = [alphabet.encode(text) for text in texts]
    longest = max(map(len, tokens), default=0)
    padding = [0 if alphabet.blank else 1] * longest  # a class, but not used
    padded = [row + padding[len(row) :] for row in tokens]
    return _Targets(
        texts,
        torch.tensor(padded, dtype=torch.int64).view(len(texts), longest),
        torch.tensor([len(row) for row in tokens], dtype=torch.int64),
    )


class ConstrainedSearch:
    """Find the allowed texts of images.

    Args:
        constraint: what is allowed.
        alphabet: characters and blank of the model. A text with other characters has the probability 0.
        beam_size: prefixes in the beams.

    Raises:
        ValueError: the constraint lists its texts, and none is made of the alphabet's characters.
    """

    def __init__(self, constraint: Constraint, alphabet: Alphabet, beam_size: int) -> None:
        self.constraint, self.alphabet, self.beam_size = constraint, alphabet, beam_size
        self.listed = text_list(constraint, alphabet)

    def __call__(self, log_probs: Tensor, lengths: Tensor) -> list[list[tuple[str, float]]]:
        """Return the allowed texts of each image, the most probable first.

        Args:
            log_probs: (N, T, C) natural-log probabilities.
            lengths: (N,) frames of each image.

        Returns:
            For each image texts with their natural-log probabilities, -inf where a text does not fit.
        """
        nbest = self._beam(log_probs, lengths, None)
        grammar = None if self.listed is None else self.listed.grammar
        allowed = [{} for _ in nbest] if grammar is None else self._beam(log_probs, lengths, grammar)
        proposals = [
            [
                text
                for text in _spellable(self.constraint.candidates(list(found)), self.alphabet)
                if text not in known
            ]
            for found, known in zip(nbest, allowed, strict=True)
        ]
        scores = iter(self._score_proposals(log_probs, lengths, proposals))
        for known, texts in zip(allowed, proposals, strict=True):
            known.update((text, next(scores)) for text in texts)
        if self.listed is not None:
            for i, (known, found) in enumerate(zip(allowed, nbest, strict=True)):
                if not _is_best_of_all(known, found):
                    allowed[i] = self._best_of_all(log_probs[i], lengths[i], self.listed.targets)
        return [sorted(known.items(), key=lambda pair: -pair[1]) for known in allowed]

    def _beam(self, log_probs: Tensor, lengths: Tensor, grammar: Automaton | None) -> list[Scored]:
        """Return the texts of a beam search: with a grammar by exact scores, without it by lower bounds of them."""
        result = decode.beam_search(
            log_probs, lengths, blank=self.alphabet.blank, beam_size=self.beam_size, nbest=self.beam_size,
            exact_scores=grammar is not None, scorer=None if grammar is None else grammar.to(log_probs.device),
        )  # fmt: skip
        texts, scores = result.to_text(self.alphabet), result.scores.tolist()
        return [dict(zip(*pair, strict=False)) for pair in zip(texts, scores, strict=True)]

    def _best_of_all(self, log_probs: Tensor, length: Tensor, everything: _Targets) -> Scored:
        """Score all listed texts of one image, log_probs (T, C), and return the best ``beam_size``."""
        count = len(everything.texts)
        of_image = log_probs.unsqueeze(1).expand(-1, count, -1)  # no copy
        scores = self._scores(of_image, length.expand(count), everything)
        best = scores.sort(descending=True, stable=True).indices[: self.beam_size]
        return {everything.texts[k]: score for k, score in zip(best.tolist(), scores[best].tolist())}

    def _score_proposals(self, log_probs: Tensor, lengths: Tensor, proposals: list[list[str]]) -> list[float]:
        """Score all texts of all images by one call of the loss, or by a few where memory is short."""
        rows = torch.tensor([i for i, texts in enumerate(proposals) for _ in texts], dtype=torch.int64)
        rows = rows.to(log_probs.device)
        flat = [text for texts in proposals for text in texts]
        _, frames, classes = log_probs.shape
        step = max(1, _GATHERED // (frames * classes))
        scores: list[float] = []
        for start in range(0, len(flat), step):
            part = slice(start, start + step)
            targets = _targets(flat[part], self.alphabet)
            of_texts = log_probs[rows[part]].transpose(0, 1)
            scores += self._scores(of_texts, lengths[rows[part]], targets).tolist()
        return scores

    def _scores(self, log_probs: Tensor, lengths: Tensor, targets: _Targets) -> Tensor:
        """Return natural-log probabilities of K texts: log_probs (T, K, C), lengths (K,)."""
        with torch.no_grad():
            losses = ctc_loss(
                log_probs,
                targets.tokens,
                lengths,
                targets.lengths,
                blank=self.alphabet.blank,
                reduction="none",
            )
        return losses.neg()


def _is_best_of_all(scored: Scored, found: Scored) -> bool:
    """Return True if the best of ``scored`` has more probability than all texts in neither list together."""
    best = max(map(math.exp, scored.values()), default=0.0)
    return best > 1 - sum(map(math.exp, (found | scored).values())) + _ROUNDING
