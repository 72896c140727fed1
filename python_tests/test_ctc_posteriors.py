"""fastctc.ctc_posteriors: against brute force, the reference, and what must hold of probabilities."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from batches import arguments, from_log_probs_and_logits, random_batch
from conftest import Device, slow
from tolerances import assert_gradient_close, assert_same
from torch import Tensor

import fastctc
from fastctc.reference import brute_force, ctc_posteriors_reference

OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "priors": {"label_priors": torch.linspace(-2, -1, 6)},
    "blank penalty": {"blank_penalty": 0.7},
    "delay penalty": {"delay_penalty": 0.2},
    "star": {"star": 6},
}


def of_classes(compact: Tensor, targets: Tensor, frames: Tensor, num_classes: int, blank: int) -> Tensor:
    """Return (T, N, C) posteriors of classes from the (N, T, S) posteriors of labels."""
    gamma = compact.new_zeros(*compact.shape[:2], num_classes)
    index = targets.clamp(0, num_classes - 1)[:, None].expand_as(compact)
    gamma.scatter_add_(2, index, torch.where(targets[:, None] < num_classes, compact, 0.0))
    used = torch.arange(compact.shape[1], device=compact.device) < frames[:, None].to(compact.device)
    gamma[:, :, blank] += torch.where(used, 1 - compact.sum(2), 0.0)
    return gamma.transpose(0, 1)


@pytest.mark.parametrize("blank", [0, 2])
def test_equals_brute_force(device: Device, blank: int) -> None:
    frames = random_batch(5, 1, 3, 0).x.detach()[:, 0].double().log_softmax(1)
    paths = brute_force(frames, blank)
    labels = [c for c in range(3) if c != blank]
    for target in (t for length in range(4) for t in itertools.product(labels, repeat=length)):
        gamma = fastctc.ctc_posteriors(
            frames.to(device.torch), torch.tensor(target, dtype=torch.int64), 5, len(target), blank
        )
        expected = paths[target][1] if target in paths else torch.zeros_like(frames)
        assert_gradient_close(gamma, expected, torch.float64, scale=1.0)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@from_log_probs_and_logits
@pytest.mark.parametrize(
    "dtype", [torch.float32, *slow(torch.float64, torch.float16, torch.bfloat16)], ids=str
)
def test_equals_reference(
    device: Device, options: dict[str, Any], from_logits: bool, dtype: torch.dtype
) -> None:
    batch = random_batch(40, 4, 6, 12, std=3.0)
    x = batch.x.detach().to(dtype)
    batch.targets[0, 2:5] = batch.targets[0, 2]
    batch.targets[:, ::4] = options.get("star", 1)
    batch.input_lengths, batch.target_lengths = torch.tensor([40, 33, 25, 40]), torch.tensor([12, 12, 5, 0])
    expected = ctc_posteriors_reference(x, *arguments(batch), from_logits=from_logits, **options)
    there = {k: v.to(device.torch) if isinstance(v, Tensor) else v for k, v in options.items()}
    labels = batch.targets.to(device.torch), *arguments(batch)[1:]
    gamma = fastctc.ctc_posteriors(x.to(device.torch), *labels, from_logits=from_logits, **there)
    compact = fastctc.ctc_posteriors(
        x.to(device.torch), *labels, from_logits=from_logits, compact=True, **there
    )

    double = torch.float64 if dtype == torch.float64 else torch.float32
    assert gamma.dtype == compact.dtype == double
    assert compact.shape == (4, 40, 12)
    assert_gradient_close(gamma.transpose(0, 1), expected, double)
    assert_gradient_close(of_classes(compact, labels[0], labels[1], 6, 0), expected.transpose(0, 1), double)
    used = torch.arange(40)[:, None] < batch.input_lengths
    stars = torch.where(labels[0] == options.get("star"), 1.0, 0.0).to(compact) if "star" in options else 0.0
    missing = (compact * torch.as_tensor(stars).to(compact).expand(4, 12)[:, None]).sum(2).t()
    torch.testing.assert_close((gamma.sum(2) + missing).cpu(), used.to(double))
    assert (gamma >= 0).all()
    assert (compact >= 0).all()


def test_is_minus_the_gradient_of_log_probs(device: Device) -> None:
    batch = random_batch(20, 3, 6, 5).to(device)
    (grad,) = torch.autograd.grad(batch.loss(reduction="sum"), batch.x)
    assert_same(fastctc.ctc_posteriors(batch.x, *arguments(batch)), -grad)


def test_carries_no_gradient(device: Device) -> None:
    batch = random_batch(20, 3, 6, 5).to(device)
    for compact in (False, True):
        gamma = fastctc.ctc_posteriors(batch.x, *arguments(batch), compact=compact)
        assert not gamma.requires_grad


@pytest.mark.parametrize("compact", [False, True])
def test_unbatched(device: Device, compact: bool) -> None:
    batch = random_batch(20, 1, 6, 5).to(device)
    x, target = batch.x[:, 0], batch.targets[0]
    gamma = fastctc.ctc_posteriors(x, target, 20, 5, compact=compact)
    assert gamma.shape == (20, 5 if compact else 6)
    whole = fastctc.ctc_posteriors(batch.x, *arguments(batch), compact=compact)
    assert_same(gamma, whole[0] if compact else whole[:, 0])


@pytest.mark.parametrize("compact", [False, True])
def test_infeasible_nan_and_padding(device: Device, compact: bool) -> None:
    """Unused frames are 0, a sample with a NaN is NaN, and the other samples do not change."""
    batch = random_batch(8, 4, 6, 4).to(device)
    batch.input_lengths = torch.tensor([8, 3, 6, 7])

    def posteriors() -> Tensor:
        gamma = fastctc.ctc_posteriors(batch.x, *arguments(batch), from_logits=True, compact=compact)
        return gamma if compact else gamma.transpose(0, 1)

    before = posteriors()
    assert (before[1] == 0).all()
    assert (before[2, 6:] == 0).all()
    with torch.no_grad():
        batch.x[4, 0] = math.nan
        batch.x[7:, 3] = math.nan
    gamma = posteriors()
    assert gamma[0].isnan().all()
    assert_same(gamma[1:], before[1:])


def test_compact_has_a_column_for_each_column_of_the_targets(device: Device) -> None:
    """No target that long can be aligned, and concatenated targets have no columns."""
    batch = random_batch(4, 2, 6, 9).to(device)
    batch.target_lengths = torch.tensor([3, 2])
    padded = fastctc.ctc_posteriors(batch.x, *arguments(batch), compact=True)
    assert padded.shape == (2, 4, 9)
    assert (padded[0, :, 3:] == 0).all()
    inside = torch.arange(9, device=device.torch) < batch.target_lengths[:, None].to(device.torch)
    batch.targets = batch.targets[inside]
    concatenated = fastctc.ctc_posteriors(batch.x, *arguments(batch), compact=True)
    assert_same(concatenated, padded[:, :, :3])
    assert_same(fastctc.ctc_posteriors(batch.x, batch.targets, [4, 4], [3, 2], compact=True), concatenated)


def test_nothing_at_all(device: Device) -> None:
    for shape in ((0, 2, 3), (5, 0, 3), (5, 2, 3)):
        x = torch.zeros(shape, device=device.torch)
        targets = torch.zeros(shape[1], 0, dtype=torch.int64)
        lengths = [shape[0]] * shape[1], [0] * shape[1]
        gamma = fastctc.ctc_posteriors(x, targets, *lengths)
        assert gamma.shape == shape
        assert (gamma[:, :, 0] == 1).all()
        assert fastctc.ctc_posteriors(x, targets, *lengths, compact=True).shape == (shape[1], shape[0], 0)


def test_wrong_arguments_raise() -> None:
    x = torch.zeros(5, 1, 3)
    with pytest.raises(ValueError, match=r"targets\[0, 0\] is 3, but log_probs has 3 classes"):
        fastctc.ctc_posteriors(x, torch.tensor([[3]]), [5], [1])
    with pytest.raises(TypeError, match="log_probs must be a tensor, got list"):
        fastctc.ctc_posteriors([[0.0]], torch.tensor([[1]]), [1], [1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="star is 0, the blank"):
        fastctc.ctc_posteriors(x, torch.tensor([[1]]), [5], [1], star=0)


@pytest.mark.slow_emulated
def test_compiles_and_maps(device: Device) -> None:
    torch._dynamo.reset()
    batch = random_batch(12, 3, 6, 5).to(device)
    labels = [each.to(device.torch) for each in arguments(batch)]
    for compact in (False, True):

        def posteriors(x: Tensor, *labels: Tensor, compact: bool = compact) -> Tensor:
            return fastctc.ctc_posteriors(x, *labels, compact=compact, from_logits=True)

        expected = posteriors(batch.x, *labels)
        compiled = torch.compile(posteriors, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(batch.x, *labels), expected)
        mapped = torch.func.vmap(posteriors, in_dims=(1, 0, 0, 0), out_dims=0 if compact else 1)
        torch.testing.assert_close(mapped(batch.x.detach(), *labels), expected)
