"""The lexicon and the model of a decoder as the scorer of a search."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

from fastctc.arguments import check_number, real
from fastctc.compat.skipped_word import SKIPPED_WORD, skipping
from fastctc.compat.torchaudio.custom_lm import CTCDecoderLM, CustomKnowledge
from fastctc.compat.torchaudio.files import TokenList, read_lexicon, read_words
from fastctc.compat.torchaudio.knowledge import Knowledge
from fastctc.errors import ArgumentTypeError, ArgumentValueError
from fastctc.scoring import UNKNOWN_WORD, Automaton, Lexicon, LexiconScorer, read_arpa

__all__ = ["build_knowledge"]

Spelling = tuple[str, list[int]]
Model = str | os.PathLike[str] | Automaton | CTCDecoderLM | None


def build_knowledge(
    tokens: TokenList,
    *,
    lexicon: str | os.PathLike[str] | None,
    lm: Model,
    lm_dict: str | os.PathLike[str] | None,
    lm_weight: float,
    word_score: float,
    unk_score: float,
    blank: int,
    silence: int,
    unknown: str,
) -> Knowledge:
    """Return the knowledge that the arguments of ``ctc_decoder`` describe."""
    weight = check_number(lm_weight, "lm_weight")
    if weight < 0:
        raise ArgumentValueError(f"lm_weight is {lm_weight}, expected a number of at least 0")
    check_number(word_score, "word_score")
    if not real(unk_score, "unk_score") < math.inf:
        raise ArgumentValueError(f"unk_score is {unk_score}, expected a finite number or -inf")
    spellings = None
    if lexicon:
        allowed = None if lm_dict is None else set(read_words(lm_dict))
        spellings = list(_known(read_lexicon(lexicon, tokens), allowed, lm_dict))
        if not spellings:
            raise ArgumentValueError(
                f"lexicon is {os.fspath(lexicon)!r}, expected a file with at least one word"
            )
    if isinstance(lm, CTCDecoderLM):
        if unk_score > -math.inf:
            raise ArgumentValueError(f"unk_score is {unk_score}, expected -inf with a CTCDecoderLM")
        words = (
            read_words(lm_dict) if lm_dict is not None else dict.fromkeys(word for word, _ in spellings or ())
        )
        number_of = {word: number for number, word in enumerate(words)}
        return CustomKnowledge(lm, weight, word_score, spellings, number_of, blank, silence)
    weight /= math.log(10)  # a model here has natural logarithms, there the logarithms of base 10
    if spellings is None:
        names = [None if number == blank else name for number, name in enumerate(tokens.names)]
        model = _model(lm, names)
        over_tokens = None if model is None else model.scaled(weight)
        return Knowledge(over_tokens, blank, silence, unknown)
    scorer = _word_scorer(spellings, _model(lm, None), weight, word_score, unk_score, silence)
    return Knowledge(scorer, blank, silence, unknown)


def _known(
    spellings: Iterator[Spelling], allowed: set[str] | None, lm_dict: str | os.PathLike[str] | None
) -> Iterator[Spelling]:
    """Yield the spellings of words, but not of the unknown word."""
    for word, labels in spellings:
        if allowed is not None and word not in allowed:
            raise ArgumentValueError(f"lm_dict is {lm_dict!r}, which lacks {word!r}, a word of the lexicon")
        if word != UNKNOWN_WORD:
            yield word, labels


def _model(lm: Model, tokens: list[str | None] | None) -> Automaton | None:
    """Return the model over words, or over tokens if they are given."""
    if lm is None or isinstance(lm, Automaton):
        return lm
    if isinstance(lm, (str, os.PathLike)):
        return read_arpa(lm, tokens)
    raise ArgumentTypeError(
        "lm must be the path of an ARPA file, a fastctc.Automaton, a CTCDecoderLM of fastctc.compat.torchaudio or"
        f" None, got {type(lm).__name__}"
    )


def _word_scorer(
    spellings: list[Spelling],
    model: Automaton | None,
    weight: float,
    word_score: float,
    unk_score: float,
    silence: int,
) -> LexiconScorer:
    """Return the scorer of the language that flashlight accepts: words, with any silence around them."""
    if all(labels[-1] == silence and silence not in labels[:-1] and labels[1:] for _, labels in spellings):
        # The silence at the end of each spelling is the separator of words. At the end of the frames it may lack.
        return LexiconScorer(
            Lexicon((word, labels[:-1]) for word, labels in spellings),
            model,
            lm_weight=weight,
            word_bonus=word_score,
            separator=silence,
            unknown_word=None if unk_score == -math.inf else unk_score - word_score,
        )
    if unk_score > -math.inf:
        raise ArgumentValueError(
            f"unk_score is {unk_score}, expected -inf for a lexicon whose spellings do not all end with sil_token"
        )
    # Silence is optional between words: a word that the model skips.
    entries = [(word, labels, 0.0) for word, labels in spellings]
    return LexiconScorer(
        Lexicon([*entries, (SKIPPED_WORD, [silence], -word_score)]),
        None if model is None else skipping(model),
        lm_weight=weight,
        word_bonus=word_score,
    )
