"""Forms of the arguments of fastctc.ctc_loss: dtypes, layouts, lengths, targets, reductions, the module."""

from __future__ import annotations

import pytest
import torch
from batches import LAYOUTS, arguments, from_log_probs_and_logits, laid_out, random_batch
from conftest import Device
from tolerances import assert_same
from torch import Tensor
from torch.nn import functional as F

import fastctc


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_gradient_has_the_dtype_of_its_input(device: Device, dtype: torch.dtype) -> None:
    batch = random_batch(12, 2, 5, 4)
    x = batch.x.detach().to(dtype).to(device.torch).requires_grad_()
    loss = fastctc.ctc_loss(x, batch.targets.to(device.torch), *arguments(batch)[1:], from_logits=True)
    loss.backward()
    assert x.grad is not None
    assert x.grad.dtype == dtype
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("layout", LAYOUTS)
@from_log_probs_and_logits
def test_layout_does_not_matter(device: Device, layout: str, from_logits: bool) -> None:
    batch = random_batch(13, 3, 9, 4).to(device)
    expected = batch.loss_and_gradient(from_logits=from_logits)
    batch.x = laid_out(batch.x.detach(), layout).requires_grad_()
    for one, other in zip(batch.loss_and_gradient(from_logits=from_logits), expected, strict=True):
        assert_same(one, other)


LENGTH_FORMS = {
    "list": lambda lengths: lengths.tolist(),
    "tuple": lambda lengths: tuple(lengths.tolist()),
    **{
        str(d): lambda lengths, d=d: lengths.to(d)
        for d in (torch.uint8, torch.int8, torch.int16, torch.int32)
    },
    "strided": lambda lengths: torch.stack([lengths, lengths * 100], dim=1)[:, 0],
}


@pytest.mark.parametrize("form", LENGTH_FORMS)
def test_lengths_come_in_many_forms(device: Device, form: str) -> None:
    batch = random_batch(13, 3, 9, 4).to(device)
    batch.input_lengths = torch.tensor([13, 9, 11])
    batch.target_lengths = torch.tensor([4, 2, 3])
    expected = batch.loss()
    lengths = [LENGTH_FORMS[form](each) for each in (batch.input_lengths, batch.target_lengths)]
    assert_same(fastctc.ctc_loss(batch.x, batch.targets, *lengths), expected)
    if isinstance(lengths[0], Tensor):
        moved = [each.to(device.torch) for each in lengths]
        assert_same(fastctc.ctc_loss(batch.x, batch.targets, *moved), expected)


def test_targets_come_in_many_forms(device: Device) -> None:
    batch = random_batch(13, 3, 9, 4).to(device)
    batch.target_lengths = torch.tensor([4, 2, 3])
    expected = batch.loss(reduction="none")
    inside = torch.arange(4) < batch.target_lengths[:, None]
    padded = batch.targets.cpu()
    strided = torch.stack([padded, -padded], dim=2)[:, :, 0]
    transposed = padded.t().contiguous().t()
    wide = F.pad(padded, (0, 5), value=-1)
    for targets in (padded.int(), padded[inside], padded[inside].int(), strided, transposed, wide):
        for placed in (targets, targets.to(device.torch)):
            batch.targets = placed
            assert_same(batch.loss(reduction="none"), expected)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@from_log_probs_and_logits
def test_unbatched(device: Device, reduction: str, from_logits: bool) -> None:
    batch = random_batch(13, 1, 9, 4).to(device)
    expected = batch.loss(reduction="none", from_logits=from_logits)
    expected_grad = torch.autograd.grad(expected.sum(), batch.x)[0].squeeze(1)
    if reduction == "mean":
        expected, expected_grad = expected / 4, expected_grad / 4
    for lengths in (
        (13, 4),
        (torch.tensor(13), torch.tensor(4)),
        ([13], [4]),
        (torch.tensor([13]), torch.tensor([4])),
    ):
        x = batch.x.detach()[:, 0].requires_grad_()
        loss = fastctc.ctc_loss(x, batch.targets[0], *lengths, reduction=reduction, from_logits=from_logits)
        assert loss.shape == ()
        torch.testing.assert_close(loss, expected[0])
        torch.testing.assert_close(torch.autograd.grad(loss, x)[0], expected_grad)


def test_unbatched_target_may_be_padded(device: Device) -> None:
    batch = random_batch(13, 1, 9, 4).to(device)
    x = batch.x.detach()[:, 0]
    expected = fastctc.ctc_loss(x, batch.targets[0, :3], 13, 3, reduction="sum")
    padded = F.pad(batch.targets[0, :3], (0, 2), value=-1)
    assert_same(fastctc.ctc_loss(x, padded, 13, 3, reduction="sum"), expected)


def test_reductions(device: Device) -> None:
    batch = random_batch(13, 3, 9, 4).to(device)
    batch.target_lengths = torch.tensor([4, 2, 0])
    losses = batch.loss(reduction="none")
    assert losses.shape == (3,)
    torch.testing.assert_close(batch.loss(reduction="sum"), losses.sum())
    divisors = torch.tensor([4, 2, 1], device=device.torch)
    torch.testing.assert_close(batch.loss(reduction="mean"), (losses / divisors).mean())
    assert_same(batch.loss(), batch.loss(reduction="mean"))


def test_module_does_what_the_function_does(device: Device) -> None:
    batch = random_batch(13, 3, 9, 4).to(device)
    for options in (
        {},
        {"blank": 8, "reduction": "none"},
        {"reduction": "sum", "zero_infinity": True},
        {"from_logits": True},
    ):
        batch.targets = batch.targets.clamp(max=7)
        module = fastctc.CTCLoss(**options)
        assert_same(module(batch.x, *arguments(batch)), batch.loss(**options))
        assert isinstance(module, torch.nn.Module)
    assert_same(
        fastctc.CTCLoss(8, "sum", True)(batch.x, *arguments(batch)), batch.loss(blank=8, reduction="sum")
    )
