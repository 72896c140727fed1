"""pyctcdecode's decoder, of the names ``BeamSearchDecoderCTC`` and ``build_ctcdecoder``."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch.nn.utils.rnn import pad_sequence

import fastctc
from fastctc.arguments import check_count, real
from fastctc.compat.pyctcdecode.alphabet import Alphabet
from fastctc.compat.pyctcdecode.hotwords import HotwordCache
from fastctc.compat.pyctcdecode.language_model import LanguageModel
from fastctc.compat.pyctcdecode.texts import Texts, WordFrames, log_probabilities, without_unlikely
from fastctc.errors import ArgumentValueError
from fastctc.files import write_atomically
from fastctc.scoring import Automaton, LexiconScorer

__all__ = ["BatchOutputBeam", "BeamSearchDecoderCTC", "OutputBeam", "build_ctcdecoder"]

ALPHABET_FILE, LANGUAGE_MODEL_FOLDER = "alphabet.json", "language_model"
BATCH = 64  # utterances of one search


class OutputBeam(NamedTuple):
    """One result of :meth:`BeamSearchDecoderCTC.decode_beams`."""

    text: str
    last_lm_state: int | None  #: the state of the language model after the text; None without a model
    text_frames: list[WordFrames]  #: each word with its first frame and the frame after its last one
    logit_score: float  #: ln P(text | x)
    lm_score: float  #: ``logit_score`` + the weights of the language model and of hotwords


class BatchOutputBeam(NamedTuple):
    """One result of :meth:`BeamSearchDecoderCTC.decode_beams_batch`."""

    text: str
    text_frames: list[WordFrames]  #: each word with its first frame and the frame after its last one
    logit_score: float  #: ln P(text | x)
    lm_score: float  #: ``logit_score`` + the weights of the language model and of hotwords


def build_ctcdecoder(
    labels: Sequence[str],
    kenlm_model_path: str | os.PathLike[str] | Automaton | None = None,
    unigrams: Collection[str] | None = None,
    alpha: float = 0.5,
    beta: float = 1.5,
    unk_score_offset: float = -10.0,
    lm_score_boundary: bool = True,
) -> BeamSearchDecoderCTC:
    """Return a decoder, as ``pyctcdecode.build_ctcdecoder`` does.

    Args:
        labels: the string of each class; see :meth:`Alphabet.build_alphabet`.
        kenlm_model_path: see :class:`LanguageModel`. None: no model.
        unigrams: the known words. None: all words of the model.
        alpha: factor of the model, at least 0.
        beta: added for each word.
        unk_score_offset: added to log10 P of an unknown word.
        lm_score_boundary: whether texts begin after ``<s>`` and end with ``</s>``.

    Raises:
        TypeError: an argument of another type.
        ValueError: wrong labels, a weight out of range, or a model that is no ARPA file.
    """
    alphabet = Alphabet.build_alphabet(labels)
    if kenlm_model_path is None:
        return BeamSearchDecoderCTC(alphabet)
    model = LanguageModel(kenlm_model_path, unigrams, alpha, beta, unk_score_offset, lm_score_boundary)
    return BeamSearchDecoderCTC(alphabet, model)


class BeamSearchDecoderCTC:
    """A decoder of one alphabet with or without a language model.

    A text has the score ``lm_score``: ln P(text | x), the weight of its words (see :class:`LanguageModel`), and
    ``hotword_weight`` for each occurrence of a hotword, times the words of a phrase.

    ``logits`` are (T, C) arrays or tensors of floating-point numbers, one class for each label. If the sums of the
    frames have the mean 1, they are probabilities, else logits. The options of all methods are:

    - ``beam_width``: prefixes in the beam.
    - ``beam_prune_logp``: the difference from the best score, at most 0, at which a prefix leaves the beam.
    - ``token_min_logp``: a class below it extends no prefix. The best class of a frame and the classes of hotwords
      always do.
    - ``prune_history``: whether results are left out that end with the same words as a better one, as far as the
      model looks back.
    - ``hotwords``: words and phrases.
    - ``hotword_weight``: the bonus of a word of them.
    - ``lm_start_state``: the ``last_lm_state`` of the part before.

    Args:
        alphabet: the labels.
        language_model: the weights of words.
    """

    def __init__(self, alphabet: Alphabet, language_model: LanguageModel | None = None) -> None:
        self._alphabet, self._language_model = alphabet, language_model
        self._hotwords = HotwordCache(alphabet)

    def reset_params(
        self,
        alpha: float | None = None,
        beta: float | None = None,
        unk_score_offset: float | None = None,
        lm_score_boundary: bool | None = None,
    ) -> None:
        """Set weights of the language model. None leaves a weight as it is."""
        if self._language_model is not None:
            self._language_model.reset_params(
                alpha=alpha, beta=beta, unk_score_offset=unk_score_offset, score_boundary=lm_score_boundary
            )

    def decode(
        self,
        logits: Any,
        beam_width: int = 100,
        beam_prune_logp: float = -10.0,
        token_min_logp: float = -5.0,
        hotwords: Iterable[str] | None = None,
        hotword_weight: float = 10.0,
        lm_start_state: int | None = None,
    ) -> str:
        """Return the best text."""
        beams = self._search(
            [logits], beam_width, beam_prune_logp, token_min_logp, hotwords, hotword_weight, lm_start_state
        )
        return next(beams).best()

    def decode_batch(
        self,
        pool: object,
        logits_list: Iterable[Any],
        beam_width: int = 100,
        beam_prune_logp: float = -10.0,
        token_min_logp: float = -5.0,
        hotwords: Iterable[str] | None = None,
        hotword_weight: float = 10.0,
    ) -> list[str]:
        """Return the best text of each. ``pool`` is accepted for compatibility: threads search the batch."""
        found = self._search(
            logits_list, beam_width, beam_prune_logp, token_min_logp, hotwords, hotword_weight
        )
        return [each.best() for each in found]

    def decode_beams(
        self,
        logits: Any,
        beam_width: int = 100,
        beam_prune_logp: float = -10.0,
        token_min_logp: float = -5.0,
        prune_history: bool = False,
        hotwords: Iterable[str] | None = None,
        hotword_weight: float = 10.0,
        lm_start_state: int | None = None,
    ) -> list[OutputBeam]:
        """Return the texts that the beam holds, best first."""
        found = next(
            self._search(
                [logits],
                beam_width,
                beam_prune_logp,
                token_min_logp,
                hotwords,
                hotword_weight,
                lm_start_state,
            )
        )
        beams = found.beams(self._history if prune_history else None)
        states: Sequence[int | None] = [None] * len(beams)
        if self._language_model is not None:
            states = self._language_model.states_after([beam[0] for beam in beams], lm_start_state)
        return [
            OutputBeam(text, state, frames, logit_score, lm_score)
            for (text, frames, logit_score, lm_score), state in zip(beams, states)
        ]

    def decode_beams_batch(
        self,
        pool: object,
        logits_list: Iterable[Any],
        beam_width: int = 100,
        beam_prune_logp: float = -10.0,
        token_min_logp: float = -5.0,
        prune_history: bool = False,
        hotwords: Iterable[str] | None = None,
        hotword_weight: float = 10.0,
    ) -> list[list[BatchOutputBeam]]:
        """Return the texts that the beam holds of each. ``pool`` is accepted for compatibility."""
        history = self._history if prune_history else None
        found = self._search(
            logits_list, beam_width, beam_prune_logp, token_min_logp, hotwords, hotword_weight
        )
        return [[BatchOutputBeam(*beam) for beam in each.beams(history)] for each in found]

    def save_to_dir(self, filepath: str | os.PathLike[str]) -> None:
        """Write the labels and the language model into a folder, in the files of pyctcdecode."""
        write_atomically(Path(filepath) / ALPHABET_FILE, self._alphabet.dumps().encode())
        if self._language_model is not None:
            self._language_model.save_to_dir(Path(filepath) / LANGUAGE_MODEL_FOLDER)

    @classmethod
    def load_from_dir(
        cls, filepath: str | os.PathLike[str], unigram_encoding: str | None = None
    ) -> BeamSearchDecoderCTC:
        """Return the decoder of a folder that :meth:`save_to_dir` wrote, here or in pyctcdecode.

        Raises:
            ValueError: a file is missing, or the language model is no ARPA file but a binary.
        """
        folder = Path(filepath)
        if not (folder / ALPHABET_FILE).exists():
            raise ArgumentValueError(f"{folder} has no {ALPHABET_FILE}, expected a folder of a decoder")
        alphabet = Alphabet.loads((folder / ALPHABET_FILE).read_text(encoding="utf-8"))
        if not (folder / LANGUAGE_MODEL_FOLDER).exists():
            return cls(alphabet)
        model = LanguageModel.load_from_dir(folder / LANGUAGE_MODEL_FOLDER, unigram_encoding)
        return cls(alphabet, model)

    def cleanup(self) -> None:
        """Do nothing: a decoder holds its language model itself."""

    @property
    def _history(self) -> int:
        """Return the number of words at the end of a text in which texts must differ."""
        return 2 if self._language_model is None else max(2, self._language_model.order)

    def _search(
        self,
        logits_list: Iterable[Any],
        beam_width: int,
        beam_prune_logp: float,
        token_min_logp: float,
        hotwords: Iterable[str] | None,
        hotword_weight: float,
        lm_start_state: int | None = None,
    ) -> Iterator[Texts]:
        """Yield the texts of each utterance."""
        beam_width = check_count(beam_width, "beam_width")
        if not real(beam_prune_logp, "beam_prune_logp") <= 0:
            raise ArgumentValueError(f"beam_prune_logp is {beam_prune_logp}, expected a number of at most 0")
        found = self._hotwords.find(hotwords, hotword_weight)
        scorers: list[Automaton | LexiconScorer] = [] if found.automaton is None else [found.automaton]
        if self._language_model is not None:
            scorers.insert(0, self._language_model.scorer(self._alphabet, lm_start_state))
        options: dict[str, Any] = {
            "beam_size": beam_width,
            "nbest": beam_width,
            "blank": self._alphabet.blank,
            "beam_threshold": -beam_prune_logp if beam_prune_logp > -math.inf else None,
        }
        if scorers:
            options["scorer"] = scorers
        utterances = iter(logits_list)
        while batch := list(itertools.islice(utterances, BATCH)):
            rows = [log_probabilities(logits, len(self._alphabet.labels)) for logits in batch]
            rows = [
                without_unlikely(row, real(token_min_logp, "token_min_logp"), found.labels) for row in rows
            ]
            result = fastctc.beam_search(
                pad_sequence(rows, batch_first=True), [len(row) for row in rows], **options
            )
            for number in range(len(rows)):
                yield Texts(result.sample(number), self._alphabet, beam_prune_logp)
