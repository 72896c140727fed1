"""fastctc.ctc_loss of infinities, masked classes, NaN, and empty targets, inputs and batches."""

from __future__ import annotations

import math

import pytest
import torch
from batches import Batch, check_against_reference, from_log_probs_and_logits, random_batch
from conftest import Device
from tolerances import assert_same
from torch.nn import functional as F

import fastctc

INF = math.inf
NAN = math.nan


@from_log_probs_and_logits
@pytest.mark.parametrize("zero_infinity", [False, True])
def test_infeasible_sample_leaves_the_others_alone(
    device: Device, from_logits: bool, zero_infinity: bool
) -> None:
    batch = random_batch(6, 3, 5, 4).to(device)
    expected = batch.loss_and_gradient(from_logits=from_logits)
    batch.input_lengths = torch.tensor([6, 3, 6])
    loss, grad = batch.loss_and_gradient(from_logits=from_logits, zero_infinity=zero_infinity)
    assert loss[1] == (0 if zero_infinity else INF)
    assert (grad[:, 1] == 0).all()
    assert_same(loss[::2], expected[0][::2])
    assert_same(grad[:, ::2], expected[1][:, ::2])
    for reduction in ("sum", "mean"):
        total = batch.loss(from_logits=from_logits, zero_infinity=zero_infinity, reduction=reduction)
        assert total.isfinite() == zero_infinity
        grad = torch.autograd.grad(total, batch.x)[0]
        assert grad.isfinite().all()
        assert (grad[:, 1] == 0).all()


@from_log_probs_and_logits
def test_masked_classes_have_probability_zero(device: Device, from_logits: bool) -> None:
    """-inf in a class that is not in the target, in one frame of a label, in the blank, in all of a label."""
    batch = random_batch(7, 4, 5, 3)
    batch.targets = torch.tensor([[1, 2, 3]] * 4)
    with torch.no_grad():
        batch.x[:, 0, 4] = -INF
        batch.x[3, 1, 2] = -INF
        batch.x[:, 2, 0] = -INF
        batch.x[:, 3, 2] = -INF
    masked = batch.x == -INF
    batch = batch.to(device)
    check_against_reference(batch, from_logits=from_logits)
    loss, grad = batch.loss_and_gradient(from_logits=from_logits)
    assert loss.isfinite().tolist() == [True, True, True, False]
    assert grad.isfinite().all()
    assert (grad[masked].abs() <= 1e-6).all()
    assert (grad[:, 3] == 0).all()
    zeroed, zeroed_grad = batch.loss_and_gradient(from_logits=from_logits, zero_infinity=True)
    assert zeroed[3] == 0
    assert_same(zeroed_grad, grad)


def test_masked_states_do_not_outweigh_unlikely_ones(device: Device) -> None:
    """The likely first frame leads nowhere: the blank is masked after it. What remains is below 2^-190."""
    log_p = torch.tensor(
        [[0.0, -7.0], [-INF, -55.0], [-73.0, -INF], [-40.0, 0.0], [0.0, -11.0], [-26.0, 0.0]]
    )
    batch = Batch(log_p.unsqueeze(1), torch.tensor([[1, 1]]), torch.tensor([6]), torch.tensor([2])).to(device)
    assert batch.loss(reduction="sum").isfinite()
    check_against_reference(batch)


@from_log_probs_and_logits
@pytest.mark.parametrize("value", [-1e4, -1e9, -1e30, torch.finfo(torch.float32).min])
def test_large_negative_masks(device: Device, from_logits: bool, value: float) -> None:
    """The usual stand-ins for -inf, in a class that is not in the target."""
    batch = random_batch(9, 2, 6, 4)
    batch.targets.clamp_(max=4)
    with torch.no_grad():
        batch.x[:, :, 5] = value
        batch.x[4, :, 1] = value
    check_against_reference(batch.to(device), from_logits=from_logits)


def test_unlikely_targets_keep_their_digits(device: Device) -> None:
    """Every path has log-probabilities of -1e4: far below the smallest float, and x - max must not round."""
    batch = random_batch(9, 2, 6, 4)
    with torch.no_grad():
        batch.x[:, :, 1:] -= 1e4
    for from_logits in (False, True):
        check_against_reference(batch.to(device), from_logits=from_logits)


def test_confident_predictions(device: Device) -> None:
    path = torch.tensor([0, 1, 1, 0, 2, 0, 3, 3])
    logits = (100.0 * F.one_hot(path, 5)).unsqueeze(1).to(device.torch).requires_grad_()
    targets = torch.tensor([[1, 2, 3]], device=device.torch)
    loss = fastctc.ctc_loss(logits, targets, [8], [3], from_logits=True)
    assert 0 <= loss.item() < 1e-6
    assert float(torch.autograd.grad(loss, logits)[0].abs().max()) < 1e-6


@from_log_probs_and_logits
def test_nan_in_padding_is_never_read(device: Device, from_logits: bool) -> None:
    batch = random_batch(12, 3, 5, 4).to(device)
    batch.input_lengths = torch.tensor([12, 9, 0])
    batch.target_lengths = torch.tensor([4, 3, 0])
    expected = batch.loss_and_gradient(from_logits=from_logits)
    with torch.no_grad():
        batch.x[9:, 1] = NAN
        batch.x[:, 2] = NAN
    loss, grad = batch.loss_and_gradient(from_logits=from_logits)
    assert_same(loss, expected[0])
    assert_same(grad, expected[1])
    assert (grad[9:, 1] == 0).all()
    assert (grad[:, 2] == 0).all()


@from_log_probs_and_logits
@pytest.mark.parametrize("frame", [0, 5, 11])
def test_nan_in_use_stays_in_its_sample(device: Device, from_logits: bool, frame: int) -> None:
    batch = random_batch(12, 3, 5, 4).to(device)
    expected = batch.loss_and_gradient(from_logits=from_logits)
    with torch.no_grad():
        batch.x[frame, 1] = NAN
    for zero_infinity in (False, True):
        loss, grad = batch.loss_and_gradient(from_logits=from_logits, zero_infinity=zero_infinity)
        assert loss[1].isnan()
        assert grad[:, 1].isnan().any()
        assert_same(loss[::2], expected[0][::2])
        assert_same(grad[:, ::2], expected[1][:, ::2])


@from_log_probs_and_logits
def test_empty_targets(device: Device, from_logits: bool) -> None:
    x = random_batch(6, 3, 4, 0).x.detach().to(device.torch).requires_grad_()
    log_probs = x.log_softmax(2) if from_logits else x
    for targets in (torch.zeros(3, 0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)):
        loss = fastctc.ctc_loss(x, targets, [6, 4, 0], [0, 0, 0], 2, "none", from_logits=from_logits)
        expected = [
            -log_probs[:6, 0, 2].sum(),
            -log_probs[:4, 1, 2].sum(),
            torch.zeros((), device=device.torch),
        ]
        torch.testing.assert_close(loss, torch.stack(expected))
        gradients = [
            torch.autograd.grad(each, x, retain_graph=True)[0] for each in (loss.sum(), sum(expected))
        ]
        torch.testing.assert_close(*gradients)
    assert_same(fastctc.ctc_loss(x, targets, [0, 0, 0], [0, 0, 0]), torch.zeros((), device=device.torch))


@from_log_probs_and_logits
def test_no_frames(device: Device, from_logits: bool) -> None:
    x = torch.zeros(0, 2, 3, device=device.torch, requires_grad=True)
    targets = torch.tensor([[1], [1]], device=device.torch)
    loss = fastctc.ctc_loss(x, targets, [0, 0], [0, 1], reduction="none", from_logits=from_logits)
    assert loss.tolist() == [0, INF]
    zeroed = fastctc.ctc_loss(x, targets, [0, 0], [0, 1], zero_infinity=True, from_logits=from_logits)
    assert zeroed == 0
    assert torch.autograd.grad(zeroed, x)[0].shape == (0, 2, 3)


@from_log_probs_and_logits
def test_no_samples(device: Device, from_logits: bool) -> None:
    x = torch.zeros(5, 0, 3, device=device.torch, requires_grad=True)
    for targets in (torch.zeros(0, 4, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)):
        lengths = torch.zeros(0, dtype=torch.int64)
        loss = fastctc.ctc_loss(x, targets, lengths, lengths, reduction="none", from_logits=from_logits)
        assert loss.shape == (0,)
        assert torch.autograd.grad(loss.sum(), x)[0].shape == (5, 0, 3)
        for reduction in ("sum", "mean"):
            assert fastctc.ctc_loss(x, targets, [], [], reduction=reduction, from_logits=from_logits) == 0
