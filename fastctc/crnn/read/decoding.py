"""From a model's log-probabilities to texts: greedily, by beam search, or among the texts a constraint allows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fastctc.crnn.data import Constraint
from fastctc.crnn.read.constraint import ConstrainedSearch
from fastctc.decode import beam_search, greedy_decode
from fastctc.loss import ctc_loss
from fastctc.text import Alphabet

CONSTRAINED_BEAM_SIZE = 20
"""Beam size under a constraint if none is given."""


@dataclass(frozen=True)
class Hypothesis:
    """One possible text with its natural-log probability given the image, summed over all alignments."""

    text: str
    log_prob: float


class Decoder:
    """Finds the texts of log-probabilities.

    Args:
        alphabet: characters and blank.
        beam_size: prefixes in the beam; None: greedy, or 20 with a constraint.
        nbest: largest number of hypotheses per image.
        constraint: which texts are allowed; None: all.

    Raises:
        ValueError: ``beam_size`` or ``nbest`` below 1, or ``nbest`` above the beam size.
    """

    def __init__(
        self,
        alphabet: Alphabet,
        *,
        beam_size: int | None = None,
        nbest: int = 1,
        constraint: Constraint | None = None,
    ) -> None:
        if beam_size is not None and beam_size < 1:
            raise ValueError(f"beam_size is {beam_size}, expected at least 1, or None for greedy decoding")
        if constraint is not None and beam_size is None:
            beam_size = CONSTRAINED_BEAM_SIZE
        if nbest > 1 and beam_size is None:
            raise ValueError(
                f"nbest is {nbest}, but greedy decoding has one hypothesis: give a beam_size too"
            )
        if not 1 <= nbest <= (beam_size or 1):
            raise ValueError(f"nbest is {nbest}, expected 1 to beam_size, which is {beam_size or 1}")
        self.alphabet, self.beam_size, self.nbest = alphabet, beam_size, nbest
        self._search = None if constraint is None else ConstrainedSearch(constraint, alphabet)

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
        if self.beam_size is None:
            found = greedy_hypotheses(log_probs, lengths, self.alphabet)
            return [[each for each in one if each.log_prob > -math.inf] for one in found]
        result = beam_search(
            log_probs, lengths, blank=self.alphabet.blank, beam_size=self.beam_size,
            nbest=self.beam_size if self._search else self.nbest, exact_scores=self._search is None,
        )  # fmt: skip
        texts, scores = result.to_text(self.alphabet), result.scores.tolist()
        nbest = [list(zip(*pair, strict=False)) for pair in zip(texts, scores, strict=True)]
        if self._search is not None:
            nbest = self._search(log_probs, lengths, nbest)
        return [
            [Hypothesis(text, score) for text, score in found[: self.nbest] if score > -math.inf]
            for found in nbest
        ]


def are_numbers(log_probs: Tensor, lengths: Tensor) -> Tensor:
    """Return (N,) bool, true for the images whose log-probabilities are all below infinity and not NaN.

    Args:
        log_probs: (N, T, C).
        lengths: (N,) frames of each image; the frames behind do not count.
    """
    inside = torch.arange(log_probs.shape[1], device=log_probs.device) < lengths.to(log_probs.device)[:, None]
    return ((log_probs < math.inf).all(-1) | ~inside).all(-1)


def why_no_hypothesis(log_probs: Tensor) -> str:
    """Return the reason why an image of these log-probabilities (T, C) has no hypothesis."""
    if bool((log_probs < math.inf).all()):
        return "no allowed text has a probability above 0"
    return "the model's output is not a number (NaN): its weights may be damaged"


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
