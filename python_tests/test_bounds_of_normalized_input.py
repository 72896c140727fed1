"""No result is past its mathematical bound by rounding, where the input is normalized and confident.

A loss is not below 0, so that its logarithm is no NaN. Scores of alignments are not above 0. Posteriors are in
[0, 1], and the posteriors of a frame add up to 1. Input that is not normalized keeps its negative loss.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from batches import Batch
from conftest import Device
from tolerances import assert_loss_close
from torch import Tensor

import fastctc
from fastctc.reference import ctc_loss_reference

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def confident_batch(
    margin: float, *, num_frames: int = 90, num_samples: int = 8, num_classes: int = 12, length: int = 20
) -> Batch:
    """Return logits whose best path spells the target with a margin; every third label repeats."""
    generator = torch.Generator().manual_seed(int(margin))
    targets = torch.randint(1, num_classes, (num_samples, length), generator=generator)
    targets[:, 2::3] = targets[:, 1:-1:3]
    x = torch.randn(num_frames, num_samples, num_classes, generator=generator)
    for n in range(num_samples):
        path = torch.zeros(num_frames, dtype=torch.int64)
        path[n % 3 : n % 3 + 4 * length] = torch.stack([targets[n]] * 3 + [0 * targets[n]], 1).reshape(-1)
        x[range(num_frames), n, path] += margin
    frames = torch.full((num_samples,), num_frames)
    return Batch(x, targets, frames, torch.full((num_samples,), length))


def normalizations() -> dict[str, Any]:
    return {
        "log_softmax": lambda x: x.log_softmax(2),
        "softmax and log": lambda x: x.softmax(2).log(),
        "minus logsumexp": lambda x: x - x.logsumexp(2, keepdim=True),
    }


def confident(margin: float, dtype: torch.dtype, device: Device, normalization: str) -> Batch:
    if normalization == "minus logsumexp":  # its error grows with the logits
        margin = min(margin, 20)
    batch = confident_batch(margin).to(device)
    x = normalizations()[normalization](batch.x.detach().to(torch.promote_types(dtype, torch.float32)))
    return Batch(x.to(dtype), batch.targets, batch.input_lengths, batch.target_lengths)


@dtypes
@pytest.mark.parametrize("margin", [12, 20, 30, 200])
@pytest.mark.parametrize("normalization", ["log_softmax", "softmax and log", "minus logsumexp"])
@pytest.mark.parametrize(
    "options", [{}, {"blank_penalty": 1e-9}, {"star": 12}], ids=["plain", "penalty", "star"]
)
def test_the_loss_is_not_negative(
    device: Device, dtype: torch.dtype, margin: float, normalization: str, options: dict[str, Any]
) -> None:
    """A star that no target has, and a penalty, leave the bound as it is."""
    batch = confident(margin, dtype, device, normalization)
    for reduction in ("none", "sum", "mean"):
        loss = batch.loss(reduction=reduction, **options)
        assert (loss >= 0).all(), loss.min()
        assert not loss.log().isnan().any()
        assert not torch.signbit(loss).any()


@dtypes
@pytest.mark.parametrize("margin", [12, 30, 200])
@pytest.mark.parametrize(
    "options", [{}, {"blank_penalty": 1e-9}, {"star": 12}, {"focal_gamma": 2.0}], ids=str
)
def test_the_loss_of_logits_is_not_negative(
    device: Device, dtype: torch.dtype, margin: float, options: dict[str, Any]
) -> None:
    batch = confident_batch(margin).to(device)
    loss = fastctc.ctc_loss(
        batch.x.detach().to(dtype), batch.targets, batch.input_lengths, batch.target_lengths,
        reduction="none", from_logits=True, **options,
    )  # fmt: skip
    assert (loss >= 0).all() and not loss.log().isnan().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("excess", [1e-2, 1e-4, 1e-5])
def test_input_that_is_not_normalized_keeps_its_negative_loss(
    device: Device, dtype: torch.dtype, excess: float
) -> None:
    batch = confident(30, dtype, device, "log_softmax")
    x = batch.x + excess
    loss = Batch(x, batch.targets, batch.input_lengths, batch.target_lengths).loss(reduction="none")
    expected = ctc_loss_reference(
        x, batch.targets, batch.input_lengths, batch.target_lengths, reduction="none"
    )
    assert (loss < 0).all()
    assert_loss_close(loss, expected, dtype)
    torch.testing.assert_close(loss.double(), expected, rtol=0.02, atol=0)


@dtypes
def test_logits_with_priors_keep_their_negative_loss(device: Device, dtype: torch.dtype) -> None:
    """Priors of exp(-0.003) raise each probability by 0.3 percent, less than the rounding of bfloat16."""
    batch = confident_batch(30).to(device)
    x = batch.x.detach().to(dtype)
    priors = torch.full((12,), -0.003, dtype=torch.float64, device=device.torch)
    loss = Batch(x, batch.targets, batch.input_lengths, batch.target_lengths).loss(
        reduction="none", from_logits=True, label_priors=priors
    )
    torch.testing.assert_close(loss.double(), torch.full_like(loss, -0.27).double(), rtol=1e-4, atol=0)


def test_input_with_one_frame_that_is_not_normalized_keeps_its_negative_loss(device: Device) -> None:
    batch = confident(30, torch.float32, device, "log_softmax")
    batch.x[50] += 0.01
    assert (batch.loss(reduction="none") < -0.0099).all()


def test_a_star_in_a_target_may_have_a_negative_loss(device: Device) -> None:
    """Two frames of a star: it is in the first, the second or both, with probability 1 each."""
    x = torch.zeros(2, 3, device=device.torch)
    targets = torch.tensor([3], device=device.torch)
    loss = fastctc.ctc_loss(x, targets, 2, 1, from_logits=True, star=3)
    assert float(loss) == pytest.approx(-float(torch.tensor(1 + 2 / 3).log()), abs=1e-6)


def test_the_gradient_stays_where_the_loss_is_brought_to_zero(device: Device) -> None:
    batch = confident(30, torch.float32, device, "log_softmax")
    x = batch.x.requires_grad_()
    loss = batch.loss(reduction="none")
    (gradient,) = torch.autograd.grad(loss.sum(), x)
    torch.testing.assert_close(-gradient.sum(2), torch.ones_like(gradient[:, :, 0]))


@dtypes
@pytest.mark.parametrize("margin", [0, 3, 12, 30])
@pytest.mark.parametrize("from_logits", [False, True])
def test_posteriors_are_probabilities(
    device: Device, dtype: torch.dtype, margin: float, from_logits: bool
) -> None:
    batch = confident_batch(margin) if from_logits else confident(margin, dtype, device, "log_softmax")
    batch = Batch(
        batch.x.detach().to(dtype).to(device.torch), batch.targets.to(device.torch), *list_lengths(batch)
    )
    arguments = batch.x, batch.targets, batch.input_lengths, batch.target_lengths
    for compact in (False, True):
        gamma = fastctc.ctc_posteriors(*arguments, from_logits=from_logits, compact=compact)
        assert (gamma >= 0).all() and (gamma <= 1).all()
        assert float(gamma.double().sum(2).max()) <= 1 + 4 * torch.finfo(gamma.dtype).eps


def list_lengths(batch: Batch) -> tuple[Tensor, Tensor]:
    return batch.input_lengths, batch.target_lengths


@dtypes
@pytest.mark.parametrize("margin", [3, 12, 30, 200])
@pytest.mark.parametrize("normalization", ["log_softmax", "softmax and log", "minus logsumexp", "logits"])
def test_scores_of_alignments_are_not_positive(
    device: Device, dtype: torch.dtype, margin: float, normalization: str
) -> None:
    logits = normalization == "logits"
    batch = confident_batch(margin).to(device) if logits else confident(margin, dtype, device, normalization)
    x = batch.x.detach().to(dtype)
    paths, scores = fastctc.forced_align(
        x, batch.targets, *list_lengths(batch), time_major=True, from_logits=logits
    )
    assert (scores <= 0).all()
    for spans in fastctc.merge_tokens(paths, scores):
        assert all(span.score <= 0 for span in spans)


def test_a_score_above_zero_by_rounding_is_zero_and_others_stay(device: Device) -> None:
    x = torch.tensor([[0.0, -1.0], [-1.0, 1.2e-7], [-1.0, 0.5]], device=device.torch)
    scores = fastctc.forced_align(x, torch.tensor([1], device=device.torch))[1]
    assert scores.tolist() == [0.0, 0.0, 0.5]
