"""The searches for words that are compared, each called as it likes best.

fastctc            fastctc.beam_search with a LexiconScorer: exact cuts only; all utterances are one batch
fastctc_cut        the same with the thresholds `CUTS`, which lose next to nothing
flashlight         flashlight-text's LexiconDecoder with KenLM: the `TOKENS` best tokens of a frame, hypotheses
                   within `THRESHOLD` of the best one, scores of the best path (its default)
flashlight_sum     the same with log_add, which sums over paths
pyctcdecode        as it comes: tokens below exp(-5) and beams exp(-10) below the best are cut
ctc_beam_decoder   ctc-beam-decoder, as it comes: the same cuts

A hypothesis y with n words has the score ln P(y | x) + lm_weight * ln P(words) + n * word_bonus, for all sides.
flashlight counts the scores of its model in log10, so its lm_weight is ln 10 times larger. A side gives the words
of each utterance. The peers take one utterance at a time: the loop is part of the call.

pyctcdecode and ctc-beam-decoder spell words by their letters, so they take part in the case `letters` alone. They
also find words that the lexicon lacks, with their default penalty.
"""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

import fastctc
from decoders import quietly
from fastctc.scoring import Lexicon, LexiconScorer, read_arpa
from peers import versions
from word_cases import Case, Words

CUTS = {"token_threshold": 12.0, "beam_threshold": 15.0}  # of fastctc_cut
TOKENS, THRESHOLD = 30, 25.0  # of flashlight
UNKNOWN = "<unk>"


class Weights(NamedTuple):
    lm_weight: float
    word_bonus: float


class Searcher:
    """A word model in memory. `prepare` the input of a side, set it with `tune`, time the call."""

    def __init__(self, case: Case) -> None:
        self.case = case

    def tune(self, beam: int, weights: Weights) -> Callable[[Any], Words]:
        """Return the search with these settings; it takes what `prepare` returns."""
        raise NotImplementedError

    def prepare(self, utterances: list[Tensor]) -> Any:
        """Return utterances (T, C) each in the form that the search takes."""
        return utterances


class Batch(NamedTuple):
    log_probs: Tensor  # (N, T, C)
    lengths: Tensor  # (N)


class Fastctc(Searcher):
    def __init__(self, case: Case) -> None:
        super().__init__(case)
        entries = ((word, spelling) for word, spellings in case.lexicon.items() for spelling in spellings)
        self.lexicon, self.model = Lexicon(entries), read_arpa(case.arpa)
        self.cuts: dict[str, Any] = {}

    def cut(self) -> Fastctc:
        """Return the same with `CUTS`."""
        other = copy.copy(self)
        other.cuts = CUTS
        return other

    def scorer(self, weights: Weights) -> LexiconScorer:
        return LexiconScorer(self.lexicon, self.model, separator=self.case.separator, **weights._asdict())

    def prepare(self, utterances: list[Tensor]) -> Batch:
        lengths = torch.tensor([len(each) for each in utterances])
        return Batch(torch.nn.utils.rnn.pad_sequence(utterances, batch_first=True), lengths)

    def tune(self, beam: int, weights: Weights) -> Callable[[Batch], Words]:
        scorer = self.scorer(weights)

        def search(batch: Batch) -> Words:
            found: Any = fastctc.beam_search(
                *batch, beam_size=beam, blank=self.case.blank, scorer=scorer, **self.cuts
            )
            # A sample has no hypotheses if the beam holds only beginnings of words.
            return [[word.text for word in each[0]] if each else [] for each in found.to_words(scorer)]

        return search


class Flashlight(Searcher):
    def __init__(self, case: Case, log_add: bool = False) -> None:
        super().__init__(case)
        self.decoder = importlib.import_module("flashlight.lib.text.decoder")
        dictionary = importlib.import_module("flashlight.lib.text.dictionary")
        kenlm = importlib.import_module("flashlight.lib.text.decoder.kenlm")
        self.log_add = log_add
        spellings = {
            word: [[case.tokens[label] for label in spelling] for spelling in each]
            for word, each in case.lexicon.items()
        }
        self.words = dictionary.create_word_dict({**spellings, UNKNOWN: [[UNKNOWN]]})
        self.model = kenlm.KenLM(str(case.arpa), self.words)
        # The token between words. Where a token ends each spelling, it also stands at both ends of an utterance.
        self.silence = case.tokens.index("<wb>") if case.separator is None else case.separator
        self.trie = self.decoder.Trie(len(case.tokens), self.silence)
        start = self.model.start(False)
        for word, each in case.lexicon.items():
            number = self.words.get_index(word)
            _, score = self.model.score(start, number)
            for spelling in each:
                ending = () if case.separator is None else (case.separator,)
                self.trie.insert([*spelling, *ending], number, score)
        self.trie.smear(self.decoder.SmearingMode.MAX)

    def prepare(self, utterances: list[Tensor]) -> list[Tensor]:
        return [each.contiguous() for each in utterances]

    def tune(self, beam: int, weights: Weights) -> Callable[[list[Tensor]], Words]:
        options = self.decoder.LexiconDecoderOptions(
            beam_size=beam,
            beam_size_token=min(TOKENS, len(self.case.tokens)),
            beam_threshold=THRESHOLD,
            lm_weight=weights.lm_weight * math.log(10),
            word_score=weights.word_bonus,
            unk_score=-math.inf,
            sil_score=0.0,
            log_add=self.log_add,
            criterion_type=self.decoder.CriterionType.CTC,
        )
        unknown = self.words.get_index(UNKNOWN)
        decoder = self.decoder.LexiconDecoder(
            options, self.trie, self.model, self.silence, self.case.blank, unknown, [], False
        )

        def search(utterances: list[Tensor]) -> Words:
            found = []
            for log_probs in utterances:
                results = decoder.decode(log_probs.data_ptr(), *log_probs.shape)
                found.append([self.words.get_entry(i) for i in results[0].words if i >= 0] if results else [])
            return found

        return search


class Pyctcdecode(Searcher):
    def __init__(self, case: Case) -> None:
        super().__init__(case)
        if case.separator is None:
            raise ValueError("it takes words by their letters alone")
        build = importlib.import_module("pyctcdecode").build_ctcdecoder
        self.decoder = quietly(lambda: build(case.tokens, str(case.arpa), unigrams=list(case.lexicon)))

    def prepare(self, utterances: list[Tensor]) -> list[Any]:
        return [each.numpy() for each in utterances]

    def tune(self, beam: int, weights: Weights) -> Callable[[list[Any]], Words]:
        def search(utterances: list[Any]) -> Words:
            self.decoder.reset_params(alpha=weights.lm_weight, beta=weights.word_bonus)
            return [self.decoder.decode(each, beam_width=beam).split() for each in utterances]

        return search


class CtcBeamDecoder(Pyctcdecode):
    """Its weights are set when it loads the model, so each setting loads it anew, outside of the timed call."""

    def __init__(self, case: Case) -> None:
        Searcher.__init__(self, case)
        if case.separator is None:
            raise ValueError("it takes words by their letters alone")
        self.build = importlib.import_module("ctc_beam_decoder").build_ctcdecoder

    def tune(self, beam: int, weights: Weights) -> Callable[[list[Any]], Words]:
        decoder = self.build(
            self.case.tokens,
            kenlm_model_path=str(self.case.arpa),
            unigrams=list(self.case.lexicon),
            alpha=weights.lm_weight,
            beta=weights.word_bonus,
        )
        return lambda utterances: [decoder.decode(each, beam_width=beam).split() for each in utterances]


@dataclass(frozen=True)
class Peer:
    make: Callable[[Case], Searcher]
    modules: tuple[str, ...]  # that must be importable
    packages: tuple[str, ...]  # that they come from
    cases: tuple[str, ...] = ("speech", "letters")


FLASHLIGHT = ("flashlight.lib.text.decoder.kenlm",), ("flashlight-text", "kenlm-ex")
PEERS = {
    "flashlight": Peer(Flashlight, *FLASHLIGHT),
    "flashlight_sum": Peer(lambda case: Flashlight(case, log_add=True), *FLASHLIGHT),
    "pyctcdecode": Peer(
        Pyctcdecode, ("pyctcdecode", "kenlm"), ("pyctcdecode", "pygtrie", "kenlm-ex"), ("letters",)
    ),
    "ctc_beam_decoder": Peer(CtcBeamDecoder, ("ctc_beam_decoder",), ("ctc-beam-decoder",), ("letters",)),
}


def choose(names: list[str]) -> tuple[dict[str, str], list[str]]:
    """Return the peers that can be used with their versions, and why the others cannot."""
    usable, missing = {}, []
    for name in names:
        version = versions(PEERS[name].packages)
        try:
            for module in PEERS[name].modules:
                quietly(lambda: importlib.import_module(module))  # noqa: B023 (it is called at once)
        except Exception as error:  # an extension may raise anything
            reason = f" ({version} fails to load: {type(error).__name__})" if version else ""
            missing.append(name + reason)
        else:
            usable[name] = version or "no version"
    return usable, missing
