"""A sample's loss and gradient are the same to the bit whatever is around it, at the sizes where the kernels change
their schedule: vectors and warps of labels, segments of 64 frames, short sequences that meet in the middle."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from batches import Batch, from_log_probs_and_logits, random_batch
from conftest import Device
from tolerances import assert_same
from torch.nn import functional as F

NAN = float("nan")
# (classes, labels, frames of each sample)
SIZES = [
    (5, 3, [7, 1, 64, 65]),
    pytest.param((18, 12, [36, 30, 24, 13]), marks=pytest.mark.slow),
    pytest.param((33, 31, [256, 257, 63, 128]), marks=pytest.mark.slow),
    (40, 32, [70, 255, 64, 129]),
    (7, 64, [130, 300, 129, 200]),
]


@pytest.fixture(params=SIZES, ids=lambda size: f"C{size[0]}-S{size[1]}")
def batch(request: pytest.FixtureRequest, device: Device) -> Batch:
    num_classes, length, frames = request.param
    result = random_batch(max(frames), len(frames), num_classes, length, std=3.0).to(device)
    result.input_lengths = torch.tensor(frames)
    result.target_lengths = torch.tensor([min(length, f // 2) for f in frames])
    return result


def assert_bits(
    actual: tuple[torch.Tensor, torch.Tensor], expected: tuple[torch.Tensor, torch.Tensor]
) -> None:
    assert torch.equal(actual[0], expected[0])
    assert torch.equal(actual[1], expected[1])


@from_log_probs_and_logits
def test_padding_does_not_matter(batch: Batch, from_logits: bool) -> None:
    expected = batch.loss_and_gradient(from_logits=from_logits)
    num_frames = batch.x.shape[0]
    padding = batch.x.new_full((193, *batch.x.shape[1:]), NAN)
    labels = batch.targets.new_zeros((batch.targets.shape[0], 40))
    longer = Batch(
        torch.cat([batch.x.detach(), padding]).requires_grad_(),
        torch.cat([batch.targets, labels], 1),
        batch.input_lengths,
        batch.target_lengths,
    )
    loss, grad = longer.loss_and_gradient(from_logits=from_logits)
    assert_bits((loss, grad[:num_frames]), expected)
    assert (grad[num_frames:] == 0).all()


@from_log_probs_and_logits
def test_the_rest_of_the_batch_does_not_matter(batch: Batch, from_logits: bool) -> None:
    losses = batch.loss(reduction="none", from_logits=from_logits)
    for n in range(len(losses)):
        frames, length = int(batch.input_lengths[n]), int(batch.target_lengths[n])
        alone = Batch(
            batch.x.detach()[:frames, n : n + 1].clone().requires_grad_(),
            batch.targets[n : n + 1, :length].contiguous(),
            batch.input_lengths[n : n + 1],
            batch.target_lengths[n : n + 1],
        )
        grad = torch.autograd.grad(losses[n], batch.x, retain_graph=True)[0]
        expected = losses[n : n + 1].detach(), grad[:frames, n : n + 1]
        assert_bits(alone.loss_and_gradient(from_logits=from_logits), expected)


@from_log_probs_and_logits
def test_threads_and_order_do_not_matter(batch: Batch, from_logits: bool) -> None:
    loss, grad = batch.loss_and_gradient(from_logits=from_logits)
    order = torch.tensor([2, 0, 3, 1])
    there = order.to(batch.x.device)
    turned = Batch(
        batch.x.detach()[:, there].requires_grad_(),
        batch.targets[there],
        batch.input_lengths[order],
        batch.target_lengths[order],
    )
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2 if threads == 1 else 1)
        turned_loss = turned.loss(reduction="none", from_logits=from_logits)
        weights = (order + 1).to(turned_loss)
        turned_grad = torch.autograd.grad(turned_loss, turned.x, weights)[0]
    finally:
        torch.set_num_threads(threads)
    assert_bits((turned_loss.detach(), turned_grad), (loss[there], grad[:, there]))


@from_log_probs_and_logits
def test_a_loss_without_its_gradient_is_the_same(batch: Batch, from_logits: bool) -> None:
    expected = batch.loss(reduction="none", from_logits=from_logits)
    with torch.no_grad():
        assert torch.equal(batch.loss(reduction="none", from_logits=from_logits), expected)


# One batch of very different samples


@pytest.fixture
def varied(device: Device) -> Batch:
    """Return five samples of different lengths, with repeats; one of them is infeasible."""
    batch = random_batch(40, 5, 12, 17, std=4.0).to(device)
    batch.targets[1, :6] = 3
    batch.input_lengths = torch.tensor([40, 33, 21, 9, 1])
    batch.target_lengths = torch.tensor([17, 12, 5, 17, 0])
    return batch


@from_log_probs_and_logits
def test_same_on_every_run(varied: Batch, from_logits: bool) -> None:
    first = varied.loss_and_gradient(from_logits=from_logits)
    for _ in range(5):
        for again, once in zip(varied.loss_and_gradient(from_logits=from_logits), first, strict=True):
            assert_same(again, once)


@from_log_probs_and_logits
def test_same_alone_as_in_a_batch(varied: Batch, from_logits: bool) -> None:
    loss, _ = varied.loss_and_gradient(from_logits=from_logits)
    (grad,) = torch.autograd.grad(varied.loss(reduction="sum", from_logits=from_logits), varied.x)
    for n, (frames, length) in enumerate(zip(varied.input_lengths, varied.target_lengths, strict=True)):
        alone = Batch(
            varied.x.detach()[:frames, n : n + 1].clone().requires_grad_(),
            varied.targets[n : n + 1, :length],
            frames.reshape(1),
            length.reshape(1),
        )
        loss_alone, grad_alone = alone.loss_and_gradient(from_logits=from_logits)
        assert_same(loss_alone[0], loss[n])
        assert_same(grad_alone[:, 0], grad[:frames, n])


@from_log_probs_and_logits
def test_same_in_any_order_and_padding(varied: Batch, from_logits: bool) -> None:
    loss = varied.loss(reduction="none", from_logits=from_logits)
    (grad,) = torch.autograd.grad(loss.sum(), varied.x)
    order = torch.tensor([3, 0, 4, 1, 2])
    padded = Batch(
        F.pad(varied.x.detach()[:, order], (0, 0, 0, 0, 0, 23), value=NAN).requires_grad_(),
        F.pad(varied.targets[order], (0, 150), value=-1),
        varied.input_lengths[order],
        varied.target_lengths[order],
    )
    padded_loss = padded.loss(reduction="none", from_logits=from_logits)
    (padded_grad,) = torch.autograd.grad(padded_loss.sum(), padded.x)
    assert_same(padded_loss.detach(), loss.detach()[order])
    assert_same(padded_grad[:40], grad[:, order])
    assert (padded_grad[40:] == 0).all()


@pytest.fixture
def restored_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("restored_threads")
@from_log_probs_and_logits
def test_same_on_any_number_of_threads(varied: Batch, from_logits: bool) -> None:
    results = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        results.append(varied.loss_and_gradient(from_logits=from_logits))
    for result in results[1:]:
        for one, other in zip(result, results[0], strict=True):
            assert_same(one, other)


def test_deterministic_algorithms_may_be_demanded(varied: Batch) -> None:
    expected = varied.loss_and_gradient()
    torch.use_deterministic_algorithms(True)
    try:
        result = varied.loss_and_gradient()
    finally:
        torch.use_deterministic_algorithms(False)
    for one, other in zip(result, expected, strict=True):
        assert_same(one, other)
