"""Rescoring: hypotheses in the order of acoustics and a function of whole sequences."""

from __future__ import annotations

import math
import re

import pytest
import torch
from test_search_reference import random_log_probs
from torch import Tensor

import fastctc
from fastctc.decode_result import ScoredResult
from fastctc.scoring import CallbackScorer, rescore
from fastctc.scoring.callback_search import callback_search


def batch() -> Tensor:
    return torch.stack([random_log_probs(n, 8, 4) for n in range(3)])


def model(hypotheses: list[list[int]]) -> list[float]:
    return [-0.7 * sum(tokens) - 0.3 * len(tokens) + (tokens[:1] == [2]) for tokens in hypotheses]


def test_hypotheses_are_sorted_by_acoustics_plus_model() -> None:
    result = fastctc.beam_search(batch(), [8, 8, 3], beam_size=20, nbest=20)
    found = rescore(result, model, weight=0.5, token_bonus=0.25)
    for n in range(3):
        texts = result.sample(n).to_list()
        scores = result.scores[n].tolist()
        added = [0.5 * value + 0.25 * len(tokens) for value, tokens in zip(model(texts), texts)]
        wanted = sorted(zip(scores, added, texts), key=lambda each: -(each[0] + each[1]))
        assert found.sample(n).to_list() == [tokens for _, _, tokens in wanted] != texts
        count = len(wanted)
        assert found.scores[n, :count].tolist() == pytest.approx([a + b for a, b, _ in wanted])
        assert found.acoustic_scores[n, :count].tolist() == [a for a, _, _ in wanted]
        assert found.model_scores[n, :count].tolist() == pytest.approx([b for _, b, _ in wanted])
        assert bool((found.scores[n, count:] == -math.inf).all())


def test_every_tensor_follows_its_hypothesis() -> None:
    result = fastctc.beam_search(batch()[0], beam_size=20, nbest=20)
    found = rescore(result, model)
    place = {tuple(tokens): k for k, tokens in enumerate(result.to_list())}
    order = [place[tuple(tokens)] for tokens in found.to_list()]
    for name in ("lengths", "timesteps", "confidences", "ends", "peaks", "token_scores", "path_scores"):
        assert torch.equal(getattr(found, name)[: len(order)], getattr(result, name)[order]), name
    assert found.spans() == [result.spans()[k] for k in order]


def test_the_function_is_called_once_with_what_exists() -> None:
    calls: list[list[list[int]]] = []
    log_probs = batch()
    log_probs[1, 2, 3] = math.nan
    result = fastctc.beam_search(log_probs, [8, 8, 1], nbest=10)

    def count(hypotheses: list[list[int]]) -> Tensor:
        calls.append(hypotheses)
        return torch.zeros(len(hypotheses), requires_grad=True)

    found = rescore(result, count)
    assert calls == [[tokens for each in result.to_list() for tokens in each]] and len(calls[0]) < 20
    for name, one in result._asdict().items():
        assert torch.equal(one.nan_to_num(), getattr(found, name).nan_to_num()), name
    assert bool(found.scores[1].isnan().all()) and bool(found.model_scores[1].isnan().all())
    assert not found.scores.requires_grad


def test_scores_of_a_model_in_the_search_stay_apart() -> None:
    def step(states: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        return states, -0.5 * tokens

    log_probs = batch()
    arguments = (log_probs, torch.tensor([8, 8, 8]), 20, 9, 0, False, math.inf, math.inf, math.inf)
    result = ScoredResult(*callback_search(*arguments, [CallbackScorer(torch.zeros(1), step)]))
    found = rescore(result, model)
    for tokens, model_score in zip(found.to_list()[0], found.model_scores[0].tolist()):
        assert model_score == pytest.approx(-0.5 * sum(tokens) + model([tokens])[0])
    assert torch.allclose(found.scores, found.acoustic_scores + found.model_scores)
    assert sorted(found.acoustic_scores[0].tolist()) == sorted(result.acoustic_scores[0].tolist())
    back = rescore(found, lambda hypotheses: [-value for value in model(hypotheses)])
    assert torch.equal(back.tokens, result.tokens) and torch.allclose(back.scores, result.scores)


def test_hypotheses_can_be_rejected() -> None:
    result = fastctc.beam_search(batch(), nbest=8)
    found = rescore(result, lambda each: [0.0 if len(tokens) % 2 else -math.inf for tokens in each], weight=0)
    for one, other in zip(found.to_list(), result.to_list()):
        assert one == [tokens for tokens in other if len(tokens) % 2]


@pytest.mark.parametrize(
    "values, message",
    [
        ([0.0], r"function returned values of shape \(1,\), expected one for each of the 2 hypotheses"),
        ([0.0, math.nan], r"function returned nan for the tokens \[\d\], expected a natural logarithm"),
        ([math.inf, 0.0], "function returned inf for the tokens"),
    ],
)
def test_errors_of_the_function(values: list[float], message: str) -> None:
    result = fastctc.beam_search(torch.tensor([[0.2, 0.5, 0.3]]).log(), nbest=2)
    with pytest.raises(ValueError, match=message):
        rescore(result, lambda _: values)


def test_errors_of_arguments() -> None:
    result = fastctc.beam_search(batch(), nbest=2)
    for name in ("weight", "token_bonus"):
        with pytest.raises(ValueError, match=f"{name} is nan, expected a finite number"):
            rescore(result, model, **{name: math.nan})
    with pytest.raises(ValueError, match=re.escape("added has the shape (3,), expected (3, 2), as scores")):
        result.with_model_scores(torch.zeros(3))
