"""Inputs and comparisons for tests of the beam search, and the best path of a prefix by other means."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from tolerances import TOLERANCES
from torch import Tensor

from fastctc import NBestResult
from fastctc.reference import DecodeReference

INF = math.inf
NAN = math.nan


def random_log_probs(
    *shape: int, seed: int = 0, std: float = 1.0, masked: float = 0.0, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Return the log-softmax of normal logits; a fraction of them is -inf."""
    generator = torch.Generator().manual_seed(seed)
    x = (std * torch.randn(*shape, generator=generator, dtype=torch.float64)).log_softmax(-1)
    gone = torch.rand(x.shape, generator=generator, dtype=torch.float64) < masked
    return x.masked_fill(gone, -INF).to(dtype)


def speech_like(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return log-probabilities of a trained model: mostly blank (0), short peaks, few rivals."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(*shape, generator=generator)
    winner = torch.randint(0, shape[-1], shape[:-1], generator=generator)
    winner[torch.rand(shape[:-1], generator=generator) < 0.6] = 0
    return (
        logits.scatter_add(-1, winner.unsqueeze(-1), torch.full((*shape[:-1], 1), 5.0))
        .log_softmax(-1)
        .to(dtype)
    )


def assert_equal(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """Check that all fields have the same bits."""
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one.cpu(), other.cpu(), rtol=0.0, atol=0.0, equal_nan=True)


def assert_close(
    actual: NBestResult, expected: DecodeReference | NBestResult, dtype: torch.dtype = torch.float64
) -> None:
    """Check for the same hypotheses and frames, and nearly the same numbers."""
    for name in ("tokens", "lengths", "timesteps", "ends", "peaks"):
        assert torch.equal(getattr(actual, name).cpu(), getattr(expected, name).cpu()), name
    tolerance = TOLERANCES[dtype].loss
    for name in ("scores", "path_scores", "confidences", "token_scores"):
        one, other = (getattr(each, name).double().cpu() for each in (actual, expected))
        torch.testing.assert_close(one, other, rtol=tolerance, atol=max(tolerance, 1e-6), equal_nan=True)


def of_sample(result: NBestResult, n: int, frames: int | None = None) -> list[Tensor]:
    """Return the results of one sample, padded to `frames`."""
    return [t[n][..., :frames] if t.dim() == 3 else t[n] for t in result]


def hypotheses(result: NBestResult, n: int = 0) -> list[tuple[tuple[int, ...], float]]:
    """Return the tokens and the score of each hypothesis that exists."""
    return [
        (tuple(tokens[:length]), score)
        for tokens, length, score in zip(
            result.tokens[n].tolist(), result.lengths[n].tolist(), result.scores[n].tolist()
        )
        if score > -INF
    ]


def assert_well_formed(result: NBestResult) -> None:
    """Check what holds for every result."""
    for n in range(result.lengths.shape[0]):
        found = hypotheses(result, n)
        scores = result.scores[n].tolist()
        if any(map(math.isnan, scores)):
            assert all(map(math.isnan, scores))
        else:
            assert scores == sorted(scores, reverse=True)
        assert len({tokens for tokens, _ in found}) == len(found), "a hypothesis twice"
    frames = torch.arange(result.tokens.shape[2], device=result.tokens.device)
    padding = frames >= result.lengths.unsqueeze(2)
    assert (result.lengths[~(result.scores > -INF)] == 0).all()
    for each in (result.tokens, result.timesteps, result.ends, result.peaks):
        assert (each[padding] == -1).all()
    for each in (result.confidences, result.token_scores):
        assert (each[padding] == 0).all()
    assert (result.tokens[~padding] >= 0).all()
    assert (result.confidences[~padding] >= 0).all()
    assert (result.confidences[~padding] <= 1).all()
    for each in (result.scores, result.path_scores, result.token_scores):
        assert not (each > 0).any(), "a log-probability above 0"
    assert not (result.path_scores > result.scores + 1e-5 * result.scores.abs()).any()
    starts, ends, inside = result.timesteps, result.ends, ~padding
    assert (starts <= result.peaks)[inside].all() and (result.peaks < ends)[inside].all()
    same = result.tokens[:, :, 1:] == result.tokens[:, :, :-1]
    assert (ends[:, :, :-1] + same <= starts[:, :, 1:])[inside[:, :, 1:]].all(), "runs overlap"


def best_path_score(rows: Tensor, tokens: Sequence[int], blank: int = 0) -> float:
    """Return the log-probability of the best path that spells `tokens`, by Viterbi over the extended label.

    `rows` are (T, C) log-probabilities.
    """
    states = [blank]
    for token in tokens:
        states += [token, blank]
    score = [0.0] + [-INF] * (len(states) - 1)
    for row in rows.tolist():
        moved = []
        for s, label in enumerate(states):
            best = score[s] if s == 0 else max(score[s], score[s - 1])
            if s >= 2 and label != blank and label != states[s - 2]:
                best = max(best, score[s - 2])
            moved.append(best + row[label])
        score = moved
    return max(score[-2:])


def best_path_through(
    rows: Tensor, tokens: Sequence[int], starts: Sequence[int], blank: int = 0
) -> tuple[float, list[float]]:
    """Return the log-probability of the best path whose tokens begin at `starts`, and the peak of each token."""
    x, peaks = rows.tolist(), []
    total = sum(row[blank] for row in x[: starts[0] if starts else len(x)])
    for i, (token, start) in enumerate(zip(tokens, starts)):
        end = starts[i + 1] if i + 1 < len(starts) else len(x)
        repeated = i + 1 < len(tokens) and tokens[i + 1] == token
        # The run of the token is [start, stop), what follows is blank.
        options = [
            (sum(row[token] for row in x[start:stop]) + sum(row[blank] for row in x[stop:end]), stop)
            for stop in range(start + 1, end + (not repeated))
        ]
        score, stop = max(options)
        total += score
        peaks.append(max(row[token] for row in x[start:stop]))
    return total, peaks
