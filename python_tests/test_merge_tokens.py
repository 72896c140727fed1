"""fastctc.merge_tokens: spans by hand, of nothing, and of alignments."""

from __future__ import annotations

import math

import pytest
import torch
from alignments import random_scores, random_targets
from conftest import Device

import fastctc

INF = math.inf
NAN = math.nan


def test_spans_by_hand() -> None:
    tokens = torch.tensor([[0, 3, 3, 0, 3, 4], [2, 2, 0, 0, 0, 0]])
    scores = torch.tensor([[0.0, -1.0, -3.0, -5.0, -7.0, -9.0], [-1.0, -2.0, -INF, 0.0, 0.0, 0.0]])
    one, two = fastctc.merge_tokens(tokens, scores)
    assert one == [
        fastctc.TokenSpan(3, 1, 3, -2.0),
        fastctc.TokenSpan(3, 4, 5, -7.0),
        fastctc.TokenSpan(4, 5, 6, -9.0),
    ]
    assert two == [fastctc.TokenSpan(2, 0, 2, -1.5)]
    assert len(one[0]) == 2
    assert fastctc.merge_tokens(tokens[0], scores[0]) == one
    assert [s.token for s in fastctc.merge_tokens(tokens[0], scores[0], blank=3)] == [0, 0, 4]


def test_spans_of_nothing() -> None:
    assert fastctc.merge_tokens(torch.zeros(0).long(), torch.zeros(0)) == []
    assert fastctc.merge_tokens(torch.zeros(0, 3).long(), torch.zeros(0, 3)) == []
    assert fastctc.merge_tokens(torch.zeros(2, 3).long(), torch.full((2, 3), NAN)) == [[], []]


def test_spans_of_wrong_shapes() -> None:
    for tokens, scores in ((torch.zeros(2), torch.zeros(3)), (torch.zeros(2, 2, 2), torch.zeros(2, 2, 2))):
        with pytest.raises(ValueError, match=r"tokens and scores must both have shape \(T\) or \(N, T\)"):
            fastctc.merge_tokens(tokens.long(), scores)


def test_spans_spell_the_target(device: Device) -> None:
    x = random_scores(3, 40, 8, seed=5).to(device.torch)
    targets, labels = random_targets(3, 12, 8, seed=5), [12, 5, 0]
    paths, scores = fastctc.forced_align(x, targets, [40, 30, 20], labels, from_logits=True)
    for n, spans in enumerate(fastctc.merge_tokens(paths, scores)):
        assert [span.token for span in spans] == targets[n, : labels[n]].tolist()
        for span in spans:
            assert span.score == pytest.approx(scores[n, span.start : span.end].mean().item(), rel=1e-5)
