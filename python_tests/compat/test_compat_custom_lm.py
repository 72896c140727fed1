"""Language models of the user's in torchaudio's decoder, with the examples of its tests."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from compat_files import WORDS, Bigrams, write_arpa, write_lines

from fastctc.compat.torchaudio import CTCDecoderLM, CTCDecoderLMState, ctc_decoder

TOKENS = ["-", "|", "f", "o", "b", "a", "r"]
LEXICON = ["foo f o o |", "bar b a r |", "foobar f o o b a r |"]
DICT = ["<unk>", "foobar", "bar", "foo"]


class ZeroLM(CTCDecoderLM):
    def start(self, start_with_nothing: bool) -> CTCDecoderLMState:
        return CTCDecoderLMState()

    def score(self, state: CTCDecoderLMState, usr_token_idx: int) -> tuple[CTCDecoderLMState, float]:
        return state.child(usr_token_idx), 0.0

    def finish(self, state: CTCDecoderLMState) -> tuple[CTCDecoderLMState, float]:
        return state, 0.0


class KeywordLM(ZeroLM):
    """Prefer one number, by a bias in a state that is passed along."""

    def __init__(self, number: int) -> None:
        self.number = number

    def score(self, state: CTCDecoderLMState, usr_token_idx: int) -> tuple[CTCDecoderLMState, float]:
        return state.child(usr_token_idx), 0.0 if usr_token_idx == self.number else -math.inf


class BigramLM(CTCDecoderLM):
    """log10 P of a model of 2-grams."""

    def __init__(self, words: list[str], ngrams: Bigrams) -> None:
        self.words, self.ngrams = words, ngrams
        self.last: dict[CTCDecoderLMState, str] = {}

    def start(self, start_with_nothing: bool) -> CTCDecoderLMState:
        state = CTCDecoderLMState()
        self.last[state] = "</s>" if start_with_nothing else "<s>"
        return state

    def _log10(self, last: str, word: str) -> float:
        if (last, word) in self.ngrams:
            return self.ngrams[last, word][0]
        return self.ngrams[(last,)][1] + self.ngrams[(word,)][0]

    def score(self, state: CTCDecoderLMState, usr_token_idx: int) -> tuple[CTCDecoderLMState, float]:
        word = self.words[usr_token_idx]
        after = state.child(usr_token_idx)
        self.last[after] = word
        return after, self._log10(self.last[state], word)

    def finish(self, state: CTCDecoderLMState) -> tuple[CTCDecoderLMState, float]:
        return state, self._log10(self.last[state], "</s>")


def decoder(tmp_path: Path, lm: Any, use_lexicon: bool = True, **options: Any) -> Any:
    lexicon = write_lines(tmp_path / "lexicon.txt", LEXICON) if use_lexicon else None
    return ctc_decoder(**{"lexicon": lexicon, "tokens": TOKENS, "lm": lm} | options)


def emissions() -> torch.Tensor:
    return torch.rand(4, 15, 8, generator=torch.Generator().manual_seed(0))


def test_states() -> None:
    state = CTCDecoderLMState()
    assert state.child(3) is state.child(3) is state.children[3]
    assert state.child(3) is not state.child(4)
    assert state.compare(state) == 0
    assert state.child(3).compare(state.child(4)) == -state.child(4).compare(state.child(3)) != 0


@pytest.mark.parametrize("use_lexicon", [True, False])
@pytest.mark.parametrize("log_add", [True, False])
def test_torchaudio_example_of_no_model(tmp_path: Path, use_lexicon: bool, log_add: bool) -> None:
    """A model that gives 0 equals none."""
    options: dict[str, Any] = {"nbest": 3, "sil_score": 0.2, "word_score": 0.1, "log_add": log_add}
    without = decoder(tmp_path, None, use_lexicon, **options)(emissions())
    zero = decoder(tmp_path, ZeroLM(), use_lexicon, **options)(emissions())
    for one, other in zip(without, zero):
        assert [each.words for each in one] == [each.words for each in other]
        assert [each.score for each in one] == pytest.approx([each.score for each in other], abs=1e-4)
        for each, same in zip(one, other):
            assert each.tokens.equal(same.tokens) and each.timesteps.equal(same.timesteps)


@pytest.mark.parametrize("seed", range(3))
def test_torchaudio_example_of_a_model_of_kenlm(tmp_path: Path, seed: int) -> None:
    """A model in Python with the probabilities of an ARPA file has the same hypotheses."""
    lexicon = write_lines(tmp_path / "lexicon.txt", ["ab a b |", "ba b a |", "b b |", "b b b |"])
    options: dict[str, Any] = {"lexicon": lexicon, "tokens": ["-", "|", "a", "b"], "log_add": True}
    options |= {
        "nbest": 50,
        "beam_size": 500,
        "beam_threshold": math.inf,
        "word_score": 0.4,
        "lm_weight": 1.3,
    }
    x = torch.randn(1, 5, 4, generator=torch.Generator().manual_seed(seed))
    (expected,) = ctc_decoder(**options, lm=write_arpa(tmp_path / "lm.arpa", WORDS))(x)
    words = ["b", "ba", "ab"]
    lm_dict = write_lines(tmp_path / "dict.txt", words)
    (found,) = ctc_decoder(**options, lm=BigramLM(words, WORDS), lm_dict=lm_dict)(x)
    scores = {tuple(each.words): each.score for each in expected}
    assert {tuple(each.words): each.score for each in found} == pytest.approx(scores, abs=1e-4)
    assert len(found) > 10


def test_torchaudio_example_of_a_biased_model(tmp_path: Path) -> None:
    """All words are the keyword, whose number is its line in lm_dict."""
    lm_dict = write_lines(tmp_path / "dict.txt", DICT)
    results = decoder(tmp_path, KeywordLM(DICT.index("foo")), lm_dict=lm_dict, lm_weight=10)(emissions())
    assert all(set(best.words) <= {"foo"} for (best,) in results) and any(best.words for (best,) in results)


def test_torchaudio_example_of_a_biased_model_of_tokens(tmp_path: Path) -> None:
    each = decoder(tmp_path, KeywordLM(TOKENS.index("f")), use_lexicon=False, lm_weight=10)
    for (best,) in each(emissions()):
        assert set(each.idxs_to_tokens(best.tokens)) <= {"f", "|"}


def test_scores_above_0_need_their_bound(tmp_path: Path) -> None:
    class Bonus(ZeroLM):
        def score(self, state: CTCDecoderLMState, usr_token_idx: int) -> tuple[CTCDecoderLMState, float]:
            return state.child(usr_token_idx), 1.0

    with pytest.raises(ValueError, match="expected at most largest_weight, which is"):
        decoder(tmp_path, Bonus())(emissions())

    class Bounded(Bonus):
        largest_score = 1.0

    without = decoder(tmp_path, None, word_score=2.0)(emissions())
    found = decoder(tmp_path, Bounded(), lm_weight=2)(emissions())
    assert [best.words for (best,) in found] == [best.words for (best,) in without]


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        (["ab a b"], {}, "lexicon spells 'ab' without sil_token at its end alone"),
        (["ab a b |", "AB a b |"], {}, "lexicon spells 'ab' and 'AB' alike, expected different spellings"),
        (["ab a b |"], {"unk_score": -1.0}, "unk_score is -1.0, expected -inf with a CTCDecoderLM"),
    ],
)
def test_errors(tmp_path: Path, lines: list[str], options: dict[str, Any], message: str) -> None:
    lexicon = write_lines(tmp_path / "lexicon.txt", lines)
    with pytest.raises(ValueError, match=message):
        ctc_decoder(lexicon=lexicon, tokens=TOKENS, lm=ZeroLM(), **options)


def test_no_streams(tmp_path: Path) -> None:
    each = decoder(tmp_path, ZeroLM())
    with pytest.raises(NotImplementedError, match="decode_begin takes no CTCDecoderLM, expected a call"):
        each.decode_begin()
