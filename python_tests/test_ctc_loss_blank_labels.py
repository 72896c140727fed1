"""Targets whose labels equal the blank: PyTorch's values, gradients and second derivatives, on all devices.

Such a label is a state of the lattice like any other, with the blank's probability. So several paths of states have
the same classes, and their probabilities can add up to more than 1.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from batches import Batch, check_against_reference, from_log_probs_and_logits
from conftest import Device, slow
from tolerances import assert_gradient_close, assert_loss_close
from torch import Tensor
from torch.nn import functional as F

import fastctc
from fastctc.reference import ctc_loss_reference, ctc_posteriors_reference

# For the blank 2 of 5 classes: the target of each sample of a batch, all of the same input.
TARGETS = {
    "first": [2, 1, 3],
    "last": [1, 3, 2],
    "inside": [1, 2, 1],
    "two in a row": [1, 2, 2, 3],
    "between equal labels": [3, 2, 3, 2, 3],
    "all": [2, 2, 2],
    "one": [2],
    "beside padding": [2, 4],
}
OPTIONS: dict[str, dict[str, Any]] = {
    "star": {"star": 5},
    "star in place of a class": {"star": 3},
    "delay": {"delay_penalty": 0.3},
    "penalty": {"blank_penalty": 0.7},
    "priors": {"label_priors": torch.linspace(-2.0, -0.5, 5)},
    "all": {
        "star": 5,
        "delay_penalty": -0.2,
        "blank_penalty": 0.7,
        "label_priors": torch.linspace(-2.0, -0.5, 5),
    },
}


def batch_of(targets: list[list[int]], num_frames: int = 9, *, dtype: torch.dtype = torch.float32) -> Batch:
    """Return samples of `targets` with the blank 2, of different lengths, padded with the blank."""
    longest = max(len(each) for each in targets)
    padded = torch.tensor([each + [2] * (longest - len(each)) for each in targets])
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(num_frames, len(targets), 5, generator=generator, dtype=torch.float64).to(dtype)
    frames = torch.tensor([num_frames - n % 3 for n in range(len(targets))])
    lengths = torch.tensor([len(each) for each in targets])
    return Batch(x.requires_grad_(), padded, frames, lengths)


def concatenated(batch: Batch) -> Batch:
    inside = torch.arange(batch.targets.shape[1]) < batch.target_lengths[:, None]
    return Batch(batch.x, batch.targets[inside], batch.input_lengths, batch.target_lengths)


def state_paths(num_frames: int, target: list[int]) -> list[list[int]]:
    """Return all paths of states: positions in the extended target, which is blank, label, blank, ..., blank."""
    last = 2 * len(target)
    paths = []
    for path in itertools.product(range(last + 1), repeat=num_frames):
        steps = itertools.pairwise((0, *path))
        if path[-1] >= last - 1 and all(
            0 <= b - a <= 2 and (b - a < 2 or skips(a, b, target)) for a, b in steps
        ):
            paths.append(list(path))
    return paths


def skips(a: int, b: int, target: list[int]) -> bool:
    """Return True if a path may go from state a to state b = a + 2, past the blank between two different labels."""
    if b == 1:
        return True
    return b % 2 == 1 and (a < 1 or target[a // 2] != target[b // 2])


@pytest.mark.parametrize("target", [[2], [2, 2], [2, 1], [1, 2], [1, 2, 1]], ids=str)
def test_the_reference_equals_brute_force(target: list[int]) -> None:
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).log_softmax(1)
    classes = [2 if i % 2 == 0 else target[i // 2] for i in range(2 * len(target) + 1)]
    paths = [[classes[state] for state in path] for path in state_paths(4, target)]
    expected = -torch.stack([x[range(4), path].sum() for path in paths]).logsumexp(0)
    loss = ctc_loss_reference(x, torch.tensor(target), 4, len(target), 2, "sum")
    assert_loss_close(loss, expected, torch.float64)


@from_log_probs_and_logits
@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("dtype", [torch.float32, *slow(torch.float64, torch.bfloat16)], ids=str)
def test_each_place_equals_the_reference(
    device: Device, name: str, dtype: torch.dtype, from_logits: bool
) -> None:
    batch = batch_of([TARGETS[name]] * 2, dtype=dtype).to(device)
    check_against_reference(batch, blank=2, from_logits=from_logits)


@from_log_probs_and_logits
@pytest.mark.parametrize("name", OPTIONS)
def test_options_equal_the_reference(device: Device, name: str, from_logits: bool) -> None:
    targets = [[3 if label == 4 else label for label in target] for target in TARGETS.values()]
    batch = batch_of(targets)
    if OPTIONS[name].get("star") == 5:
        batch.targets[:, 0] = 5
    check_against_reference(batch.to(device), blank=2, from_logits=from_logits, **OPTIONS[name])


@pytest.mark.parametrize("num_frames", [30, pytest.param(400, marks=pytest.mark.large)])
@pytest.mark.parametrize("length", [9, 70])
def test_long_targets_equal_the_reference(device: Device, num_frames: int, length: int) -> None:
    targets = torch.randint(0, 5, (2, length), generator=torch.Generator().manual_seed(0)).tolist()
    check_against_reference(batch_of(targets, num_frames + 2 * length).to(device), blank=2, from_logits=True)


@pytest.mark.parametrize("form", ["padded", "concatenated"])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_equals_pytorch(device: Device, reduction: str, form: str) -> None:
    """But for targets that end in the blank: see the next test."""
    batch = batch_of([target for target in TARGETS.values() if target[-1] != 2])
    batch = concatenated(batch) if form == "concatenated" else batch
    arguments = batch.targets, batch.input_lengths, batch.target_lengths, 2, reduction
    expected_x = batch.x.detach().double().requires_grad_()
    expected = F.ctc_loss(expected_x.log_softmax(2), *arguments)
    expected.sum().backward()
    for from_logits in (False, True):
        x = batch.x.detach().to(device.torch).requires_grad_()
        scores = x if from_logits else x.log_softmax(2)
        loss = fastctc.ctc_loss(
            scores, batch.targets.to(device.torch), *arguments[1:], from_logits=from_logits
        )
        loss.sum().backward()
        assert x.grad is not None and expected_x.grad is not None
        assert_loss_close(loss, expected, torch.float32)
        assert_gradient_close(x.grad, expected_x.grad, torch.float32)


@pytest.mark.parametrize("name", ["last", "all", "one"])
def test_the_gradient_is_the_derivative_of_the_loss_of_pytorch(device: Device, name: str) -> None:
    """PyTorch's own gradient leaves out the last blank in the last frame, where the last label is the blank too."""
    batch = batch_of([TARGETS[name]], dtype=torch.float64)
    arguments = batch.targets, batch.input_lengths, batch.target_lengths, 2, "sum"

    def theirs(x: Tensor) -> Tensor:
        return F.ctc_loss(x.log_softmax(2), *arguments)

    x = batch.x.detach()
    steps = 1e-6 * torch.eye(x.numel(), dtype=x.dtype).reshape(-1, *x.shape)
    expected = torch.stack([theirs(x + step) - theirs(x - step) for step in steps]).reshape(x.shape) / 2e-6
    ours = x.to(device.torch).requires_grad_()
    loss = fastctc.ctc_loss(ours, batch.targets.to(device.torch), *arguments[1:], from_logits=True)
    assert_loss_close(loss, theirs(x), torch.float64)
    loss.backward()
    torch.testing.assert_close(ours.grad.cpu(), expected, rtol=0, atol=1e-8)


def test_values_of_pytorch_with_two_samples(device: Device) -> None:
    log_probs = torch.ones(20, 2, 4, device=device.torch).log_softmax(2)
    targets = torch.tensor([[2, 1, 2], [3, 2, 2]], device=device.torch)
    loss = fastctc.ctc_loss(log_probs, targets, [20, 20], [2, 3], blank=3, reduction="none")
    torch.testing.assert_close(loss.cpu(), torch.tensor([18.8282, 16.5058]), atol=1e-4, rtol=0)


def test_the_loss_can_be_negative(device: Device) -> None:
    """Of a target of one blank in two certain frames, three paths of states have probability 1."""
    for from_logits in (False, True):
        x = torch.tensor([[200.0, 0.0]] * 2, device=device.torch)
        scores = x if from_logits else x.log_softmax(1)
        targets = torch.tensor([0], device=device.torch)
        loss = fastctc.ctc_loss(scores, targets, 2, 1, from_logits=from_logits)
        assert float(loss) == pytest.approx(-float(torch.tensor(3.0).log()), abs=1e-6)


def test_zero_infinity(device: Device) -> None:
    """Two equal labels need a frame between them, blanks too."""
    batch = batch_of([[2, 2], [2, 1]], num_frames=3)
    batch.input_lengths = torch.tensor([2, 2])
    batch = batch.to(device)
    assert batch.loss(blank=2, reduction="none").isinf().tolist() == [True, False]
    check_against_reference(batch, blank=2, from_logits=True, zero_infinity=True)


@from_log_probs_and_logits
@pytest.mark.parametrize("name", [None, "all", "star in place of a class"])
def test_second_derivatives(device: Device, name: str | None, from_logits: bool) -> None:
    options = {} if name is None else dict(OPTIONS[name])
    if "label_priors" in options:
        options["label_priors"] = options["label_priors"].double()
    batch = batch_of([TARGETS[each] for each in ("two in a row", "all", "first")], 5, dtype=torch.float64)
    if options.get("star") == 5:
        batch.targets[0, 0] = 5
    for form in (batch, concatenated(batch)):
        form = form.to(device)

        def loss(x: Tensor, form: Batch = form) -> Tensor:
            return Batch(x, form.targets, form.input_lengths, form.target_lengths).loss(
                blank=2, reduction="none", zero_infinity=True, from_logits=from_logits, **options
            )

        torch.autograd.gradcheck(loss, form.x)
        torch.autograd.gradgradcheck(loss, form.x)


def test_second_derivatives_equal_the_reference(device: Device) -> None:
    batch = batch_of(list(TARGETS.values()), dtype=torch.float64).to(device)
    direction = torch.randn(batch.x.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    results = []
    for loss in (fastctc.ctc_loss, ctc_loss_reference):
        x = batch.x.detach().clone().requires_grad_()
        value = loss(x.log_softmax(2), batch.targets, batch.input_lengths, batch.target_lengths, 2, "sum")
        (gradient,) = torch.autograd.grad(value, x, create_graph=True)
        results.append(torch.autograd.grad(gradient, x, direction.to(x.device))[0])
    assert_gradient_close(results[0], results[1], torch.float64)


@from_log_probs_and_logits
def test_posteriors(device: Device, from_logits: bool) -> None:
    batch = batch_of(list(TARGETS.values()), dtype=torch.float64).to(device)
    arguments = batch.x.detach(), batch.targets, batch.input_lengths, batch.target_lengths, 2
    found = fastctc.ctc_posteriors(*arguments, from_logits=from_logits)
    expected = ctc_posteriors_reference(*arguments, from_logits=from_logits)
    assert_gradient_close(found, expected.transpose(0, 1), torch.float64)
    of_labels = fastctc.ctc_posteriors(*arguments, from_logits=from_logits, compact=True)
    for c in (0, 1, 3, 4):
        of_class = (of_labels * (batch.targets == c)[:, None]).sum(2)
        torch.testing.assert_close(of_class.t(), found[:, :, c], rtol=0, atol=1e-12)


def test_vmap(device: Device) -> None:
    batch = batch_of(list(TARGETS.values())).to(device)

    def loss(x: Tensor, targets: Tensor, frames: Tensor, length: Tensor) -> Tensor:
        return fastctc.ctc_loss(x, targets, frames, length, 2, "sum", from_logits=True)

    lengths = [each.to(device.torch) for each in (batch.input_lengths, batch.target_lengths)]
    mapped = torch.func.vmap(loss, in_dims=(1, 0, 0, 0))(batch.x, batch.targets, *lengths)
    torch.testing.assert_close(mapped, batch.loss(blank=2, reduction="none", from_logits=True))


def test_debugging_accepts_them_in_the_loss_and_refuses_them_in_an_alignment(device: Device) -> None:
    if device.is_emulated:
        pytest.skip(
            "the emulated kernels stand in for the kernels of the CPU, whose exceptions are raised here"
        )
    batch = batch_of([[1, 2], [1, 3]]).to(device)
    arguments = batch.targets, batch.input_lengths, batch.target_lengths, 2
    fastctc.debug(True)
    try:
        assert fastctc.ctc_loss(batch.x, *arguments, from_logits=True).isfinite()
        with pytest.raises(ValueError, match=r"targets\[0, 1\] is 2, the blank"):
            fastctc.forced_align(batch.x.detach(), *arguments, from_logits=True, time_major=True)
    finally:
        fastctc.debug(False)
