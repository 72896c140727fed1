"""The reference itself: against brute force, against PyTorch, and against values worked out by hand."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from fastctc.reference import (
    beam_search_reference,
    brute_force,
    collapse,
    ctc_loss_reference,
    ctc_posteriors_reference,
    greedy_decode_reference,
)

INF = math.inf
NAN = math.nan


def random_log_probs(*shape: int, seed: int = 0, std: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (std * torch.randn(*shape, generator=generator, dtype=torch.float64)).log_softmax(-1)


def test_collapse() -> None:
    assert collapse([]) == ()
    assert collapse([0, 0]) == ()
    assert collapse([1, 1, 0, 1, 2, 2]) == (1, 1, 2)
    assert collapse([0, 1, 1, 2], blank=1) == (0, 2)


def test_brute_force_by_hand() -> None:
    """Two frames, one label: "1" is spelled by 11, 01 and 10."""
    p = torch.tensor([[0.4, 0.6], [0.3, 0.7]], dtype=torch.float64)
    paths = brute_force(p.log())
    assert paths.keys() == {(), (1,)}
    assert paths[()][0].exp() == pytest.approx(0.4 * 0.3)
    total = 0.6 * 0.7 + 0.4 * 0.7 + 0.6 * 0.3
    log_p, posteriors = paths[(1,)]
    assert log_p.exp() == pytest.approx(total)
    blank_first, blank_last = 0.4 * 0.7 / total, 0.6 * 0.3 / total
    expected = torch.tensor(
        [[blank_first, 1 - blank_first], [blank_last, 1 - blank_last]], dtype=torch.float64
    )
    torch.testing.assert_close(posteriors, expected)


def test_brute_force_is_a_distribution() -> None:
    paths = brute_force(random_log_probs(5, 4), blank=2)
    assert sum(float(log_p.exp()) for log_p, _ in paths.values()) == pytest.approx(1.0)
    for _, posteriors in paths.values():
        torch.testing.assert_close(posteriors.sum(1), torch.ones(5, dtype=torch.float64))


def test_brute_force_refuses_what_is_too_large() -> None:
    with pytest.raises(ValueError, match=r"10\^10 paths are too many"):
        brute_force(torch.zeros(10, 10))


@pytest.mark.parametrize(("num_frames", "num_classes", "blank"), [(1, 2, 0), (3, 3, 2), (4, 3, 1), (5, 3, 0)])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_brute_force_on_every_target(
    num_frames: int, num_classes: int, blank: int, masked: bool
) -> None:
    log_probs = random_log_probs(num_frames, num_classes, seed=num_frames)
    if masked:
        log_probs[num_frames // 2, 0] = -INF
    paths = brute_force(log_probs, blank)
    labels = [c for c in range(num_classes) if c != blank]
    for length in range(num_frames + 2):
        for labeling in itertools.product(labels, repeat=length):
            log_p, gamma = paths.get(labeling, (torch.tensor(-INF).double(), torch.zeros_like(log_probs)))
            target = torch.tensor(labeling, dtype=torch.int64)
            loss = ctc_loss_reference(log_probs, target, num_frames, length, blank, "sum")
            torch.testing.assert_close(loss, -log_p)
            posteriors = ctc_posteriors_reference(log_probs, target, num_frames, length, blank)
            torch.testing.assert_close(posteriors, gamma)


def test_equals_torch() -> None:
    logits = random_log_probs(12, 3, 5).requires_grad_()
    targets = torch.tensor([[1, 2, 2, 4], [3, 3, 0, 0], [1, 0, 0, 0]])
    lengths = [12, 7, 9], [4, 2, 0]
    for reduction in ("none", "sum", "mean"):
        ours = ctc_loss_reference(logits, targets, *lengths, reduction=reduction, from_logits=True)
        theirs = F.ctc_loss(logits.log_softmax(2), targets, *lengths, reduction=reduction)
        torch.testing.assert_close(ours, theirs)
        gradients = [torch.autograd.grad(loss.sum(), logits)[0] for loss in (ours, theirs)]
        torch.testing.assert_close(*gradients)


def test_concatenated_and_unbatched_targets() -> None:
    log_probs = random_log_probs(6, 2, 4)
    padded = ctc_loss_reference(
        log_probs, torch.tensor([[1, 2, 3], [2, -1, -1]]), [6, 5], [3, 1], reduction="none"
    )
    concatenated = ctc_loss_reference(log_probs, torch.tensor([1, 2, 3, 2]), [6, 5], [3, 1], reduction="none")
    alone = ctc_loss_reference(log_probs[:, 1], torch.tensor([2]), 5, 1, reduction="none")
    assert torch.equal(padded, concatenated)
    torch.testing.assert_close(alone, padded[1])


@pytest.mark.parametrize("from_logits", [False, True])
def test_gradients_to_second_order(from_logits: bool) -> None:
    x = random_log_probs(4, 2, 3).requires_grad_()

    def loss(x: torch.Tensor) -> torch.Tensor:
        return ctc_loss_reference(x, torch.tensor([[1, 1], [2, 0]]), [4, 3], [2, 1], from_logits=from_logits)

    torch.autograd.gradcheck(loss, x)
    torch.autograd.gradgradcheck(loss, x)


@pytest.mark.parametrize("from_logits", [False, True])
def test_special_values(from_logits: bool) -> None:
    """One sample each: NaN in padding, NaN in use, a masked class, too few frames, no frame and no target."""
    x = random_log_probs(4, 5, 3)
    x[3, 0] = NAN
    x[1, 1] = NAN
    x[:, 2, 2] = -INF
    x.requires_grad_()
    targets = torch.tensor([[1, 2], [1, 2], [1, 0], [1, 1], [0, 0]])
    lengths = [3, 4, 4, 2, 0], [2, 2, 1, 2, 0]
    loss = ctc_loss_reference(x, targets, *lengths, reduction="none", from_logits=from_logits)
    (gradient,) = torch.autograd.grad(loss.sum(), x)
    assert loss.isnan().tolist() == [False, True, False, False, False]
    assert loss.isfinite().tolist() == [True, False, True, False, True]
    assert loss[3] == INF
    assert loss[4] == 0
    assert gradient[:, 1].isnan().any()
    assert gradient[:, [0, 2, 3, 4]].isfinite().all()
    assert (gradient[3, 0] == 0).all()
    assert (gradient[:, 2, 2] == 0).all()
    assert (gradient[:, 3:] == 0).all()


def test_no_frames_and_no_samples() -> None:
    none = ctc_loss_reference(
        torch.zeros(0, 2, 3), torch.tensor([[1], [1]]), [0, 0], [0, 1], reduction="none"
    )
    assert none.tolist() == [0, INF]
    empty = ctc_loss_reference(torch.zeros(5, 0, 3), torch.zeros(0, 2), [], [], reduction="none")
    assert empty.shape == (0,)
    assert ctc_posteriors_reference(torch.zeros(0, 1, 3), torch.tensor([[1]]), [0], [0]).shape == (1, 0, 3)


def test_greedy_by_hand() -> None:
    p = torch.tensor([[0.1, 0.9, 0], [0.2, 0.8, 0], [0.5, 0.3, 0.2], [0.4, 0.6, 0], [0.1, 0.45, 0.45]]).log()
    result = greedy_decode_reference(p)
    assert result.tokens.tolist() == [1, 1, -1, -1, -1]
    assert result.timesteps.tolist() == [0, 3, -1, -1, -1]
    assert result.lengths == 2
    assert result.scores.exp() == pytest.approx(0.9 * 0.8 * 0.5 * 0.6 * 0.45)


def test_greedy_reads_only_the_frames_in_use() -> None:
    x = random_log_probs(2, 4, 3)
    x[0, 2:] = NAN
    x[1, 1, 0] = NAN
    result = greedy_decode_reference(x, [2, 4])
    assert result.scores.isnan().tolist() == [False, True]
    swapped = greedy_decode_reference(x.transpose(0, 1), [2, 4], time_major=True)
    for one, other in zip(result, swapped, strict=True):
        torch.testing.assert_close(one, other, equal_nan=True)


def test_greedy_confidences() -> None:
    p = torch.tensor([[0.1, 0.9, 0], [0.2, 0.8, 0], [0.5, 0.3, 0.2], [0.4, 0.6, 0], [0.1, 0.45, 0.45]])
    result = greedy_decode_reference(p.log())
    assert result.confidences.tolist() == pytest.approx([0.9, 0.6, 0, 0, 0])


@pytest.mark.parametrize(("frames", "classes", "blank"), [(1, 4, 0), (4, 3, 1), (5, 2, 1), (3, 5, 4)])
def test_beam_search_is_brute_force_with_room_for_all(frames: int, classes: int, blank: int) -> None:
    for seed in range(20):
        x = random_log_probs(frames, classes, seed=seed, std=2.0)
        listed = {labels: float(log_p) for labels, (log_p, _) in brute_force(x, blank).items()}
        result = beam_search_reference(x, beam_size=200, nbest=200, blank=blank)
        found = {
            tuple(tokens[:length]): score
            for tokens, length, score in zip(
                result.tokens.tolist(), result.lengths.tolist(), result.scores.tolist()
            )
            if score > -INF
        }
        assert found == pytest.approx(listed)
        assert list(found) == sorted(found, key=lambda labels: -listed[labels])


def test_beam_search_by_hand() -> None:
    """With one prefix in the beam "a" loses the path that went through "": a, blank is 0.24, not 0.64."""
    p = torch.tensor([[0.6, 0.4], [0.6, 0.4]])
    result = beam_search_reference(p.log(), beam_size=1)
    assert (result.lengths.tolist(), float(result.scores.exp())) == ([0], pytest.approx(0.36))
    result = beam_search_reference(p.log(), beam_size=2, nbest=2)
    assert result.lengths.tolist() == [1, 0]
    assert result.scores.exp().tolist() == pytest.approx([0.64, 0.36])
    assert result.timesteps.tolist() == [[0, -1], [-1, -1]]
    skipped = beam_search_reference(p.log(), beam_size=2, nbest=2, blank_skip=0.5)
    assert skipped.scores.exp().tolist() == pytest.approx([0.36, 0])


def test_beam_search_ties_by_rule() -> None:
    """Equal scores: what stays, then new prefixes by the rank they come from and the token."""
    p = torch.full((1, 4), 0.25)
    result = beam_search_reference(p.log(), beam_size=4, nbest=4, blank=1)
    assert result.tokens.flatten().tolist() == [-1, 0, 2, 3]
