"""Large gradients on the CPU.

One takes the memory of the last one that was freed, never of one that is there. Its long rows pass by the caches.
Large lattices take such memory, too.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

import fastctc

FRAMES, SAMPLES, CLASSES = 8, 3, 500_000  # 48 MB
TARGETS = torch.tensor([[1, 2], [3, 3], [CLASSES - 1, 5]])
FRAME_COUNTS, LENGTHS = torch.full((SAMPLES,), FRAMES), torch.full((SAMPLES,), 2)
reuses = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 11), reason="needs PyTorch 2.11"
)


def scores(seed: int) -> Tensor:
    return torch.randn(FRAMES, SAMPLES, CLASSES, generator=torch.Generator().manual_seed(seed))


def gradient(logits: Tensor) -> Tensor:
    logits = logits.detach().requires_grad_()
    loss = fastctc.ctc_loss(logits, TARGETS, FRAME_COUNTS, LENGTHS, reduction="sum", from_logits=True)
    return torch.autograd.grad(loss, logits)[0]


def small_gradient(logits: Tensor, n: int) -> Tensor:
    """Return the gradient of one sample, which is too small to take other memory."""
    logits = logits[:, n : n + 1].detach().requires_grad_()
    one = slice(n, n + 1)
    loss = fastctc.ctc_loss(logits, TARGETS[one], FRAME_COUNTS[one], LENGTHS[one], from_logits=True)
    return torch.autograd.grad(loss, logits, torch.tensor(2.0))[0]  # the mean divides by two labels


def assert_gradient(found: Tensor, logits: Tensor) -> None:
    for n in range(SAMPLES):
        assert torch.equal(found[:, n : n + 1], small_gradient(logits, n))


@reuses
def test_memory_of_a_freed_gradient_is_taken_and_of_no_other() -> None:
    first_logits, second_logits = scores(0), scores(1)
    first = gradient(first_logits)
    second = gradient(second_logits)
    assert first.data_ptr() != second.data_ptr()
    place = second.data_ptr()
    del second
    third = gradient(second_logits)
    assert third.data_ptr() == place
    assert_gradient(third, second_logits)
    assert_gradient(first, first_logits)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
def test_layout_is_the_inputs(order: tuple[int, int, int]) -> None:
    logits = scores(0).permute(order).contiguous().permute(order)  # each order is its own inverse
    found = gradient(logits)
    assert found.stride() == logits.stride()
    assert_gradient(found, logits)


def test_a_view_outlives_its_gradient() -> None:
    logits = scores(0)
    row = gradient(logits)[3, 1]
    gradient(scores(1))
    assert torch.equal(row, small_gradient(logits, 1)[3, 0])


def test_threads_share_the_memory() -> None:
    logits = scores(0)
    expected = gradient(logits)

    def repeat(_: int) -> bool:
        return all(torch.equal(gradient(logits), expected) for _ in range(3))

    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(repeat, range(3)))


def test_lattices_that_are_there_at_once_have_their_own_memory() -> None:
    frames, labels = 6000, 1500  # 36 MB
    generator = torch.Generator().manual_seed(0)
    logits = [torch.randn(frames, 1, 9, generator=generator).requires_grad_() for _ in range(2)]
    targets = torch.randint(1, 9, (1, labels), generator=generator)

    def loss(leaf: Tensor) -> Tensor:
        return fastctc.ctc_loss(leaf, targets, [frames], [labels], from_logits=True)

    alone = [torch.autograd.grad(loss(leaf), leaf)[0] for leaf in logits]
    losses = [loss(leaf) for leaf in logits]
    with torch.no_grad():
        assert loss(logits[0]) == losses[0]
    for value, leaf, expected in zip(losses, logits, alone, strict=True):
        assert torch.equal(torch.autograd.grad(value, leaf)[0], expected)


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_rows_that_pass_by_the_caches_have_the_same_bits(dtype: torch.dtype, from_logits: bool) -> None:
    classes = 200_001 * 8 // dtype.itemsize  # rows of 1.6 MB, not aligned
    logits = torch.randn(15, 2, classes, generator=torch.Generator().manual_seed(0)).to(dtype)
    scores = logits if from_logits else logits.log_softmax(-1)
    targets, counts, lengths = torch.tensor([[7, 7, 0, classes - 1], [1, 2, 3, 4]]), [15, 9], [4, 3]

    def gradient_of(samples: slice) -> Tensor:
        leaf = scores[:, samples].detach().requires_grad_()
        arguments = targets[samples], counts[samples], lengths[samples], 5
        loss = fastctc.ctc_loss(leaf, *arguments, reduction="none", from_logits=from_logits)
        return torch.autograd.grad(loss.sum() * 3, leaf)[0]

    both = gradient_of(slice(0, 2))
    for n in range(2):
        assert torch.equal(both[:, n : n + 1], gradient_of(slice(n, n + 1)))
    assert not both[9:, 1].any()
