"""fastctc.ctc_loss: values and gradients, against brute force, the reference and closed forms."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import pytest
import torch
from batches import (
    LAYOUTS,
    Batch,
    arguments,
    check_against_reference,
    from_log_probs_and_logits,
    gradient,
    laid_out,
    random_batch,
)
from conftest import Device, slow
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import (
    LONG_GRADIENT_ERROR,
    assert_gradient_close,
    assert_loss_close,
    assert_same,
)
from torch import Tensor
from torch.nn import functional as F

import fastctc
from fastctc.reference import brute_force

pytestmark = pytest.mark.ptx

INF = math.inf

# Values: brute force, random cases, closed forms


@pytest.mark.parametrize("shape", [(1, 2), (2, 3), (3, 4), (4, 3), (5, 3)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_equals_brute_force_on_every_target(
    device: Device, shape: tuple[int, int], dtype: torch.dtype
) -> None:
    """All targets of up to T+1 labels as one batch; the frames are one (T, 1, C) tensor, expanded."""
    num_frames, num_classes = shape
    generator = torch.Generator().manual_seed(num_frames)
    frames = torch.randn(num_frames, 1, num_classes, generator=generator, dtype=dtype).log_softmax(2)
    for blank in (0, num_classes - 1):
        labels = [c for c in range(num_classes) if c != blank]
        targets = [t for length in range(num_frames + 2) for t in itertools.product(labels, repeat=length)]
        paths = brute_force(frames[:, 0], blank)
        impossible = torch.tensor(INF).double(), torch.zeros(num_frames, num_classes).double()
        expected = [paths.get(target, impossible) for target in targets]

        lengths = torch.tensor([len(target) for target in targets])
        concatenated = torch.tensor([label for target in targets for label in target])
        x = frames.to(device.torch).expand(-1, len(targets), -1).requires_grad_()
        all_frames = torch.full_like(lengths, num_frames)
        loss = fastctc.ctc_loss(x, concatenated.to(device.torch), all_frames, lengths, blank, "none")
        (grad,) = torch.autograd.grad(loss.sum(), x)
        assert_loss_close(loss, torch.stack([log_p.abs() for log_p, _ in expected]), dtype)
        assert_gradient_close(grad, -torch.stack([gamma for _, gamma in expected], dim=1), dtype)


@dataclass
class Case:
    """The shape of a random batch; the values follow from the seed."""

    num_frames: int
    num_samples: int
    num_classes: int
    length: int
    blank: int
    kinds: int  # number of different labels: few of them make repeats
    std: float
    normalized: bool
    masked: bool
    dtype: torch.dtype
    layout: str
    concatenated: bool
    index_dtype: torch.dtype
    seed: int

    def build(self, device: Device, from_logits: bool) -> Batch:
        generator = torch.Generator().manual_seed(self.seed)
        shape = (self.num_frames, self.num_samples, self.num_classes)
        values = self.std * torch.randn(shape, generator=generator)
        if self.normalized and not from_logits:
            values = values.log_softmax(2)
        if self.masked:
            mask = torch.rand(shape, generator=generator) < 0.1
            mask[:, :, self.blank] &= not from_logits  # all classes masked at once has no softmax
            values = values.masked_fill(mask, -INF)

        labels = [c for c in range(self.num_classes) if c != self.blank][: self.kinds]
        chosen = torch.randint(len(labels), (self.num_samples, self.length), generator=generator)
        targets = torch.tensor(labels, dtype=self.index_dtype)[chosen]
        frames = self.lengths_up_to(self.num_frames, generator)
        lengths = self.lengths_up_to(self.length, generator)
        inside = torch.arange(self.length) < lengths[:, None]
        targets = targets[inside] if self.concatenated else targets.where(inside, -100)
        x = laid_out(values.to(self.dtype).to(device.torch), self.layout).requires_grad_()
        return Batch(x, targets.to(device.torch), frames, lengths)

    def lengths_up_to(self, largest: int, generator: torch.Generator) -> Tensor:
        """Return lengths, about half of them full."""
        lengths = torch.randint(-largest, largest + 1, (self.num_samples,), generator=generator)
        return torch.where(lengths < 0, largest, lengths).to(self.index_dtype)


cases = st.builds(
    Case,
    num_frames=st.integers(0, 24),
    num_samples=st.integers(1, 4),
    num_classes=st.sampled_from([2, 3, 5, 31, 32, 33, 70]),
    length=st.integers(0, 12),
    blank=st.sampled_from([0, 1, -1]),  # -1: the last class
    kinds=st.integers(1, 8),
    std=st.sampled_from([0.0, 1.0, 1.0, 5.0, 30.0]),
    normalized=st.booleans(),
    masked=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float32, torch.float64, torch.float16, torch.bfloat16]),
    layout=st.sampled_from(LAYOUTS),
    concatenated=st.booleans(),
    index_dtype=st.sampled_from([torch.int32, torch.int64]),
    seed=st.integers(0, 2**31),
)


@pytest.mark.slow_emulated
@pytest.mark.parametrize("from_logits", [False, *slow(True)], ids=["log_probs", "logits"])
@settings(max_examples=250)
@given(case=cases)
def test_random_cases(device: Device, from_logits: bool, case: Case) -> None:
    case.blank %= case.num_classes
    check_against_reference(case.build(device, from_logits), blank=case.blank, from_logits=from_logits)


@from_log_probs_and_logits
@pytest.mark.parametrize("length", [1, 16, 33, 65, *slow(15, 17, 31, 32, 63, 64, 127, 128, 129, 200)])
def test_target_lengths_around_the_lanes(device: Device, length: int, from_logits: bool) -> None:
    batch = random_batch(2 * length + 9, 3, 40, length, seed=length, std=3.0).to(device)
    batch.input_lengths[1] = length + length // 3 + 3
    batch.target_lengths[2] = length - 1
    check_against_reference(batch, from_logits=from_logits)


@from_log_probs_and_logits
@pytest.mark.parametrize("num_classes", [2, 7, 8, 9, 64, 127, 1025])
def test_class_counts_around_the_lanes(device: Device, num_classes: int, from_logits: bool) -> None:
    check_against_reference(random_batch(11, 2, num_classes, 5).to(device), from_logits=from_logits)


@pytest.mark.large
@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_frames", "length", "std"), [(1000, 200, 1.0), (4000, 800, 10.0), (16000, 1000, 10.0)]
)
def test_long_inputs_stay_exact(device: Device, num_frames: int, length: int, std: float) -> None:
    batch = random_batch(num_frames, 1, 50, length, std=std).to(device)
    expected_x = batch.x.detach().cpu().double().requires_grad_()
    arguments = batch.targets.cpu(), batch.input_lengths, batch.target_lengths
    expected = F.ctc_loss(expected_x.log_softmax(2), *arguments, reduction="none")
    loss, grad = batch.loss_and_gradient(from_logits=True)
    assert_loss_close(loss, expected, torch.float32)
    assert float((grad.cpu() - gradient(expected, expected_x)).abs().max()) <= LONG_GRADIENT_ERROR


@pytest.mark.parametrize(
    ("target", "num_frames"), [([1, 2, 3], 7), ([1, 1], 4), ([2, 2, 2, 1], 12), ([1], 1), ([], 5)], ids=str
)
def test_uniform_distribution_counts_the_paths(device: Device, target: list[int], num_frames: int) -> None:
    """T frames spell S labels with r adjacent repeats in (T + S - r) choose 2S ways."""
    num_classes = 5
    repeats = sum(a == b for a, b in itertools.pairwise(target))
    ways = math.comb(num_frames + len(target) - repeats, 2 * len(target))
    for from_logits in (False, True):
        value = 0.0 if from_logits else -math.log(num_classes)
        x = torch.full((num_frames, 1, num_classes), value, device=device.torch)
        targets = torch.tensor([target], dtype=torch.int64, device=device.torch)
        loss = fastctc.ctc_loss(
            x, targets, [num_frames], [len(target)], reduction="sum", from_logits=from_logits
        )
        assert loss.item() == pytest.approx(num_frames * math.log(num_classes) - math.log(ways), rel=1e-6)


@pytest.mark.parametrize(
    ("target", "path"), [([3, 1, 2], [3, 1, 2]), ([1, 1, 2, 2], [1, 0, 1, 2, 0, 2])], ids=str
)
def test_one_path_when_there_are_just_enough_frames(
    device: Device, target: list[int], path: list[int]
) -> None:
    log_probs = random_batch(len(path), 1, 4, 0).x.detach().log_softmax(2)
    x = log_probs.to(device.torch).requires_grad_()
    targets = torch.tensor([target], device=device.torch)
    loss = fastctc.ctc_loss(x, targets, [len(path)], [len(target)], reduction="sum")
    (grad,) = torch.autograd.grad(loss, x)
    assert loss.item() == pytest.approx(-log_probs[range(len(path)), 0, path].sum().item(), rel=1e-6)
    expected = -F.one_hot(torch.tensor(path), 4).unsqueeze(1)
    torch.testing.assert_close(grad.cpu(), expected.float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("spare", [0, 1])
@pytest.mark.parametrize("length", [16, 65, *slow(63, 64, 80, 128, 200)])
def test_targets_as_long_as_their_input(device: Device, length: int, spare: int) -> None:
    """All states but those on a diagonal are left out, the blocks and tiles of frames among them."""
    for dtype in (torch.float32, torch.float64):
        batch = random_batch(length + spare, 1, length + 1, length)
        batch.targets = torch.arange(1, length + 1).unsqueeze(0)
        batch.x = batch.x.detach().to(dtype).log_softmax(2).requires_grad_()
        check_against_reference(batch.to(device))


@from_log_probs_and_logits
def test_one_frame_too_few_is_infinite(device: Device, from_logits: bool) -> None:
    x = torch.zeros(5, 1, 4, device=device.torch, requires_grad=True)
    targets = torch.tensor([[1, 1, 2, 2]], device=device.torch)
    loss = fastctc.ctc_loss(x, targets, [5], [4], reduction="sum", from_logits=from_logits)
    assert loss == INF
    assert (torch.autograd.grad(loss, x)[0] == 0).all()


# Gradients


@from_log_probs_and_logits
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_gradcheck(device: Device, from_logits: bool, reduction: str) -> None:
    x = random_batch(5, 3, 4, 0).x.detach().double().to(device.torch).requires_grad_()
    targets = torch.tensor([[1, 1, 2], [3, 0, 0], [0, 0, 0]], device=device.torch)

    def loss(x: Tensor) -> Tensor:
        return fastctc.ctc_loss(
            x, targets, [5, 4, 2], [3, 1, 0], reduction=reduction, from_logits=from_logits
        )

    torch.autograd.gradcheck(loss, x)


def test_gradient_is_of_log_probs_as_given(device: Device) -> None:
    """Minus the posteriors, which sum to 1 in each frame, even where exp(log_probs) does not."""
    batch = random_batch(9, 2, 5, 3).to(device)
    grad = torch.autograd.grad(batch.loss(reduction="sum"), batch.x)[0]
    torch.testing.assert_close(grad.sum(2), -torch.ones(9, 2, device=device.torch))
    shifted = Batch((batch.x.detach() + 2.5).requires_grad_(), *arguments(batch))
    torch.testing.assert_close(torch.autograd.grad(shifted.loss(reduction="sum"), shifted.x)[0], grad)
    torch.testing.assert_close(shifted.loss(reduction="none"), batch.loss(reduction="none") - 9 * 2.5)


def test_log_softmax_may_be_fused(device: Device) -> None:
    batch = random_batch(20, 3, 7, 6).to(device)
    fused = batch.loss(from_logits=True)
    separate = fastctc.ctc_loss(batch.x.log_softmax(2), *arguments(batch))
    assert_loss_close(fused, separate, torch.float32)
    gradients = [torch.autograd.grad(loss, batch.x)[0] for loss in (fused, separate)]
    assert_gradient_close(*gradients, torch.float32)


@from_log_probs_and_logits
def test_graph_may_be_differentiated_twice(device: Device, from_logits: bool) -> None:
    batch = random_batch(12, 2, 5, 4).to(device)
    loss = batch.loss(reduction="none", from_logits=from_logits)
    weights = torch.tensor([1.0, -2.0], device=device.torch)
    first, second = (torch.autograd.grad(loss, batch.x, weights, retain_graph=True)[0] for _ in range(2))
    assert_same(first, second)
    expanded = torch.autograd.grad(loss, batch.x, torch.ones(1, device=device.torch).expand(2))[0]
    torch.testing.assert_close(expanded * weights[:, None], first)


def test_arguments_are_left_alone(device: Device) -> None:
    batch = random_batch(12, 2, 5, 4).to(device)
    before = [each.detach().clone() for each in (batch.x, *arguments(batch))]
    batch.loss_and_gradient(from_logits=True)
    for each, copy in zip((batch.x, *arguments(batch)), before, strict=True):
        assert_same(each.detach(), copy)


def test_without_grad(device: Device) -> None:
    batch = random_batch(12, 2, 5, 4).to(device)
    for without in (torch.no_grad, torch.inference_mode):
        with without():
            loss = batch.loss(reduction="none")
        assert not loss.requires_grad
        assert_same(loss, batch.loss(reduction="none").detach())


def test_changing_what_the_gradient_needs_is_found(device: Device) -> None:
    x = random_batch(12, 2, 5, 4).to(device).x * 1
    loss = fastctc.ctc_loss(x, torch.tensor([[1], [2]]), [12, 12], [1, 1], from_logits=True)
    with torch.no_grad():
        x += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
