"""From a model's log-probabilities to texts: greedily, by beam search with scorers, or under a constraint."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastctc import decode
from fastctc.crnn.data import Constraint
from fastctc.crnn.read.constraint import ConstrainedSearch, text_list
from fastctc.decode import greedy_decode
from fastctc.loss import ctc_loss
from fastctc.scoring import CallbackScorer
from fastctc.scoring.packed import SearchScorer
from fastctc.text import Alphabet

INFORMED_BEAM_SIZE = 20
"""Beam size under a constraint or with a scorer if none is given."""

Scorers = SearchScorer | Sequence[SearchScorer]


@dataclass(frozen=True)
class Hypothesis:
    """One possible text.

    Attributes:
        text: its characters.
        log_prob: its natural-log probability given the image, summed over all alignments.
        model_score: the weight that scorers give it, a natural logarithm.
    """

    text: str
    log_prob: float
    model_score: float = 0.0

    @property
    def score(self) -> float:
        """Return what hypotheses are sorted by: ``log_prob`` + ``model_score``."""
        return self.log_prob + self.model_score


class Decoder:
    """Finds the texts of log-probabilities.

    Args:
        alphabet: characters and blank.
        beam_size: prefixes in the beam; None: greedy, or 20 with a constraint or a scorer.
        nbest: largest number of hypotheses per image.
        constraint: which texts are allowed; None: all.
        scorer: what weighs texts, see :func:`fastctc.beam_search`; None or ``()``: nothing.

    Raises:
        ValueError: ``beam_size`` or ``nbest`` below 1, or ``nbest`` above the beam size. Or a constraint that does
            not list its texts, beside a scorer.
    """

    def __init__(
        self,
        alphabet: Alphabet,
        *,
        beam_size: int | None = None,
        nbest: int = 1,
        constraint: Constraint | None = None,
        scorer: Scorers | None = None,
    ) -> None:
        if beam_size is not None and beam_size < 1:
            raise ValueError(f"beam_size is {beam_size}, expected at least 1, or None for greedy decoding")
        self._scorers: list[SearchScorer] = []
        if scorer is not None:
            self._scorers = list(scorer) if isinstance(scorer, Sequence) else [scorer]
        if (constraint is not None or self._scorers) and beam_size is None:
            beam_size = INFORMED_BEAM_SIZE
        if nbest > 1 and beam_size is None:
            raise ValueError(
                f"nbest is {nbest}, but greedy decoding has one hypothesis: give a beam_size too"
            )
        if not 1 <= nbest <= (beam_size or 1):
            raise ValueError(f"nbest is {nbest}, expected 1 to beam_size, which is {beam_size or 1}")
        self.alphabet, self.beam_size, self.nbest = alphabet, beam_size, nbest
        self._search: ConstrainedSearch | None = None
        if constraint is not None and self._scorers:
            listed = text_list(constraint, alphabet)
            if listed is None:
                raise ValueError("constraint does not list its texts, which is needed beside a scorer")
            self._scorers.insert(0, listed.grammar)
        elif constraint is not None:
            assert beam_size is not None
            self._search = ConstrainedSearch(constraint, alphabet, beam_size)

    def __call__(self, log_probs: Tensor, lengths: Tensor) -> list[list[Hypothesis]]:
        """Return the hypotheses of each image, the best first.

        An image has none if no text has a probability above 0, or if a log-probability is not a number.

        Args:
            log_probs: (N, T, C) natural-log probabilities.
            lengths: (N,) frames of each image.
        """
        usable = are_numbers(log_probs, lengths)
        if not bool(usable.all()):
            rest = iter(
                self(log_probs[usable], lengths[usable.to(lengths.device)]) if bool(usable.any()) else []
            )
            return [next(rest) if each else [] for each in usable.tolist()]
        if self._search is not None:
            found = [[Hypothesis(*each) for each in one] for one in self._search(log_probs, lengths)]
        elif self.beam_size is None:
            found = greedy_hypotheses(log_probs, lengths, self.alphabet)
        else:
            found = self._beam(log_probs, lengths, self.beam_size)
        return [[each for each in one[: self.nbest] if each.score > -math.inf] for one in found]

    def _beam(self, log_probs: Tensor, lengths: Tensor, beam_size: int) -> list[list[Hypothesis]]:
        device = log_probs.device
        scorers = [each if isinstance(each, CallbackScorer) else each.to(device) for each in self._scorers]
        result = decode.beam_search(
            log_probs, lengths, blank=self.alphabet.blank, beam_size=beam_size, nbest=self.nbest,
            exact_scores=True, scorer=scorers or None,
        )  # fmt: skip
        columns = [result.scores.tolist()]
        if isinstance(result, decode.ScoredResult):
            columns = [result.acoustic_scores.tolist(), result.model_scores.tolist()]
        texts = result.to_text(self.alphabet)
        # Fewer texts than scores mean that the last ones are missing.
        return [[Hypothesis(*each) for each in zip(*one, strict=False)] for one in zip(texts, *columns)]

    def why_no_hypothesis(self, log_probs: Tensor) -> str:
        """Return the reason why an image of these log-probabilities (T, C) has no hypothesis."""
        if not bool((log_probs < math.inf).all()):
            return "the model's output is not a number (NaN): its weights may be damaged"
        if self._scorers:
            return f"no allowed text is among the {self.beam_size} of the beam: a larger beam may find one"
        return "no allowed text has a probability above 0"


def are_numbers(log_probs: Tensor, lengths: Tensor) -> Tensor:
    """Return (N,) bool, true for the images whose log-probabilities are all below infinity and not NaN.

    Args:
        log_probs: (N, T, C).
        lengths: (N,) frames of each image; the frames behind do not count.
    """
    if bool(log_probs.numel()) and bool(log_probs.max() < math.inf):  # a maximum is NaN if any number is
        return torch.ones(len(log_probs), dtype=torch.bool, device=log_probs.device)
    inside = torch.arange(log_probs.shape[1], device=log_probs.device) < lengths.to(log_probs.device)[:, None]
    return ((log_probs < math.inf).all(-1) | ~inside).all(-1)


def greedy_texts(log_probs: Tensor, lengths: Tensor, alphabet: Alphabet) -> list[str]:
    """Return the text of the most probable path of each image."""
    return [alphabet.decode(row) for row in greedy_decode(log_probs, lengths, blank=alphabet.blank).to_list()]


def greedy_hypotheses(log_probs: Tensor, lengths: Tensor, alphabet: Alphabet) -> list[list[Hypothesis]]:
    """Return for each image a list of one: the greedy text, scored over all its alignments.

    Args:
        log_probs: (N, T, C).
        lengths: (N,) frames of each image.
        alphabet: characters and blank.

    Returns:
        N lists of hypotheses.
    """
    decoded = greedy_decode(log_probs, lengths, blank=alphabet.blank)
    targets = decoded.tokens.clamp_min(
        0 if alphabet.blank else 1
    )  # the padding must be a class, but is not used
    losses = ctc_loss(
        log_probs.transpose(0, 1), targets, lengths, decoded.lengths, blank=alphabet.blank, reduction="none"
    )
    texts = [alphabet.decode(row) for row in decoded.to_list()]
    return [[Hypothesis(text, -loss)] for text, loss in zip(texts, losses.tolist(), strict=True)]
