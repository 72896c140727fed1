"""Second derivatives of fastctc.ctc_loss, against finite differences, brute force and the reference."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from conftest import Device, slow
from tolerances import assert_gradient_close, assert_same
from torch import Tensor

import fastctc
from fastctc.reference import collapse, ctc_loss_reference

INF = math.inf
NAN = math.nan
from_log_probs_and_logits = pytest.mark.parametrize("from_logits", [False, True], ids=["log_probs", "logits"])

Loss = Callable[[Tensor], Tensor]


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def leaf(x: Tensor, device: Device) -> Tensor:
    return x.detach().clone().to(device.torch).requires_grad_()


@dataclass
class Batch:
    """Arguments of ctc_loss, on the CPU. `x` is logits, or log-probabilities that nothing normalizes."""

    x: Tensor
    targets: Tensor
    input_lengths: list[int]
    target_lengths: list[int]
    blank: int = 0
    from_logits: bool = False

    def loss(self, x: Tensor, reduction: str = "none") -> Tensor:
        arguments = self.targets.to(x.device), self.input_lengths, self.target_lengths
        options = {"zero_infinity": True, "from_logits": self.from_logits}
        return fastctc.ctc_loss(x, *arguments, self.blank, reduction, **options)

    def reference(self, x: Tensor, reduction: str = "none") -> Tensor:
        arguments = self.targets, self.input_lengths, self.target_lengths
        options = {"zero_infinity": True, "from_logits": self.from_logits}
        return ctc_loss_reference(x, *arguments, self.blank, reduction, **options)


BATCHES = {
    "repeated labels": Batch(randn(6, 2, 4), torch.tensor([[1, 1, 2], [3, 3, 3]]), [6, 6], [3, 3]),
    "blank 2": Batch(randn(5, 2, 4), torch.tensor([[0, 1, 0], [3, 3, 1]]), [5, 5], [3, 3], blank=2),
    "lengths": Batch(randn(6, 3, 3), torch.tensor([[1, 2, 1], [2, 0, 0], [1, 2, 0]]), [6, 3, 4], [3, 1, 2]),
    "concatenated": Batch(randn(5, 2, 3), torch.tensor([1, 2, 2]), [5, 4], [2, 1]),
    "empty targets": Batch(randn(4, 3, 3), torch.tensor([[1, 2], [1, 1], [1, 2]]), [4, 3, 0], [0, 1, 0]),
    "infeasible": Batch(
        randn(4, 3, 3), torch.tensor([[1, 1, 1], [1, 2, 0], [1, 2, 1]]), [4, 4, 2], [3, 2, 3]
    ),
}


def masked_batch() -> Batch:
    """A label, a blank and a class that is no label at probability 0; the last sample has no other path."""
    batch = Batch(randn(5, 3, 4), torch.tensor([[1, 2], [2, 2], [1, 2]]), [5, 5, 5], [2, 2, 2])
    batch.x[1, 0, 1] = batch.x[2, 0, 0] = batch.x[3, 0, 3] = -INF
    batch.x[0, 1, 2] = batch.x[4, 1, 0] = -INF
    batch.x[:, 2, 1] = -INF
    return batch


BATCHES["masked"] = masked_batch()


def derivatives(loss: Loss, x: Tensor, weights: Tensor, direction: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of sum(weights * loss), and the derivatives of its product with `direction` by x and weights."""
    x, weights = x.detach().requires_grad_(), weights.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(x), x, weights, create_graph=True)
    by_x, by_weights = torch.autograd.grad(gradient, (x, weights), direction)
    return gradient.detach(), by_x, by_weights


def check_against_reference(batch: Batch, device: Device, dtype: torch.dtype, scale: float = 0.0) -> None:
    x = batch.x.to(dtype)
    direction, weights = randn(*x.shape, seed=1, dtype=dtype), randn(x.shape[1], seed=2, dtype=dtype)
    scalar = torch.float64 if dtype == torch.float64 else torch.float32
    arguments = x.to(device.torch), weights.to(device.torch, scalar), direction.to(device.torch)
    actual = derivatives(batch.loss, *arguments)
    expected = derivatives(batch.reference, x.double(), weights.double(), direction.double())
    for one, other in zip(actual, expected, strict=True):
        assert_gradient_close(one, other, dtype, scale)


@pytest.mark.slow_emulated
@from_log_probs_and_logits
@pytest.mark.parametrize("name", BATCHES)
def test_finite_differences(device: Device, name: str, from_logits: bool) -> None:
    batch = replace(BATCHES[name], from_logits=from_logits)
    x = leaf(batch.x, device)
    torch.autograd.gradcheck(batch.loss, x)
    torch.autograd.gradgradcheck(batch.loss, x)


@from_log_probs_and_logits
@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_equals_the_reference(device: Device, name: str, from_logits: bool, dtype: torch.dtype) -> None:
    check_against_reference(replace(BATCHES[name], from_logits=from_logits), device, dtype)


@from_log_probs_and_logits
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(
    ("num_frames", "length"),
    [(70, 9), *slow((40, 20)), pytest.param(300, 100, marks=[pytest.mark.large, pytest.mark.slow])],
)
def test_equals_the_reference_on_longer_inputs(
    device: Device, num_frames: int, length: int, dtype: torch.dtype, from_logits: bool
) -> None:
    targets = torch.randint(1, 8, (2, length), generator=torch.Generator().manual_seed(0))
    lengths = [num_frames, num_frames - 5], [length, length - 2]
    batch = Batch(2 * randn(num_frames, 2, 8), targets, *lengths, from_logits=from_logits)
    check_against_reference(batch, device, dtype)


def brute_force_loss(x: Tensor, target: tuple[int, ...], blank: int) -> Tensor:
    """-ln P of (T, C) log-probabilities by enumeration of all paths."""
    num_frames, num_classes = x.shape
    paths = itertools.product(range(num_classes), repeat=num_frames)
    mine = torch.tensor([path for path in paths if collapse(path, blank) == target])
    return -x[torch.arange(num_frames), mine].sum(1).logsumexp(0)


@pytest.mark.slow_emulated
@from_log_probs_and_logits
@pytest.mark.parametrize(("target", "blank"), [((), 0), ((1,), 0), ((1, 1), 0), ((2, 0), 1)])
def test_hessian_equals_brute_force(
    device: Device, target: tuple[int, ...], blank: int, from_logits: bool
) -> None:
    def enumerated(x: Tensor) -> Tensor:
        return brute_force_loss(x.log_softmax(1) if from_logits else x, target, blank)

    def ours(x: Tensor) -> Tensor:
        targets = torch.tensor(target, dtype=torch.int64, device=device.torch)
        return fastctc.ctc_loss(x, targets, 4, len(target), blank, "sum", from_logits=from_logits)

    x = randn(4, 3)
    hessian = torch.autograd.functional.hessian(ours, x.to(device.torch)).reshape(12, 12)
    expected = torch.func.hessian(enumerated)(x).reshape(12, 12)
    assert_gradient_close(hessian, expected, torch.float64)
    assert_gradient_close(hessian, hessian.T, torch.float64)


@pytest.mark.slow_emulated
@pytest.mark.parametrize("star", [4, 2], ids=["star beyond the classes", "star in place of a class"])
@pytest.mark.parametrize(("biased", "delay_penalty"), [(False, 0.0), (True, 0.3)])
@pytest.mark.parametrize("blank_is_masked", [*slow(False), True])
@from_log_probs_and_logits
def test_options_of_the_op(
    device: Device, star: int, biased: bool, delay_penalty: float, blank_is_masked: bool, from_logits: bool
) -> None:
    targets = torch.tensor([[1, star, 3], [star, star, 1], [3, 1, 0]], device=device.torch)
    lengths = [torch.tensor(each, device=device.torch) for each in ([5, 4, 5], [3, 3, 2])]
    bias = randn(4, seed=3).to(device.torch) if biased else None
    x = randn(5, 3, 4)
    if blank_is_masked:
        x[3, :, 0] = -INF

    def loss(x: Tensor) -> Tensor:
        options = bias, 3, 0, star, delay_penalty, from_logits, True
        losses: Tensor = torch.ops.fastctc.ctc_loss(x, targets, *lengths, *options)[0]
        return losses

    x = leaf(x, device)
    assert loss(x).isfinite().all()
    torch.autograd.gradcheck(loss, x)
    torch.autograd.gradgradcheck(loss, x)


@from_log_probs_and_logits
def test_gradient_penalty(device: Device, from_logits: bool) -> None:
    """Training with the squared norm of the gradient in the loss."""
    batch = replace(BATCHES["lengths"], from_logits=from_logits)

    def penalized(loss: Callable[[Tensor, str], Tensor], x: Tensor) -> Tensor:
        value = loss(x, "mean")
        (gradient,) = torch.autograd.grad(value, x, create_graph=True)
        return value + gradient.square().sum()

    x = leaf(batch.x, device)
    penalized(batch.loss, x).backward()
    expected = batch.x.clone().requires_grad_()
    penalized(batch.reference, expected).backward()
    assert x.grad is not None and expected.grad is not None
    assert_gradient_close(x.grad, expected.grad, torch.float64)


def test_a_retained_graph_gives_the_same_bits(device: Device) -> None:
    batch = replace(BATCHES["repeated labels"], from_logits=True)
    x = leaf(batch.x.float(), device)
    direction = randn(*x.shape, seed=1, dtype=torch.float32).to(device.torch)
    loss = batch.loss(x, "sum")
    results = []
    for _ in range(2):
        (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
        results += [torch.autograd.grad(gradient, x, direction, retain_graph=True)[0] for _ in range(2)]
    for each in results[1:]:
        assert_same(each, results[0])


def test_a_sample_is_independent_of_its_batch(device: Device) -> None:
    batch = replace(BATCHES["lengths"], from_logits=True)
    x, direction = (each.float().to(device.torch) for each in (batch.x, randn(*batch.x.shape, seed=1)))
    ones = torch.ones(x.shape[1], device=device.torch)
    together = derivatives(batch.loss, x, ones, direction)[1]
    for n in range(x.shape[1]):
        lengths = [batch.input_lengths[n]], [batch.target_lengths[n]]
        one = Batch(batch.x[:, n : n + 1], batch.targets[n : n + 1], *lengths, from_logits=True)
        frame_last = [
            each[:, n : n + 1].permute(1, 2, 0).contiguous().permute(2, 0, 1) for each in (x, direction)
        ]
        alone = derivatives(one.loss, frame_last[0], ones[:1], frame_last[1])[1]
        assert_gradient_close(alone, together[:, n : n + 1], torch.float32, 1.0)


@from_log_probs_and_logits
def test_special_values(device: Device, from_logits: bool) -> None:
    """One sample each: NaN in padding, NaN in use twice, too short for its target."""
    x = randn(4, 4, 3)
    x[3, 0] = NAN
    x[1, 1:3, 0] = NAN
    x[0, 3] = NAN
    targets = torch.tensor([[1, 2, 1], [1, 2, 1], [0, 0, 0], [1, 2, 1]])
    batch = Batch(x, targets, [3, 4, 4, 2], [2, 2, 0, 3], from_logits=from_logits)
    direction = randn(*x.shape, seed=1)
    direction[3, 0] = NAN
    arguments = x, torch.full((4,), 2.0, dtype=torch.float64), direction
    gradient, by_x, by_weights = (
        each.cpu() for each in derivatives(batch.loss, *(each.to(device.torch) for each in arguments))
    )
    assert by_x[:3, 0].isfinite().all() and (by_x[:3, 0] != 0).any()
    assert (by_x[3, 0] == 0).all()
    assert by_x[:, 1:3].isnan().all() and gradient[:, 1:3].isnan().all()
    assert (by_x[:, 3] == 0).all()
    assert by_weights.isnan().tolist() == [False, True, True, False]
    assert by_weights[3] == 0


@pytest.mark.parametrize("shape", [(0, 2, 3), (4, 0, 3)])
@from_log_probs_and_logits
def test_nothing(device: Device, shape: tuple[int, int, int], from_logits: bool) -> None:
    num_frames, num_samples, _ = shape
    targets = torch.ones(num_samples, 1, dtype=torch.int64)
    batch = Batch(
        randn(*shape), targets, [num_frames] * num_samples, [1] * num_samples, from_logits=from_logits
    )
    arguments = batch.x, torch.ones(num_samples, dtype=torch.float64), batch.x
    for each in derivatives(batch.loss, *(each.to(device.torch) for each in arguments)):
        assert (each == 0).all()


def test_no_third_derivative(device: Device) -> None:
    batch = BATCHES["lengths"]
    x = leaf(batch.x, device)
    (first,) = torch.autograd.grad(batch.loss(x, "sum"), x, create_graph=True)
    (second,) = torch.autograd.grad(first, x, torch.ones_like(x), create_graph=True)
    with pytest.raises(NotImplementedError, match=r"ctc_loss has no third derivative"):
        second.sum().backward()


def test_tangent_of_the_wrong_shape_or_type(device: Device) -> None:
    targets, *lengths = (torch.tensor(v, device=device.torch) for v in ([[1, 2]], [4], [2]))
    x = randn(4, 1, 3).to(device.torch)
    for tangent in (x[:3], x.float()):
        with pytest.raises(
            ValueError, match=r"tangent must have the shape of input, and the type of the loss"
        ):
            torch.ops.fastctc.ctc_loss_tangent(x, tangent, targets, *lengths, None, 2, 0, -1, 0.0, False)
