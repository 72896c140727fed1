"""torchaudio's decoder without words, of the name ``cuda_ctc_decoder``. It runs on the device of its input."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

import fastctc
from fastctc.arguments import Lengths, check_count, check_nbest, real
from fastctc.compat.torchaudio.files import TokenList
from fastctc.errors import ArgumentValueError

__all__ = ["CUCTCDecoder", "CUCTCHypothesis", "cuda_ctc_decoder"]


class CUCTCHypothesis(NamedTuple):
    """One result of a :class:`CUCTCDecoder`."""

    tokens: list[int]
    words: list[str]  #: the names of the tokens
    score: float  #: ln P(tokens | x)


class CUCTCDecoder:
    """A decoder that :func:`cuda_ctc_decoder` builds.

    Args:
        vocab_list: the name of each class.
        blank_id: the blank. Beyond torchaudio's, it may be any class.
        beam_size: prefixes in the beam. Beyond torchaudio's, it may exceed the number of classes.
        nbest: hypotheses to return, at most ``beam_size``.
        blank_skip_threshold: a probability. A frame in which the blank has more emits no token.
        cuda_stream: accepted for compatibility. The search runs on the current stream.

    Raises:
        TypeError: an argument of another type.
        ValueError: an argument out of range.
    """

    def __init__(
        self,
        vocab_list: Sequence[str],
        blank_id: int = 0,
        beam_size: int = 10,
        nbest: int = 1,
        blank_skip_threshold: float = 0.95,
        cuda_stream: torch.cuda.Stream | None = None,
    ) -> None:
        self.vocab_list = list(vocab_list)
        self.blank_id = blank_id
        if not 0 <= blank_id < len(self.vocab_list):
            raise ArgumentValueError(
                f"blank_id is {blank_id}, expected one of the {len(self.vocab_list)} classes"
            )
        self.beam_size = check_count(beam_size, "beam_size")
        self.nbest = check_nbest(nbest, self.beam_size)
        self.blank_skip_threshold = real(blank_skip_threshold, "blank_skip_threshold")
        if not 0 < self.blank_skip_threshold <= 1:
            raise ArgumentValueError(
                f"blank_skip_threshold is {blank_skip_threshold}, expected a probability above 0, at most 1"
            )

    def __call__(self, log_prob: Tensor, encoder_out_lens: Lengths) -> list[list[CUCTCHypothesis]]:
        """Return the ``nbest`` hypotheses of each sample, best first.

        Args:
            log_prob: (B, T, C) floating-point natural-log probabilities, on any device.
            encoder_out_lens: (B) frames of each sample.

        Raises:
            TypeError: log_prob is not floating-point.
            ValueError: log_prob has other dimensions, another number of classes, or logits in it.
        """
        if log_prob.dim() != 3 or log_prob.shape[2] < len(self.vocab_list):
            raise ArgumentValueError(
                f"log_prob has shape {tuple(log_prob.shape)}, expected (B, T, C) with C of at least"
                f" {len(self.vocab_list)}, the number of tokens"
            )
        result = fastctc.beam_search(
            log_prob[..., : len(self.vocab_list)],
            encoder_out_lens,
            beam_size=self.beam_size,
            nbest=self.nbest,
            blank=self.blank_id,
            blank_skip=self.blank_skip_threshold,
        )
        return [
            [
                CUCTCHypothesis(tokens, [self.vocab_list[token] for token in tokens], score)
                for tokens, score in zip(*pair)
            ]
            for pair in zip(result.to_list(), result.scores.tolist())
        ]


def cuda_ctc_decoder(
    tokens: str | os.PathLike[str] | Sequence[str],
    nbest: int = 1,
    beam_size: int = 10,
    blank_skip_threshold: float = 0.95,
) -> CUCTCDecoder:
    """Return a decoder, as ``torchaudio.models.decoder.cuda_ctc_decoder`` does. It also runs on the CPU.

    Args:
        tokens: the name of each class, or a file with a line for each class. Class 0 is the blank.
        nbest: hypotheses to return, at most ``beam_size``.
        beam_size: prefixes in the beam.
        blank_skip_threshold: a probability. A frame in which the blank has more emits no token.

    Raises:
        TypeError: an argument of another type.
        ValueError: an argument out of range.
    """
    names = TokenList(tokens).names
    return CUCTCDecoder(names, nbest=nbest, beam_size=beam_size, blank_skip_threshold=blank_skip_threshold)
