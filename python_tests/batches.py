"""Batches of samples for the tests of the loss, and what the reference makes of them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from conftest import Device
from tolerances import DIFFERENCE_OF_PROBABILITIES, assert_gradient_close, assert_loss_close
from torch import Tensor

import fastctc
from fastctc.reference import ctc_loss_reference

from_log_probs_and_logits = pytest.mark.parametrize("from_logits", [False, True], ids=["log_probs", "logits"])


@dataclass
class Batch:
    """Arguments of ctc_loss, and what the reference makes of them."""

    x: Tensor  # (T, N, C), requires grad
    targets: Tensor
    input_lengths: Tensor
    target_lengths: Tensor

    def to(self, device: Device) -> Batch:
        x = self.x.detach().to(device.torch).requires_grad_()
        return Batch(x, self.targets.to(device.torch), self.input_lengths, self.target_lengths)

    def loss(self, **options: object) -> Tensor:
        return fastctc.ctc_loss(self.x, self.targets, self.input_lengths, self.target_lengths, **options)

    def loss_and_gradient(self, **options: object) -> tuple[Tensor, Tensor]:
        """Return the losses, and the gradient of their sum weighted by 1, 2, 3, ..."""
        loss = self.loss(reduction="none", **options)
        return loss.detach(), gradient(loss, self.x)

    def reference(self, **options: object) -> tuple[Tensor, Tensor]:
        x = self.x.detach().cpu().double().requires_grad_()
        lengths = self.input_lengths, self.target_lengths
        loss = ctc_loss_reference(x, self.targets.cpu(), *lengths, reduction="none", **options)
        return loss.detach(), gradient(loss, x)


def laid_out(x: Tensor, layout: str) -> Tensor:
    """Return the same (T, N, C) values at other strides; the elements between them are NaN."""
    if layout == "time first":
        return x.contiguous()
    if layout == "batch first":
        return x.transpose(0, 1).contiguous().transpose(0, 1)
    if layout == "class first":
        return x.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    assert layout == "sliced"
    larger = x.new_full((x.shape[0] + 2, x.shape[1] * 2, x.shape[2] + 3), torch.nan)
    view = larger[1:-1, ::2, 2:-1]
    view.copy_(x)
    return view.detach()


LAYOUTS = ("time first", "batch first", "class first", "sliced")


def gradient(loss: Tensor, x: Tensor) -> Tensor:
    weights = torch.arange(1, loss.numel() + 1, device=loss.device, dtype=loss.dtype)
    return torch.autograd.grad(loss, x, weights.reshape(loss.shape))[0]


def random_batch(
    num_frames: int, num_samples: int, num_classes: int, length: int, *, seed: int = 0, std: float = 1.0
) -> Batch:
    """Return fp32 logits of standard deviation `std`, every sample of full length; blank is 0."""
    generator = torch.Generator().manual_seed(seed)
    x = std * torch.randn(num_frames, num_samples, num_classes, generator=generator)
    targets = torch.randint(1, num_classes, (num_samples, length), generator=generator)
    frames = torch.full((num_samples,), num_frames)
    return Batch(x.requires_grad_(), targets, frames, torch.full((num_samples,), length))


def check_against_reference(batch: Batch, **options: object) -> None:
    loss, grad = batch.loss_and_gradient(**options)
    expected_loss, expected_grad = batch.reference(**options)
    assert_loss_close(loss, expected_loss, batch.x.dtype)
    scale = DIFFERENCE_OF_PROBABILITIES if options.get("from_logits") else 0.0
    assert_gradient_close(grad, expected_grad, batch.x.dtype, scale)


def arguments(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    return batch.targets, batch.input_lengths, batch.target_lengths
