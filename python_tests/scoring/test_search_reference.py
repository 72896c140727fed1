"""The reference of a search with scorers: brute force against the loss, beams against brute force."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from arpa_files import random_model, write_arpa
from automata import random_automaton, walk_score
from test_lexicon import BOUNDARIES, WORDS, random_entries
from torch import Tensor

import fastctc
from fastctc.reference import beam_search_reference
from fastctc.scoring import (
    AutomatonScorer,
    Hypothesis,
    Lexicon,
    LexiconScorer,
    Scorer,
    beam_search_with_scorers,
    brute_force_search,
    hotwords,
    read_arpa,
    regular_expression,
)


def random_log_probs(seed: int, frames: int, classes: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(frames, classes, generator=generator, dtype=torch.float64) * 2
    x[torch.rand(x.shape, generator=generator) < 0.1] = -math.inf
    x[:, seed % classes] = x[:, seed % classes].clamp(min=-5)
    return x.log_softmax(1)


def assert_equal(found: Sequence[Hypothesis], expected: Sequence[Hypothesis]) -> None:
    """Check that hypotheses are equal, but for the order of scores that are equal up to rounding."""

    def table(hypotheses: Sequence[Hypothesis]) -> dict[tuple[object, ...], tuple[float, ...]]:
        result = {(each.tokens, each.words): each[1:4] for each in hypotheses}
        assert len(result) == len(hypotheses), "a hypothesis comes twice"
        return result

    got, wanted = table(found), table(expected)
    assert got.keys() == wanted.keys()
    for key, values in got.items():
        assert values == pytest.approx(wanted[key], abs=1e-9), key
    scores = [each.score for each in found]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("seed", range(40))
def test_scores_are_the_loss_plus_the_weight(seed: int) -> None:
    blank = seed % 3
    labels = [c for c in range(3) if c != blank]
    log_probs = random_log_probs(seed, 4, 3)
    automata = [random_automaton(seed + 1000 * i, labels) for i in range(1 + seed % 3)]
    found = brute_force_search(log_probs, [AutomatonScorer(each) for each in automata], blank)
    for each in found:
        target = torch.tensor([each.tokens], dtype=torch.int64)
        loss = fastctc.ctc_loss(log_probs[:, None], target, [4], [len(each.tokens)], blank, "none")
        weight = sum(walk_score(automaton, each.tokens) for automaton in automata)
        assert each.acoustic == pytest.approx(-float(loss), abs=1e-9)
        assert each.weight == pytest.approx(weight, abs=1e-9)
        assert each.score == each.acoustic + each.weight


@pytest.mark.parametrize("seed", range(100))
def test_beams_with_room_equal_brute_force(seed: int) -> None:
    """Up to three random automata, weights of both signs, -inf, random blanks."""
    classes = 2 + seed % 3
    blank = random.Random(seed).randrange(classes)
    labels = [c for c in range(classes) if c != blank]
    log_probs = random_log_probs(seed, 1 + seed % 5, classes)
    scorers = [AutomatonScorer(random_automaton(seed + 1000 * i, labels)) for i in range(seed % 4)]
    expected = brute_force_search(log_probs, scorers, blank)
    assert_equal(beam_search_with_scorers(log_probs, scorers, beam_size=10_000, blank=blank), expected)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("seed", range(4))
def test_beams_with_room_equal_brute_force_over_words(seed: int, boundary: str, tmp_path: Path) -> None:
    """Homophones are hypotheses of their own."""
    ngrams = random_model(2 * seed + 1, WORDS, 2)
    model = read_arpa(write_arpa(tmp_path / "lm.arpa", ngrams))
    scorer = LexiconScorer(Lexicon(random_entries(seed, [1, 2, 3])), model, **BOUNDARIES[boundary])
    log_probs = random_log_probs(5 * seed, 4, 5)
    expected = brute_force_search(log_probs, [scorer])
    assert len({each.tokens for each in expected}) < len(expected), "no homophones"
    assert_equal(beam_search_with_scorers(log_probs, [scorer], beam_size=10_000), expected)


@pytest.mark.parametrize("seed", range(40))
def test_small_beams_without_scorers_equal_the_plain_reference(seed: int) -> None:
    log_probs, beam_size = random_log_probs(seed, 12, 5), 1 + seed % 6
    blank = seed % 5
    found = beam_search_with_scorers(log_probs, [], beam_size=beam_size, blank=blank)
    expected = beam_search_reference(log_probs, beam_size=beam_size, nbest=beam_size, blank=blank)
    assert [each.score for each in found] == pytest.approx(
        [score for score in expected.scores.tolist() if score > -math.inf], abs=1e-9
    )
    for each, tokens, length in zip(found, expected.tokens.tolist(), expected.lengths.tolist()):
        assert list(each.tokens) == tokens[:length]


@pytest.mark.parametrize("seed", range(40))
def test_small_beams_find_no_more_than_there_is(seed: int) -> None:
    """The score of a hypothesis is a lower bound of its exact score, and larger beams end with the exact one."""
    log_probs = random_log_probs(seed, 6, 4)
    scorers = [AutomatonScorer(random_automaton(seed + 1000 * i, [1, 2, 3])) for i in range(2)]
    exact = {each.tokens: each for each in brute_force_search(log_probs, scorers)}
    for beam_size in (1, 2, 5, 20):
        found = beam_search_with_scorers(log_probs, scorers, beam_size=beam_size)
        assert len(found) <= beam_size
        for each in found:
            assert each.score <= exact[each.tokens].score + 1e-9
            assert each.weight == pytest.approx(exact[each.tokens].weight, abs=1e-9)


def test_a_hotword_is_rescued() -> None:
    """By its bonus it overtakes the labeling that is the best by acoustics."""
    alphabet = fastctc.Alphabet("abc")
    log_probs = torch.tensor([[0.1, 0.5, 0.4, 0.0], [0.1, 0.0, 0.3, 0.6], [0.1, 0.0, 0.3, 0.6]]).log()
    assert beam_search_with_scorers(log_probs, [], beam_size=2)[0].tokens == tuple(alphabet.encode("ac"))
    words = hotwords({"bb": 6.0}, alphabet)
    scorers: list[Scorer] = [AutomatonScorer(words)]
    best = beam_search_with_scorers(log_probs, scorers, beam_size=50)[0]
    assert best == brute_force_search(log_probs, scorers)[0]._replace(
        score=best.score, acoustic=best.acoustic
    )
    assert (best.tokens, best.weight) == (tuple(alphabet.encode("bb")), 6.0)


def test_a_grammar_leaves_what_it_accepts() -> None:
    alphabet = fastctc.Alphabet("01+=")
    log_probs = random_log_probs(3, 5, 5)
    grammar = AutomatonScorer(regular_expression(r"\d(\+\d)*", alphabet))
    found = brute_force_search(log_probs, [grammar])
    plain = brute_force_search(log_probs, [])
    accepted = {each.tokens for each in plain if re.fullmatch(r"\d(\+\d)*", alphabet.decode(each.tokens))}
    assert {each.tokens for each in found} == accepted and 0 < len(accepted) < len(plain)
    assert all(each.weight == 0 for each in found)
