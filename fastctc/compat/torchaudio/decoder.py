"""torchaudio's decoder with words, of the name ``ctc_decoder``."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

import fastctc
from fastctc.arguments import Lengths, check_count, check_number, lengths_tensor, real
from fastctc.compat.hypotheses import merge
from fastctc.compat.torchaudio.build_knowledge import build_knowledge
from fastctc.compat.torchaudio.custom_lm import CTCDecoderLM
from fastctc.compat.torchaudio.files import TokenList
from fastctc.compat.torchaudio.knowledge import Knowledge
from fastctc.decode_result import NBestResult
from fastctc.errors import ArgumentTypeError, ArgumentValueError
from fastctc.scoring import Automaton, CallbackScorer

__all__ = ["CTCDecoder", "CTCHypothesis", "ctc_decoder"]


class CTCHypothesis(NamedTuple):
    """One result of a :class:`CTCDecoder`."""

    tokens: Tensor  #: (L) int64, with the silence token before the first frame and after the last one
    words: list[str]  #: empty without a lexicon
    score: float  #: emissions + ``lm_weight`` * log10 P of the model + the other scores
    timesteps: (
        Tensor  #: (L) int32, the first frame of each token + 1; 0 for the silence before the first frame
    )


def ctc_decoder(
    lexicon: str | os.PathLike[str] | None,
    tokens: str | os.PathLike[str] | Sequence[str],
    lm: str | os.PathLike[str] | Automaton | CTCDecoderLM | None = None,
    lm_dict: str | None = None,
    nbest: int = 1,
    beam_size: int = 50,
    beam_size_token: int | None = None,
    beam_threshold: float = 50,
    lm_weight: float = 2,
    word_score: float = 0,
    unk_score: float = -math.inf,
    sil_score: float = 0,
    log_add: bool = False,
    blank_token: str = "-",
    sil_token: str = "|",
    unk_word: str = "<unk>",
) -> CTCDecoder:
    """Return a decoder, as ``torchaudio.models.decoder.ctc_decoder`` does.

    A hypothesis has the score: emissions, summed over its paths, + ``lm_weight`` * log10 P(words) + ``word_score``
    * words + ``unk_score`` * unknown words + ``sil_score`` * frames of silence.

    Args:
        lexicon: a file with a word and its tokens in each line. None: without words; the model is over tokens.
        tokens: the name of each class, or a file with a line for each class.
        lm: an ARPA file, plain or compressed by gzip, or an :class:`fastctc.Automaton` such as
            :meth:`fastctc.scoring.Automaton.load` returns. Its symbols are words; without a lexicon, tokens. Or a
            model of the user's, a :class:`CTCDecoderLM`.
        lm_dict: a file with a word in each line, among them all words of the lexicon. A :class:`CTCDecoderLM` gets
            the numbers of the lines.
        nbest: hypotheses to return.
        beam_size: prefixes in the beam.
        beam_size_token: accepted for compatibility. The search considers all tokens and needs no such cut.
        beam_threshold: distance from the best score at which a hypothesis leaves the beam.
        lm_weight: factor of log10 P, at least 0.
        word_score: added for each word of the lexicon.
        unk_score: added for each word that the lexicon lacks; -inf forbids them.
        sil_score: added for each frame of the silence token.
        log_add: whether different spellings of the same words, and more or less silence, add up. Otherwise the best
            of them counts, which is faster. The paths of one sequence of tokens always add up.
        blank_token: the name of the blank.
        sil_token: the name of silence, the separator of words.
        unk_word: what stands among the words for a word that the lexicon lacks.

    Raises:
        TypeError: an argument of another type.
        ValueError: an argument out of range, a malformed file (the message names the line), a model that is no text
            but a binary of KenLM, or an unknown token.
    """
    token_list = TokenList(tokens)
    knowledge = build_knowledge(
        token_list,
        lexicon=lexicon,
        lm=lm,
        lm_dict=lm_dict,
        lm_weight=lm_weight,
        word_score=word_score,
        unk_score=unk_score,
        blank=token_list.class_of(blank_token, "blank_token"),
        silence=token_list.class_of(sil_token, "sil_token"),
        unknown=unk_word,
    )
    if beam_size_token is not None:
        check_count(beam_size_token, "beam_size_token")
    return CTCDecoder(
        token_list,
        knowledge,
        nbest=nbest,
        beam_size=beam_size,
        beam_threshold=beam_threshold,
        sil_score=sil_score,
        log_add=log_add,
    )


class CTCDecoder:
    """A decoder that :func:`ctc_decoder` builds.

    Beyond torchaudio's, it takes emissions of any floating-point dtype, strides and device, and searches a batch at
    once.
    """

    def __init__(
        self,
        tokens: TokenList,
        knowledge: Knowledge,
        *,
        nbest: int,
        beam_size: int,
        beam_threshold: float,
        sil_score: float,
        log_add: bool,
    ) -> None:
        self.nbest = check_count(nbest, "nbest")
        self.beam_size = check_count(beam_size, "beam_size")
        self.beam_threshold = real(beam_threshold, "beam_threshold")
        if not self.beam_threshold >= 0:
            raise ArgumentValueError(f"beam_threshold is {beam_threshold}, expected a number of at least 0")
        self.sil_score = check_number(sil_score, "sil_score")
        self.log_add = bool(log_add)
        self.blank = knowledge.blank
        self._tokens, self._knowledge = tokens, knowledge
        self._stream: _Stream | None = None

    def __call__(self, emissions: Tensor, lengths: Lengths | None = None) -> list[list[CTCHypothesis]]:
        """Return the ``nbest`` hypotheses of each sample, best first.

        Args:
            emissions: (B, T, C) floating-point scores of the classes, normalized or not. Classes without a name are
                ignored.
            lengths: (B) frames of each sample; all T if None.

        Raises:
            TypeError: emissions are not floating-point.
            ValueError: emissions have other dimensions, fewer classes than tokens, or a NaN in a frame in use.
        """
        scores = self._scores(emissions, 3)
        frames = torch.full((scores.shape[0],), scores.shape[1], device=scores.device)
        if lengths is not None:
            frames = lengths_tensor(lengths, "lengths", scores.shape[0], scores.device)
            if scores.shape[0] and not 0 <= int(frames.min()) <= int(frames.max()) <= scores.shape[1]:
                raise ArgumentValueError(
                    f"lengths is {frames.tolist()}, but emissions has {scores.shape[1]} frames per sample"
                )
        log_probs, offsets = _normalized(scores, frames)
        self._knowledge.begin()
        result = fastctc.beam_search(log_probs, frames, **self._options(scores.device))
        return self._hypotheses(result, offsets.tolist(), frames.tolist())

    def decode_begin(self) -> None:
        """Begin a stream of frames.

        Raises:
            NotImplementedError: the model is a :class:`CTCDecoderLM`.
        """
        if isinstance(self._knowledge.scorer, CallbackScorer):
            raise NotImplementedError("decode_begin takes no CTCDecoderLM, expected a call of the decoder")
        self._stream = _Stream()

    def decode_step(self, emissions: Tensor) -> None:
        """Search the next frames of the stream.

        Args:
            emissions: (T, C), as in a call of the decoder.

        Raises:
            RuntimeError: no stream has begun.
        """
        if self._stream is None:
            raise RuntimeError("decode_step needs a stream: call decode_begin first")
        scores = self._scores(emissions, 2)
        self._stream.push(scores, self._options(scores.device))

    def decode_end(self) -> None:
        """End the stream. Its hypotheses stay available until the next one begins."""
        if self._stream is None:
            raise RuntimeError("decode_end needs a stream: call decode_begin first")

    def get_final_hypothesis(self) -> list[CTCHypothesis]:
        """Return the ``nbest`` hypotheses of the stream so far, best first."""
        if self._stream is None:
            raise RuntimeError("get_final_hypothesis needs a stream: call decode_begin first")
        if self._stream.decoder is None:
            return self(torch.zeros(1, 0, len(self._tokens)))[0]
        result = self._stream.decoder.result()
        return self._hypotheses(result, [self._stream.offset], [self._stream.frames])[0]

    def idxs_to_tokens(self, idxs: Tensor | Sequence[int]) -> list[str]:
        """Return the name of each token."""
        return [self._tokens.names[int(index)] for index in idxs]

    def _options(self, device: torch.device) -> dict[str, Any]:
        """Return what a search and a stream of searches have in common."""
        # More hypotheses than `nbest` are needed where those with the same words become one.
        several = self._knowledge.has_words and (self.nbest > 1 or self.log_add)
        options: dict[str, Any] = {
            "beam_size": self.beam_size,
            "nbest": self.beam_size if several else min(self.nbest, self.beam_size),
            "blank": self.blank,
            "beam_threshold": self.beam_threshold if self.beam_threshold < math.inf else None,
        }
        scorer = self._knowledge.scorer_on(device)
        return options if scorer is None else options | {"scorer": scorer}

    def _scores(self, emissions: Tensor, dims: int) -> Tensor:
        """Return emissions of the named classes, with ``sil_score`` in them."""
        if not isinstance(emissions, Tensor) or not emissions.is_floating_point():
            kind = emissions.dtype if isinstance(emissions, Tensor) else type(emissions).__name__
            raise ArgumentTypeError(f"emissions must be a floating-point tensor, got {kind}")
        if emissions.dim() != dims or emissions.shape[-1] < len(self._tokens):
            batch = "B, " * (dims - 2)
            raise ArgumentValueError(
                f"emissions has shape {tuple(emissions.shape)}, expected ({batch}T, C) with C of at least"
                f" {len(self._tokens)}, the number of tokens"
            )
        scores = emissions.detach()[..., : len(self._tokens)]
        scores = scores if scores.dtype == torch.float64 else scores.float()
        if self.sil_score != 0:
            scores = scores.clone()
            scores[..., self._knowledge.silence] += self.sil_score
        return scores

    def _hypotheses(
        self, result: NBestResult, offsets: list[float], frames: list[int]
    ) -> list[list[CTCHypothesis]]:
        """Return the hypotheses of each sample. If the scorer rejects all of a sample, its best one is left."""
        keys = self._knowledge.word_keys(result)
        found = []
        for sample, scores in enumerate(result.scores.tolist()):
            if math.isnan(scores[0]):
                raise ArgumentValueError(
                    f"emissions[{sample}] has a NaN or +inf, expected finite scores or -inf"
                )
            possible = [row for row, score in enumerate(scores) if score > -math.inf] or [0]
            merged = merge(possible, keys[sample], scores, scores, self.log_add)[: self.nbest]
            picked = [each.row for each in merged]
            columns = (result.lengths, result.tokens, result.timesteps, result.ends)
            runs = zip(*(column[sample, picked].tolist() for column in columns))
            found.append(
                [
                    CTCHypothesis(
                        tokens=tokens,
                        words=self._knowledge.spell(keys[sample][each.row]),
                        score=each.score + offsets[sample],
                        timesteps=timesteps,
                    )
                    for each, run in zip(merged, runs)
                    for tokens, timesteps in [self._padded(frames[sample], *run)]
                ]
            )
        return found

    def _padded(
        self, frames: int, length: int, tokens: list[int], starts: list[int], ends: list[int]
    ) -> tuple[Tensor, Tensor]:
        """Return the tokens and the timesteps of a path with a frame of silence before and after it."""
        silence = self._knowledge.silence
        tokens, steps = tokens[:length], [start + 1 for start in starts[:length]]
        if not (tokens and tokens[0] == silence and starts[0] == 0):
            tokens, steps = [silence, *tokens], [0, *steps]
        steps[0] = 0
        last_end = ends[length - 1] if length else 0
        if tokens[-1] != silence or last_end < frames:
            tokens, steps = [*tokens, silence], [*steps, frames + 1]
        return torch.tensor(tokens), torch.tensor(steps, dtype=torch.int32)


class _Stream:
    """A search whose frames come in chunks."""

    def __init__(self) -> None:
        self.frames = 0
        self.offset = 0.0  # of the scores
        self.decoder: fastctc.BeamSearchDecoder | None = None

    def push(self, scores: Tensor, options: dict[str, Any]) -> None:
        if self.decoder is None:
            self.decoder = fastctc.BeamSearchDecoder(1, device=scores.device, **options)
        frames = torch.tensor([len(scores)], device=scores.device)
        log_probs, offsets = _normalized(scores.unsqueeze(0), frames)
        self.decoder.push(log_probs)
        self.frames += len(scores)
        self.offset += float(offsets)


def _normalized(scores: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Return (B, T, C) log-probabilities, and (B) the sum over the frames in use of what was subtracted.

    A number that all classes of a frame lose changes no order of hypotheses.
    """
    used = torch.arange(scores.shape[1], device=scores.device) < lengths[:, None]
    log_probs = scores.log_softmax(-1)
    norms = (scores[..., 0] - log_probs[..., 0]).masked_fill(~used, 0.0)
    if not bool(norms.isfinite().all()):  # a class, or all of them, may have a score of -inf
        norms = scores.logsumexp(-1).masked_fill(~used, 0.0)
        norms = norms.masked_fill(norms == -math.inf, 0.0)
        log_probs = scores - norms.unsqueeze(-1)
    return log_probs, norms.double().sum(1)
