"""fastctc.beam_search against brute force, against the reference, and for properties that must hold."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from beams import (
    INF,
    NAN,
    assert_close,
    assert_well_formed,
    best_path_score,
    best_path_through,
    hypotheses,
    random_log_probs,
    speech_like,
)
from conftest import Device, slow
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import fastctc
from fastctc.reference import beam_search_reference, brute_force

pytestmark = pytest.mark.ptx


def exact_losses(x: Tensor, result: fastctc.NBestResult, lengths: list[int], blank: int = 0) -> Tensor:
    """Return (N, nbest), minus the log-probability of every hypothesis."""
    losses = [
        fastctc.ctc_loss(
            x.transpose(0, 1),
            result.tokens[:, k],
            lengths,
            result.lengths[:, k],
            blank=blank,
            reduction="none",
        )
        for k in range(result.lengths.shape[1])
    ]
    return torch.stack(losses, 1)


def test_by_hand(device: Device) -> None:
    p = torch.tensor([[0.6, 0.4], [0.6, 0.4]], device=device.torch)
    result = fastctc.beam_search(p.log().unsqueeze(0), nbest=3)
    assert isinstance(result, fastctc.DecodeResult)
    tokens, lengths, scores, timesteps, confidences, *_ = result
    assert tokens.tolist() == [[[1, -1], [-1, -1], [-1, -1]]]
    assert lengths.tolist() == [[1, 0, 0]]
    assert scores.exp().tolist()[0] == pytest.approx([0.64, 0.36, 0])
    assert timesteps.tolist() == [[[0, -1], [-1, -1], [-1, -1]]]
    assert confidences[0].flatten().tolist() == pytest.approx([0.4, 0, 0, 0, 0, 0])
    assert {each.dtype for each in (tokens, lengths, timesteps)} == {torch.int64}
    assert {each.device.type for each in result} == {device.torch.type}


@pytest.mark.parametrize(
    ("frames", "classes", "cases"),
    [(1, 4, 100), (2, 3, 300), (5, 2, 150), *slow((3, 3, 300), (4, 3, 200), (3, 5, 60))],
)
@pytest.mark.parametrize("masked", [0.0, *slow(0.25)], ids=["all classes", "masked classes"])
def test_all_labellings(device: Device, frames: int, classes: int, cases: int, masked: float) -> None:
    """A beam with room for every sequence finds all of brute force, in order, with the same scores."""
    blank = classes - 1 if masked else 0
    x = random_log_probs(cases, frames, classes, seed=frames * 7 + classes, std=2.0, masked=masked)
    width = len(brute_force(x[0], blank))
    result = fastctc.beam_search(x.to(device.torch), beam_size=width, nbest=width, blank=blank)
    assert_well_formed(result)
    for n in range(cases):
        listed = brute_force(x[n], blank)
        expected = sorted(
            ((labels, float(log_p)) for labels, (log_p, _) in listed.items() if log_p > -INF),
            key=lambda each: -each[1],
        )
        found = hypotheses(result, n)
        assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-10)
        if all(a[1] - b[1] > 1e-9 for a, b in itertools.pairwise(expected)):
            assert [labels for labels, _ in found] == [labels for labels, _ in expected]
        else:  # masks leave sequences with a single path, whose sums equal the sums of another
            assert dict(found).keys() == dict(expected).keys()


CUTS = [
    {},
    {"beam_threshold": 2.0},
    {"token_threshold": 1.5},
    {"blank_skip": 0.4},
    {"beam_threshold": 6.0, "token_threshold": 3.0, "blank_skip": 0.9},
    {"beam_threshold": 0.0},
    {"token_threshold": 0.0},
]


@pytest.mark.slow_emulated
@pytest.mark.parametrize("from_logits", [False, *slow(True)], ids=["log_probs", "logits"])
@settings(max_examples=300)
@given(
    num_samples=st.integers(1, 3),
    num_frames=st.integers(0, 30),
    num_classes=st.sampled_from([1, 2, 3, 5, 9, 17, 40]),
    beam_size=st.sampled_from([1, 2, 3, 4, 7, 8, 9, 16, 17, 33]),
    blank=st.sampled_from([0, -1]),
    std=st.sampled_from([0.3, 1.0, 3.0]),
    masked=st.sampled_from([0.0, 0.0, 0.3]),
    cuts=st.sampled_from(CUTS),
    time_major=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_random_cases(
    device: Device,
    from_logits: bool,
    num_samples: int,
    num_frames: int,
    num_classes: int,
    beam_size: int,
    blank: int,
    std: float,
    masked: float,
    cuts: dict[str, float],
    time_major: bool,
    seed: int,
) -> None:
    x = random_log_probs(num_samples, num_frames, num_classes, seed=seed, std=std, masked=masked)
    if from_logits:
        x = torch.where(x.isinf().all(2, keepdim=True), 0.0, x + 3.0)
    x = x.transpose(0, 1) if time_major else x
    lengths = torch.randint(0, num_frames + 1, (num_samples,), generator=torch.Generator().manual_seed(seed))
    options = {
        "beam_size": beam_size,
        "nbest": beam_size,
        "blank": blank % num_classes,
        "time_major": time_major,
        "from_logits": from_logits,
        **cuts,
    }
    result = fastctc.beam_search(x.to(device.torch), lengths, **options)
    assert_well_formed(result)
    expected = beam_search_reference(x, lengths, **options)
    if masked or cuts:  # where scores of different paths are the same sum, rounding decides
        distinct = expected.scores.diff(dim=1).abs().nan_to_num(1.0).amin(1) > 1e-9 if beam_size > 1 else None
        if distinct is not None and not distinct.all():
            return
    assert_close(result, expected)


@pytest.mark.parametrize("beam_size", [1, 3, 20, *slow(2, 5, 8)])
def test_ties(device: Device, beam_size: int) -> None:
    """Classes that are equal in every frame have sums of the same bits, so the rule decides."""
    for seed in range(20):
        x = random_log_probs(1, 12, 3, seed=seed)
        for blank, classes in ((0, [0, 1, 1, 2, 2, 1]), (5, [2, 1, 1, 2, 1, 0])):
            tied = x[:, :, classes]
            options = {"beam_size": beam_size, "nbest": beam_size, "blank": blank}
            result = fastctc.beam_search(tied.to(device.torch), **options)
            assert_close(result, beam_search_reference(tied, **options))


def test_ties_go_to_lower_tokens(device: Device) -> None:
    x = torch.full((1, 1, 40), 1 / 40, device=device.torch).log()
    result = fastctc.beam_search(x, beam_size=5, nbest=5, blank=2)
    assert result.to_list() == [[[], [0], [1], [3], [4]]]


@pytest.mark.parametrize("beam_size", [3, *slow(4, 5, 6, 10)])
def test_no_hypothesis_comes_twice(device: Device, beam_size: int) -> None:
    """Small beams drop a prefix, keep its extensions, and find it again."""
    for seed in range(12):
        x = random_log_probs(8, 50, 3, seed=seed, std=0.7)
        result = fastctc.beam_search(x.to(device.torch), beam_size=beam_size, nbest=beam_size)
        assert_well_formed(result)
        assert_close(result, beam_search_reference(x, beam_size=beam_size, nbest=beam_size))


@pytest.mark.parametrize("beam_size", [1, 10, 32, 33, 64, 100])
@pytest.mark.parametrize("make", [speech_like, random_log_probs], ids=["peaked", "flat"])
def test_scores_are_lower_bounds(device: Device, beam_size: int, make: object) -> None:
    x, lengths = make(4, 60, 30, dtype=torch.float64).to(device.torch), [60, 59, 20, 1]  # type: ignore[operator]
    result = fastctc.beam_search(x, lengths, beam_size=beam_size, nbest=min(beam_size, 20))
    assert_well_formed(result)
    exact = -exact_losses(x, result, lengths)
    found = result.scores > -INF
    assert (result.scores <= exact + 1e-9 * exact.abs())[found].all()


def test_the_best_is_no_worse_than_greedy(device: Device) -> None:
    x = speech_like(8, 100, 20).to(device.torch)
    lengths = [100] * 8
    greedy = fastctc.greedy_decode(x)
    loss = fastctc.ctc_loss(x.transpose(0, 1), greedy.tokens, lengths, greedy.lengths, reduction="none")
    best = fastctc.beam_search(x, beam_size=16, exact_scores=True)
    assert (best.scores[:, 0] >= -loss - 1e-4).all()


@pytest.mark.slow_emulated
@pytest.mark.parametrize("blank", [0, *slow(3)])
def test_timesteps_are_of_a_best_path(device: Device, blank: int) -> None:
    """Nothing is pruned: the path of the timesteps is as probable as any that spells the tokens."""
    for seed in range(40):
        x = random_log_probs(1, 6, 4, seed=seed, std=2.0)
        result = fastctc.beam_search(x.to(device.torch), beam_size=1024, nbest=1024, blank=blank)
        for k, (tokens, _) in enumerate(hypotheses(result)[:200]):
            starts = result.timesteps[0, k, : len(tokens)].tolist()
            through, peaks = best_path_through(x[0], tokens, starts, blank)
            assert through == pytest.approx(best_path_score(x[0], tokens, blank), abs=1e-10)
            confidences = result.confidences[0, k, : len(tokens)].tolist()
            assert confidences == pytest.approx([math.exp(peak) for peak in peaks], rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("from_logits", [False, True], ids=["log_probs", "logits"])
def test_exact_scores(device: Device, dtype: torch.dtype, from_logits: bool) -> None:
    x = random_log_probs(5, 25, 8, std=1.5, dtype=dtype).to(device.torch)
    lengths = [25, 24, 13, 1, 0]
    options = {"beam_size": 6, "nbest": 6, "from_logits": from_logits}
    beam = fastctc.beam_search(x, lengths, **options)
    result = fastctc.beam_search(x, lengths, exact_scores=True, **options)
    assert_well_formed(result)
    assert result.scores.dtype == dtype
    losses = exact_losses(x.log_softmax(2) if from_logits else x, result, lengths)
    found = result.scores > -INF
    torch.testing.assert_close(-losses[found], result.scores[found], rtol=1e-5, atol=1e-5)
    assert torch.equal(found, beam.scores > -INF)
    for n in range(5):
        assert dict(hypotheses(result, n)).keys() == dict(hypotheses(beam, n)).keys()
        for tokens, score in hypotheses(beam, n):
            assert dict(hypotheses(result, n))[tokens] >= score - 1e-5
    # What belongs to a hypothesis moves with it.
    assert not torch.equal(result.tokens, beam.tokens)
    for n in range(5):
        ranks = {tokens: k for k, (tokens, _) in enumerate(hypotheses(beam, n))}
        for k, (tokens, _) in enumerate(hypotheses(result, n)):
            assert torch.equal(result.timesteps[n, k], beam.timesteps[n, ranks[tokens]])
            assert torch.equal(result.confidences[n, k], beam.confidences[n, ranks[tokens]])


def test_exact_scores_of_missing_hypotheses_and_nan(device: Device) -> None:
    x = random_log_probs(3, 3, 2)
    x[1, 1, 0] = NAN
    x[2, 1] = -INF
    result = fastctc.beam_search(x.to(device.torch), nbest=8, exact_scores=True)
    assert_well_formed(result)
    assert result.scores[1].isnan().all()
    assert (result.scores[2] == -INF).all()
    assert dict(hypotheses(result, 0)) == pytest.approx(
        {labels: float(log_p) for labels, (log_p, _) in brute_force(x[0]).items()}
    )


def test_exact_scores_do_not_depend_on_the_beam(device: Device) -> None:
    """A sequence has the same probability in every beam."""
    x = random_log_probs(1, 40, 6, dtype=torch.float32).to(device.torch)
    seen: dict[tuple[int, ...], list[float]] = {}
    for beam_size in (2, 5, 20, 50):
        result = fastctc.beam_search(x, beam_size=beam_size, nbest=beam_size, exact_scores=True)
        for tokens, score in hypotheses(result):
            seen.setdefault(tokens, []).append(score)
    assert sum(len(scores) > 1 for scores in seen.values()) >= 10
    assert all(len(set(scores)) == 1 for scores in seen.values())


def test_larger_beams_find_better(device: Device) -> None:
    x = random_log_probs(16, 60, 10, std=1.5).to(device.torch)
    means = [
        float(fastctc.beam_search(x, beam_size=w, exact_scores=True).scores.mean()) for w in (1, 4, 16, 64)
    ]
    assert means == sorted(means)
    assert means[0] < means[-1]


def test_blank_skip_keeps_repeats_apart(device: Device) -> None:
    x = torch.tensor([[0.1, 0.9], [0.98, 0.02], [0.1, 0.9]], device=device.torch).log()
    result = fastctc.beam_search(x, blank_skip=0.95)
    assert result.to_list() == [[1, 1]]
    assert result.timesteps[0, :2].tolist() == [0, 2]
    assert result.scores.exp().tolist() == pytest.approx([0.9 * 0.98 * 0.9])


def test_infinite_cuts_are_none(device: Device) -> None:
    x = random_log_probs(2, 20, 6).to(device.torch)
    none = fastctc.beam_search(x, nbest=5)
    assert_close(none, fastctc.beam_search(x, nbest=5, beam_threshold=INF, token_threshold=INF))
    assert_close(none, fastctc.beam_search(x, nbest=5, beam_threshold=1e6, token_threshold=1e6))
    assert_close(none, fastctc.beam_search(x, nbest=5, blank_skip=1))


@pytest.mark.parametrize(
    ("frames", "samples", "classes"), [(0, 2, 3), (4, 0, 3), (0, 0, 3), (4, 2, 1), (1, 1, 1)]
)
@pytest.mark.parametrize("exact_scores", [False, True], ids=["", "exact_scores"])
def test_little_to_decode(
    device: Device, frames: int, samples: int, classes: int, exact_scores: bool
) -> None:
    x = torch.zeros(samples, frames, classes, device=device.torch).log_softmax(2)
    result = fastctc.beam_search(x, nbest=3, exact_scores=exact_scores)
    assert result.tokens.shape == result.timesteps.shape == result.confidences.shape == (samples, 3, frames)
    assert result.lengths.shape == result.scores.shape == (samples, 3)
    if frames == 0 or classes == 1:
        assert result.scores.tolist() == [[0, -INF, -INF]] * samples
        assert result.to_list() == [[[]]] * samples


def test_frames_without_any_class(device: Device) -> None:
    x = random_log_probs(3, 8, 4).to(device.torch)
    expected = fastctc.beam_search(x, nbest=4)
    x[1, 5] = -INF
    result = fastctc.beam_search(x, nbest=4)
    assert_well_formed(result)
    assert (result.scores[1] == -INF).all()
    assert result.to_list()[1] == []
    for one, other in zip(result, expected, strict=True):
        assert torch.equal(one[::2], other[::2])


@pytest.mark.parametrize("from_logits", [False, True], ids=["log_probs", "logits"])
@pytest.mark.parametrize("where", [0, 1, 4])
def test_nan_stays_in_its_sample(device: Device, from_logits: bool, where: int) -> None:
    x = random_log_probs(3, 8, 5, dtype=torch.float32).to(device.torch)
    expected = fastctc.beam_search(x, [8, 8, 5], nbest=4, from_logits=from_logits)
    x[1, 4, where] = NAN
    x[2, 5:] = NAN  # padding
    result = fastctc.beam_search(x, [8, 8, 5], nbest=4, from_logits=from_logits)
    assert_well_formed(result)
    assert result.scores[1].isnan().all()
    assert result.lengths[1].tolist() == [0, 0, 0, 0]
    for one, other in zip(result, expected, strict=True):
        assert torch.equal(one[::2], other[::2])


def test_fewer_hypotheses_than_asked_for(device: Device) -> None:
    result = fastctc.beam_search(random_log_probs(1, 1, 3).to(device.torch), beam_size=20, nbest=20)
    assert_well_formed(result)
    assert len(hypotheses(result)) == 3
    assert result.scores[0, 3:].tolist() == [-INF] * 17


@pytest.mark.parametrize(("classes", "beam_size"), [(129, 64), *slow((5000, 10), (33, 1024), (300, 150))])
def test_many_classes_and_prefixes(device: Device, classes: int, beam_size: int) -> None:
    x = random_log_probs(1, 5, classes, std=2.0, seed=classes)
    options = {"beam_size": beam_size, "nbest": min(beam_size, 50)}
    result = fastctc.beam_search(x.to(device.torch), **options)
    assert_well_formed(result)
    assert_close(result, beam_search_reference(x, **options))


def test_a_token_in_every_frame(device: Device) -> None:
    path = [1 + t % 2 for t in range(70)]
    x = (20 * torch.eye(3)[path]).log_softmax(1).to(device.torch)
    result = fastctc.beam_search(x, nbest=2)
    assert result.to_list()[0] == path
    assert result.timesteps[0].tolist() == list(range(70))
    assert result.confidences[0].min() > 0.99


@pytest.mark.large
def test_long_inputs(device: Device) -> None:
    x = speech_like(2, 20000, 30).to(device.torch)
    result = fastctc.beam_search(x, [20000, 15000], beam_size=20, nbest=20)
    assert_well_formed(result)
    decoder = fastctc.BeamSearchDecoder(2, beam_size=20, nbest=20, device=device.torch)
    for begin in range(0, 20000, 1000):
        decoder.push(x[:, begin : begin + 1000], [1000, 1000 if begin < 15000 else 0])
    for one, other in zip(decoder.result(), result, strict=True):
        assert torch.equal(one, other)


def test_input_that_requires_grad(device: Device) -> None:
    x = random_log_probs(2, 6, 5).to(device.torch).requires_grad_()
    assert not any(each.requires_grad for each in fastctc.beam_search(x, exact_scores=True))
