"""Two threads share a sample where there are more threads than samples, and get the bits of one thread."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import fastctc

THREADS = 1, 2, 3, 6
FRAMES, SAMPLES, CLASSES, LABELS = 1501, 2, 41, 70  # enough states for two threads


@pytest.fixture(autouse=True)
def restored_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def draw(std: float = 3.0) -> tuple[Tensor, Tensor, list[int], list[int]]:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(FRAMES, SAMPLES, CLASSES, generator=generator, dtype=torch.float64) * std
    targets = torch.randint(1, CLASSES, (SAMPLES, LABELS), generator=generator)
    targets[:, 5] = targets[:, 4]
    return scores, targets, [FRAMES, FRAMES - 333], [LABELS, LABELS - 9]


def assert_same_on_any_number_of_threads(
    scores: Tensor, targets: Tensor, frames: Any, lengths: Any, **options: Any
) -> tuple[Tensor, Tensor]:
    results = []
    for threads in THREADS:
        torch.set_num_threads(threads)
        leaf = scores.detach().requires_grad_()
        loss = fastctc.ctc_loss(leaf, targets, frames, lengths, reduction="none", **options)
        with torch.no_grad():
            alone = fastctc.ctc_loss(scores, targets, frames, lengths, reduction="none", **options)
        assert torch.equal(alone.nan_to_num(-1), loss.detach().nan_to_num(-1))
        results.append((loss.detach(), torch.autograd.grad(loss.sum(), leaf)[0]))
    for loss, grad in results[1:]:
        assert torch.equal(loss.nan_to_num(-1), results[0][0].nan_to_num(-1))
        assert torch.equal(grad.nan_to_num(-1), results[0][1].nan_to_num(-1))
    return results[0]


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_types_and_forms(dtype: torch.dtype, from_logits: bool) -> None:
    scores, targets, frames, lengths = draw()
    scores = (scores if from_logits else scores.log_softmax(-1)).to(dtype)
    loss, grad = assert_same_on_any_number_of_threads(
        scores, targets, frames, lengths, from_logits=from_logits
    )
    assert loss.isfinite().all()
    tensors = torch.tensor(frames), torch.tensor(lengths)
    again, gradient = assert_same_on_any_number_of_threads(scores, targets, *tensors, from_logits=from_logits)
    assert torch.equal(again, loss)
    assert torch.equal(gradient, grad)
    expected = torch.nn.functional.ctc_loss(
        scores.double().log_softmax(-1) if from_logits else scores.double(),
        targets,
        *tensors,
        reduction="none",
    )
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "options",
    [
        {"star": 7},
        {"delay_penalty": 0.02},
        {"blank_penalty": 0.5},
        {"blank": 9, "zero_infinity": True},
    ],
    ids=str,
)
def test_options(options: dict[str, Any]) -> None:
    scores, targets, frames, lengths = draw()
    targets[targets == 9] = 0
    loss, _ = assert_same_on_any_number_of_threads(
        scores.float(), targets, frames, lengths, from_logits=True, **options
    )
    assert loss.isfinite().all()


@pytest.mark.parametrize("zero_infinity", [False, True])
@pytest.mark.parametrize("half", [0, 1])
def test_what_becomes_of_a_sample(half: int, zero_infinity: bool) -> None:
    """Masked, empty, short and unlikely samples, and those that are not a number, by one of their halves."""
    options = {"from_logits": True, "zero_infinity": zero_infinity}
    scores, targets, frames, lengths = draw()
    scores = scores.float()
    at = FRAMES // 4 + half * FRAMES // 2

    masked = scores.clone()
    masked[at, 0] = -torch.inf
    masked[at, 0, 0] = 0.0  # the blank is all that is left
    masked[at + 1 : at + 4, 1, 0] = -torch.inf
    loss, _ = assert_same_on_any_number_of_threads(masked, targets, frames, lengths, **options)
    assert loss.isfinite().all()

    impossible = scores.log_softmax(-1)
    impossible[at, 0] = -torch.inf
    loss, grad = assert_same_on_any_number_of_threads(
        impossible, targets, frames, lengths, zero_infinity=zero_infinity
    )
    assert loss[0] == (0 if zero_infinity else torch.inf)
    assert not grad[:, 0].any()

    broken = scores.clone()
    broken[at, 0, int(targets[0, 3])] = torch.nan
    loss, grad = assert_same_on_any_number_of_threads(broken, targets, frames, lengths, **options)
    assert loss[0].isnan()
    assert grad[:, 0].isnan().all()
    assert loss[1].isfinite()

    assert_same_on_any_number_of_threads(scores, targets, frames, [0, LABELS], **options)
    assert_same_on_any_number_of_threads(
        scores, targets, [LABELS - 1, LABELS + 5], [LABELS, LABELS], **options
    )

    wide = scores.clone()
    wide[at : at + 5, :, int(targets[0, 3])] += 5e4  # a float cannot have such exponents
    loss, _ = assert_same_on_any_number_of_threads(wide, targets, frames, lengths, **options)
    assert loss.isfinite().all()


def test_one_long_sample() -> None:
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(6000, 1, 50, generator=generator)
    targets = torch.randint(1, 50, (1, 1500), generator=generator)
    loss, grad = assert_same_on_any_number_of_threads(scores, targets, [6000], [1500], from_logits=True)
    exact, gradient = assert_same_on_any_number_of_threads(
        scores.double(), targets, [6000], [1500], from_logits=True
    )
    torch.testing.assert_close(loss.double(), exact, rtol=1e-7, atol=0)
    torch.testing.assert_close(grad.double(), gradient, rtol=0, atol=2e-6)


@pytest.mark.parametrize("classes", [9, 16, 17, 32, 33, 64, 65, 128, 129])
def test_unlikely_samples_of_few_classes(classes: int) -> None:
    """Exponents that need doubles, at the sizes where rows take more registers."""
    generator = torch.Generator().manual_seed(classes)
    scores = torch.randn(1000, 1, classes, generator=generator) * 3
    scores[500:520, :, 1:] += 2e5
    targets = torch.randint(1, classes, (1, 130), generator=generator)
    loss, grad = assert_same_on_any_number_of_threads(scores, targets, [1000], [130], from_logits=True)
    exact, gradient = assert_same_on_any_number_of_threads(
        scores.double(), targets, [1000], [130], from_logits=True
    )
    torch.testing.assert_close(loss.double(), exact, rtol=1e-6, atol=0)
    torch.testing.assert_close(grad.double(), gradient, rtol=0, atol=2e-6)
