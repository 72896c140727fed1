"""The decoding of ``Wav2Vec2ProcessorWithLM`` of ``transformers``, which need not be installed.

>>> import torch
>>> from fastctc.compat.pyctcdecode import build_ctcdecoder
>>> processor = Wav2Vec2ProcessorWithLM(None, None, build_ctcdecoder(["<pad>", "|", "A", "C", "T"]))
>>> logits = torch.eye(5)[[3, 2, 4, 1, 2, 4]].mul(9).unsqueeze(0)  # C A T | A T
>>> output = processor.batch_decode(logits, output_word_offsets=True)
>>> output.text, output.word_offsets[0][1]
(['CAT AT'], {'word': 'AT', 'start_offset': 4, 'end_offset': 6})
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from fastctc.arguments import check_count
from fastctc.compat.pyctcdecode import BatchOutputBeam, BeamSearchDecoderCTC
from fastctc.errors import ArgumentTypeError

__all__ = ["Wav2Vec2DecoderWithLMOutput", "Wav2Vec2ProcessorWithLM"]

PADDING = -100.0


@dataclass
class Wav2Vec2DecoderWithLMOutput:
    """The result of :class:`Wav2Vec2ProcessorWithLM`, by attributes, keys or places. None has no key and no place.

    ``decode`` returns one value of each kind, ``batch_decode`` a list with one for each utterance. With ``n_best``
    above 1, each of them is a list, best first.
    """

    text: Any  #: str
    logit_score: Any = None  #: float, ln P(text | x)
    lm_score: Any = None  #: float, ``logit_score`` + the weights of the language model and of hotwords
    word_offsets: Any = None  #: list of {"word", "start_offset", "end_offset"}, in frames

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the values that are not None."""
        return tuple(value for _, value in self.items())

    def keys(self) -> list[str]:
        """Return the names of the values that are not None."""
        return [name for name, _ in self.items()]

    def items(self) -> list[tuple[str, Any]]:
        """Return the values that are not None, with their names."""
        values = [(field.name, getattr(self, field.name)) for field in fields(self)]
        return [(name, value) for name, value in values if value is not None]

    def __getitem__(self, key: str | int | slice) -> Any:
        return dict(self.items())[key] if isinstance(key, str) else self.to_tuple()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())


class Wav2Vec2ProcessorWithLM:
    """A decoder with a language model, and the two parts of ``transformers`` that come before it.

    Args:
        feature_extractor: what turns sounds into input of the model, or None.
        tokenizer: what encodes texts, or None.
        decoder: the labels and the language model.
    """

    def __init__(self, feature_extractor: Any, tokenizer: Any, decoder: BeamSearchDecoderCTC) -> None:
        if not isinstance(decoder, BeamSearchDecoderCTC):
            raise ArgumentTypeError(
                "decoder must be a BeamSearchDecoderCTC of fastctc.compat.pyctcdecode, got"
                f" {type(decoder).__module__}.{type(decoder).__name__}"
            )
        self.feature_extractor, self.tokenizer, self.decoder = feature_extractor, tokenizer, decoder

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        feature_extractor: Any = None,
        tokenizer: Any = None,
    ) -> Wav2Vec2ProcessorWithLM:
        """Return the processor of a local folder. It reads the decoder alone; the other parts are to be given."""
        decoder = BeamSearchDecoderCTC.load_from_dir(pretrained_model_name_or_path)
        return cls(feature_extractor, tokenizer, decoder)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the feature extractor makes of sounds."""
        if self.feature_extractor is None:
            raise ArgumentTypeError("feature_extractor is None, expected one of transformers for a call")
        return self.feature_extractor(*args, **kwargs)

    def batch_decode(
        self,
        logits: Iterable[Any] | Tensor,
        pool: object = None,
        num_processes: int | None = None,
        beam_width: int | None = None,
        beam_prune_logp: float | None = None,
        token_min_logp: float | None = None,
        hotwords: Iterable[str] | None = None,
        hotword_weight: float | None = None,
        alpha: float | None = None,
        beta: float | None = None,
        unk_score_offset: float | None = None,
        lm_score_boundary: bool | None = None,
        output_word_offsets: bool = False,
        n_best: int = 1,
    ) -> Wav2Vec2DecoderWithLMOutput:
        """Return the texts of a batch.

        Args:
            logits: (N, T, C), or N arrays or tensors (T, C). Frames that are -100 in all classes are padding.
            pool: accepted for compatibility. Threads search the batch.
            num_processes: accepted for compatibility.
            beam_width: an option of :class:`fastctc.compat.pyctcdecode.BeamSearchDecoderCTC`; so are the next four.
            beam_prune_logp: see there.
            token_min_logp: see there.
            hotwords: see there.
            hotword_weight: see there.
            alpha: a weight of :class:`fastctc.compat.pyctcdecode.LanguageModel`, as the next three are. It stays.
            beta: see there.
            unk_score_offset: see there.
            lm_score_boundary: see there.
            output_word_offsets: whether the result has the places of words.
            n_best: texts to return. 1 returns each without a list.
        """
        self.decoder.reset_params(alpha, beta, unk_score_offset, lm_score_boundary)
        options = _given(
            beam_width=beam_width,
            beam_prune_logp=beam_prune_logp,
            token_min_logp=token_min_logp,
            hotwords=hotwords,
            hotword_weight=hotword_weight,
        )
        utterances = (_without_padding(each) for each in logits)
        beams = self.decoder.decode_beams_batch(None, utterances, **options)
        return _output([_columns(each, output_word_offsets, n_best) for each in beams])

    def decode(
        self,
        logits: Any,
        beam_width: int | None = None,
        beam_prune_logp: float | None = None,
        token_min_logp: float | None = None,
        hotwords: Iterable[str] | None = None,
        hotword_weight: float | None = None,
        alpha: float | None = None,
        beta: float | None = None,
        unk_score_offset: float | None = None,
        lm_score_boundary: bool | None = None,
        output_word_offsets: bool = False,
        n_best: int = 1,
    ) -> Wav2Vec2DecoderWithLMOutput:
        """Return the text of one utterance.

        Args:
            logits: (T, C), an array or a tensor, without padding.
            beam_width: see :meth:`batch_decode`.
            beam_prune_logp: see :meth:`batch_decode`.
            token_min_logp: see :meth:`batch_decode`.
            hotwords: see :meth:`batch_decode`.
            hotword_weight: see :meth:`batch_decode`.
            alpha: see :meth:`batch_decode`.
            beta: see :meth:`batch_decode`.
            unk_score_offset: see :meth:`batch_decode`.
            lm_score_boundary: see :meth:`batch_decode`.
            output_word_offsets: see :meth:`batch_decode`.
            n_best: see :meth:`batch_decode`.
        """
        self.decoder.reset_params(alpha, beta, unk_score_offset, lm_score_boundary)
        options = _given(
            beam_width=beam_width,
            beam_prune_logp=beam_prune_logp,
            token_min_logp=token_min_logp,
            hotwords=hotwords,
            hotword_weight=hotword_weight,
        )
        (beams,) = self.decoder.decode_beams_batch(None, [logits], **options)
        return Wav2Vec2DecoderWithLMOutput(*_columns(beams, output_word_offsets, n_best))


def _given(**options: Any) -> dict[str, Any]:
    """Return the options that are not None."""
    return {name: value for name, value in options.items() if value is not None}


def _without_padding(logits: Any) -> Tensor:
    """Return the frames of an utterance that are not padding."""
    values = torch.as_tensor(logits)
    return values[(values != PADDING).all(-1)] if values.dim() == 2 else values


def _columns(beams: list[BatchOutputBeam], output_word_offsets: bool, n_best: int) -> tuple[Any, ...]:
    """Return the texts, both scores and the places of words of one utterance."""
    beams = beams[: check_count(n_best, "n_best")]
    offsets = [
        [{"word": word, "start_offset": start, "end_offset": end} for word, (start, end) in beam.text_frames]
        for beam in beams
    ]
    columns: list[list[Any]] = [
        [beam.text for beam in beams],
        [beam.logit_score for beam in beams],
        [beam.lm_score for beam in beams],
        *([offsets] if output_word_offsets else []),
    ]
    return tuple(column[0] if n_best == 1 else column for column in columns)


def _output(utterances: list[tuple[Any, ...]]) -> Wav2Vec2DecoderWithLMOutput:
    """Return the columns of all utterances."""
    if not utterances:
        return Wav2Vec2DecoderWithLMOutput([], [], [])
    return Wav2Vec2DecoderWithLMOutput(*(list(column) for column in zip(*utterances)))
