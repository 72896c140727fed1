"""Scorers in Python: the batched search against the references, its calls, its errors."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from automata import random_automaton
from test_search_reference import random_log_probs
from torch import Tensor

import fastctc
from fastctc.decode_result import ScoredResult
from fastctc.reference import beam_search_reference
from fastctc.scoring import (
    AutomatonScorer,
    CallbackScorer,
    Scorer,
    beam_search_with_scorers,
    brute_force_search,
)
from fastctc.scoring.callback_search import callback_search

NO_CUTS = (math.inf, math.inf, math.inf)


def search(
    log_probs: Tensor,
    scorers: list[fastctc.Automaton | CallbackScorer],
    beam_size: int,
    nbest: int,
    *,
    lengths: list[int] | None = None,
    blank: int = 0,
    cuts: tuple[float, float, float] = NO_CUTS,
) -> ScoredResult:
    all_frames = [log_probs.shape[1]] * log_probs.shape[0]
    used = torch.tensor(all_frames if lengths is None else lengths, dtype=torch.int64)
    if cuts != NO_CUTS or not any(isinstance(each, CallbackScorer) for each in scorers):
        return ScoredResult(*callback_search(log_probs, used, beam_size, nbest, blank, False, *cuts, scorers))
    found = fastctc.beam_search(
        log_probs, used, beam_size=beam_size, nbest=nbest, blank=blank, scorer=scorers
    )
    assert isinstance(found, ScoredResult)
    return found


def assert_same(result: ScoredResult, n: int, expected: list[tuple[tuple[int, ...], float, float]]) -> None:
    """Check the hypotheses of a sample, in their order."""
    lengths = result.lengths[n].tolist()
    found = [tuple(row[:length]) for row, length in zip(result.tokens[n].tolist(), lengths)]
    count = int((result.scores[n] > -math.inf).sum())
    assert found[:count] == [tokens for tokens, _, _ in expected[:count]]
    assert count == min(len(expected), result.scores.shape[1])
    for k, (_, score, weight) in enumerate(expected[:count]):
        assert float(result.scores[n, k]) == pytest.approx(score, abs=1e-9)
        assert float(result.model_scores[n, k]) == pytest.approx(weight, abs=1e-9)
        assert float(result.acoustic_scores[n, k]) == pytest.approx(score - weight, abs=1e-9)


@pytest.mark.parametrize("seed", range(60))
def test_beams_of_any_size_equal_the_reference(seed: int) -> None:
    """One to three random automata as callbacks, weights of both signs, -inf, random blanks, batches of lengths."""
    classes, beam_size = 2 + seed % 5, 1 + seed % 7
    blank = random.Random(seed).randrange(classes)
    labels = [c for c in range(classes) if c != blank]
    automata = [random_automaton(seed + 1000 * i, labels) for i in range(1 + seed % 3)]
    scorers: list[Scorer] = [AutomatonScorer(each) for each in automata]
    log_probs = torch.stack([random_log_probs(seed + 7 * n, 9, classes) for n in range(3)])
    lengths = [9, seed % 9, 5]
    found = search(log_probs, [*automata], beam_size, beam_size, lengths=lengths, blank=blank)
    for n, length in enumerate(lengths):
        expected = beam_search_with_scorers(log_probs[n, :length], scorers, beam_size=beam_size, blank=blank)
        assert_same(found, n, [(h.tokens, h.score, h.weight) for h in expected])


@pytest.mark.parametrize("seed", range(40))
def test_beams_with_room_equal_brute_force(seed: int) -> None:
    """Callbacks with states of several tensors, weights above and below 0, and ends."""
    log_probs = random_log_probs(seed, 1 + seed % 5, 4)
    scorer = remembering(seed)
    found = search(log_probs[None], [scorer], 500, 500)
    expected = brute_force_search(log_probs, [scorer])
    wanted = {h.tokens: h for h in expected}
    assert len(wanted) == len(expected) == int((found.scores > -math.inf).sum())
    for tokens, score, weight in zip(
        found.to_list()[0], found.scores[0].tolist(), found.model_scores[0].tolist()
    ):
        assert score == pytest.approx(wanted[tuple(tokens)].score, abs=1e-9)
        assert weight == pytest.approx(wanted[tuple(tokens)].weight, abs=1e-9)
    assert found.scores[0].tolist() == sorted(found.scores[0].tolist(), reverse=True)


def remembering(seed: int, *, largest: float = 1.0) -> CallbackScorer:
    """Return a scorer whose weights depend on the last two tokens and on how many there are, at most `largest`."""
    generator = torch.Generator().manual_seed(seed)
    table = largest - torch.rand(4, 4, 4, 3, generator=generator, dtype=torch.float64) * 4

    def step(states: tuple[dict[str, Tensor], Tensor], tokens: Tensor) -> tuple[object, Tensor]:
        context, count = states
        weights = table[context["before"][:, 0], context["last"], tokens, count % 3]
        return ({"before": context["last"][:, None], "last": tokens}, count + 1), weights

    def end(states: tuple[dict[str, Tensor], Tensor]) -> Tensor:
        return torch.where(states[1] % 4 == 3, -math.inf, table[0, states[0]["last"], 0, 0])

    start = ({"before": torch.tensor([0]), "last": torch.tensor(0)}, torch.tensor(0))
    return CallbackScorer(start, step, end, largest_weight=largest)


def symmetric_log_probs(seed: int, frames: int, classes: int) -> Tensor:
    """Return log-probabilities that are equal for all classes but one per frame: many exact ties."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.zeros(frames, classes, dtype=torch.float64)
    rows[:, seed % 3] = torch.rand(frames, generator=generator, dtype=torch.float64)
    return rows.log_softmax(1)


@pytest.mark.parametrize("seed", range(30))
def test_without_weights_all_tensors_equal_the_plain_search(seed: int) -> None:
    """Places of tokens, confidences, cuts, and ties between prefixes and between paths."""
    classes, beam_size, blank = 3 + seed % 3, 1 + seed % 9, seed % 3
    make = symmetric_log_probs if seed % 2 else random_log_probs
    log_probs = torch.stack([make(seed + 50 * n, 12, classes) for n in range(3)])
    lengths = torch.tensor([12, 7, 0])
    cuts = [(math.inf, math.inf, math.inf), (3.0, 1.5, math.log(0.4))][seed // 2 % 2]
    nothing = CallbackScorer(torch.zeros(0), lambda states, tokens: (states, torch.zeros(len(tokens))))
    found = search(
        log_probs, [nothing], beam_size, beam_size, lengths=lengths.tolist(), blank=blank, cuts=cuts
    )
    skip = math.exp(cuts[2])
    expected = beam_search_reference(
        log_probs, lengths, beam_size=beam_size, nbest=beam_size, blank=blank,
        beam_threshold=cuts[0], token_threshold=cuts[1], blank_skip=skip,
    )  # fmt: skip
    for name, each in expected._asdict().items():
        ours = getattr(found, name)
        assert ours.dtype == each.dtype and ours.shape == each.shape, name
        assert torch.allclose(ours.double(), each.double(), atol=1e-9, rtol=0), name
    assert torch.equal(found.acoustic_scores, found.scores)
    assert bool((found.words == -1).all()) and bool((found.last_words == -1).all())


def test_a_step_is_one_call_for_all_samples() -> None:
    calls: list[int] = []
    scorer = remembering(1, largest=0.0)

    def step(states: object, tokens: Tensor) -> tuple[object, Tensor]:
        calls.append(len(tokens))
        return scorer.step(states, tokens)

    log_probs = torch.stack([random_log_probs(n, 10, 4) for n in range(5)])
    counting = CallbackScorer(scorer.start, step, scorer.end)
    search(log_probs, [counting], 8, 1)
    assert len(calls) == 10
    loose = calls[:]
    calls.clear()
    search(log_probs, [CallbackScorer(scorer.start, step, scorer.end, largest_weight=50.0)], 8, 1)
    assert len(calls) == 10 and sum(calls) > 1.2 * sum(loose)  # the bound saves pairs


@pytest.mark.parametrize("seed", range(20))
def test_the_bound_of_the_weights_changes_nothing(seed: int) -> None:
    log_probs = torch.stack([random_log_probs(seed + n, 10, 4) for n in range(2)])
    for largest in (-0.5, 0.0, 2.0):
        tight = remembering(seed, largest=largest)
        loose = CallbackScorer(tight.start, tight.step, tight.end, largest_weight=60.0)
        one, other = (search(log_probs, [each], 1 + seed % 6, 1 + seed % 6) for each in (tight, loose))
        assert all(torch.equal(*pair) for pair in zip(one, other))


def test_an_automaton_before_a_callback_spares_it_pairs() -> None:
    seen: set[int] = set()

    def step(states: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        seen.update(tokens.tolist())
        return states, torch.full((len(tokens),), -0.5)

    log_probs = random_log_probs(2, 8, 4)[None]
    only_ones = fastctc.Automaton.from_arcs([(0, 1, 0, -0.25)], {0: 0.0})
    found = search(log_probs, [only_ones, CallbackScorer(torch.zeros(1), step)], 20, 20)
    assert seen == {1}
    for tokens, weight in zip(found.to_list()[0], found.model_scores[0].tolist()):
        assert set(tokens) <= {1} and weight == -0.75 * len(tokens)


def test_samples_do_not_depend_on_the_batch() -> None:
    log_probs = torch.stack([random_log_probs(n, 9, 4) for n in range(4)])
    scorer = remembering(3)
    lengths = [9, 4, 0, 7]
    found = search(log_probs, [scorer], 6, 3, lengths=lengths)
    for n, length in enumerate(lengths):
        alone = search(log_probs[n : n + 1, :length], [scorer], 6, 3)
        for one, other in zip(found, alone):
            assert torch.equal(one[n, ..., :length] if one.dim() == 3 else one[n], other[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype: torch.dtype) -> None:
    log_probs = random_log_probs(4, 9, 4).to(dtype)[None]
    found = search(log_probs, [remembering(4)], 6, 3)
    wanted = search(log_probs.double(), [remembering(4)], 6, 3)
    assert found.scores.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.equal(found.tokens, wanted.tokens)
    assert torch.allclose(found.scores.double(), wanted.scores, atol=1e-5)


def test_logits_and_values_that_are_no_numbers() -> None:
    logits = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    used = torch.tensor([6, 6, 6])
    options = (used, 5, 2, 0, True, *NO_CUTS, [remembering(1)])
    wanted = search(logits.log_softmax(2), [remembering(1)], 5, 2)
    found = ScoredResult(*callback_search(logits, *options))
    assert torch.equal(found.tokens, wanted.tokens) and torch.allclose(found.scores, wanted.scores)
    logits[1, 2, 3] = math.nan
    broken = ScoredResult(*callback_search(logits, *options))
    assert bool(broken.scores[1].isnan().all()) and broken.to_list()[1] == []
    for one, other in zip(found, broken):
        assert torch.equal(one[::2], other[::2])
    with pytest.raises(ValueError, match="natural-log probabilities are at most 0"):
        search(logits.abs(), [remembering(1)], 5, 2)
    with pytest.raises(ValueError, match="input_lengths"):
        search(wanted.scores.new_zeros(1, 2, 3), [remembering(1)], 5, 2, lengths=[3])


@pytest.mark.parametrize("shape", [(0, 5, 4), (2, 0, 4), (2, 5, 1)])
def test_empty_inputs(shape: tuple[int, ...]) -> None:
    found = search(torch.zeros(shape, dtype=torch.float64), [remembering(1)], 5, 2)
    assert found.tokens.shape == (shape[0], 2, shape[1]) and bool((found.lengths == 0).all())
    assert [len(each) for each in found.to_list()] == [1] * shape[0]


def test_a_search_that_rejects_all_returns_its_beam_with_scores_of_no_probability() -> None:
    log_probs = random_log_probs(2, 6, 4)[None]
    never = CallbackScorer(
        torch.zeros(1), lambda states, tokens: (states, -torch.ones(len(tokens))),
        lambda states: torch.full((len(states),), -math.inf),
    )  # fmt: skip
    found = search(log_probs, [never], 4, 4)
    assert bool((found.scores == -math.inf).all()) and bool((found.model_scores == -math.inf).all())
    assert bool((found.lengths > 0).any()) and bool(found.acoustic_scores.isfinite().all())


def zeros(states: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    return states, torch.zeros(len(tokens))


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ((None, zeros), TypeError, "start must be a tensor or a tuple, list or dict of tensors, got None"),
        (((), zeros), TypeError, r"start must be a tensor .*, got \(\)"),
        ((torch.zeros(1), 3), TypeError, "step must be a function, got int"),
        ((torch.zeros(1), zeros, 3), TypeError, "end must be a function, got int"),
        ((torch.zeros(1), zeros, None, math.nan), ValueError, "largest_weight is nan, expected a finite"),
    ],
)
def test_errors_of_a_scorer(arguments: tuple[object, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        CallbackScorer(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "step, message",
    [
        (
            lambda s, t: (s, torch.zeros(1, len(t))),
            r"step returned weights of \(1, \d\), expected .* of \(\d,\)",
        ),
        (lambda s, t: (s, 0.0), "step returned weights of float, expected a tensor of"),
        (
            lambda s, t: (s[:0], torch.zeros(len(t))),
            r"step returned a state of \(0, 1\), expected tensors of \d",
        ),
        (lambda s, t: (s, torch.full((len(t),), math.nan)), "step returned the weight NaN"),
        (
            lambda s, t: (s, torch.full((len(t),), 0.5)),
            "weight 0.5, expected at most largest_weight, which is 0",
        ),
    ],
)
def test_errors_of_a_callback(step: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        search(random_log_probs(2, 6, 4)[None], [CallbackScorer(torch.zeros(1), step)], 4, 1)  # type: ignore[arg-type]


def test_errors_of_an_end_and_of_other_scorers() -> None:
    log_probs = random_log_probs(2, 6, 4)[None]
    with pytest.raises(ValueError, match=r"end returned weights of \(2,\), expected a tensor of \(4,\)"):
        search(log_probs, [CallbackScorer(torch.zeros(1), zeros, lambda s: torch.zeros(2))], 4, 1)
    wrong: list[Any] = [CallbackScorer(torch.zeros(1), zeros), "lm"]
    with pytest.raises(
        TypeError, match=r"scorer\[1\] is beside a CallbackScorer and must be an Auto.*, got str"
    ):
        search(log_probs, wrong, 4, 1)


def test_a_stream_takes_no_callback() -> None:
    scorer: Any = CallbackScorer(torch.zeros(1), zeros)
    with pytest.raises(TypeError, match="scorer must be an Automaton or a LexiconScorer, got CallbackScorer"):
        fastctc.BeamSearchDecoder(scorer=scorer).push(torch.zeros(3, 4).log_softmax(1))


def test_the_beam_search_takes_one_callback_and_its_options() -> None:
    logits = torch.randn(7, 2, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    scorer = remembering(3)
    wanted = search(logits.transpose(0, 1).log_softmax(2), [scorer], 6, 3)
    found = fastctc.beam_search(
        logits, time_major=True, from_logits=True, beam_size=6, nbest=3, scorer=scorer
    )
    assert torch.equal(found.tokens, wanted.tokens) and torch.allclose(found.scores, wanted.scores)
    alone = fastctc.beam_search(logits[:, 1], from_logits=True, beam_size=6, nbest=3, scorer=scorer)
    assert torch.equal(alone.tokens, found.tokens[1])
    exact = fastctc.beam_search(
        logits[:, 1], from_logits=True, beam_size=6, nbest=3, scorer=scorer, exact_scores=True
    )
    assert isinstance(exact, ScoredResult)
    for tokens, acoustic, score in zip(exact.to_list(), exact.acoustic_scores, exact.scores):
        target = torch.tensor([tokens], dtype=torch.int64)
        loss = fastctc.ctc_loss(logits[:, 1:], target, [7], [len(tokens)], from_logits=True, reduction="none")
        assert (
            float(acoustic) == pytest.approx(-float(loss), abs=1e-9) and float(score) >= float(acoustic) - 40
        )
