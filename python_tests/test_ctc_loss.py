"""fastctc.ctc_loss: values, gradients, semantics, determinism, against brute force and the reference."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from batches import (
    Batch,
    arguments,
    check_against_reference,
    from_log_probs_and_logits,
    gradient,
    random_batch,
)
from conftest import Device
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

INF = math.inf
NAN = math.nan

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
    """What a random batch looks like; the values follow from the seed."""

    num_frames: int
    num_samples: int
    num_classes: int
    length: int
    blank: int
    kinds: int  # number of different labels: few of them make repeats
    std: float
    normalised: bool
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
        if self.normalised and not from_logits:
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
        """Full length for about half of the samples."""
        lengths = torch.randint(-largest, largest + 1, (self.num_samples,), generator=generator)
        return torch.where(lengths < 0, largest, lengths).to(self.index_dtype)


def laid_out(x: Tensor, layout: str) -> Tensor:
    """The same (T, N, C) values at other strides; what lies between them is NaN."""
    if layout == "time first":
        return x.contiguous()
    if layout == "batch first":
        return x.transpose(0, 1).contiguous().transpose(0, 1)
    if layout == "class first":
        return x.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    assert layout == "sliced"
    larger = x.new_full((x.shape[0] + 2, x.shape[1] * 2, x.shape[2] + 3), NAN)
    view = larger[1:-1, ::2, 2:-1]
    view.copy_(x)
    return view.detach()


LAYOUTS = ("time first", "batch first", "class first", "sliced")
cases = st.builds(
    Case,
    num_frames=st.integers(0, 24),
    num_samples=st.integers(1, 4),
    num_classes=st.sampled_from([2, 3, 5, 31, 32, 33, 70]),
    length=st.integers(0, 12),
    blank=st.sampled_from([0, 1, -1]),  # -1: the last class
    kinds=st.integers(1, 8),
    std=st.sampled_from([0.0, 1.0, 1.0, 5.0, 30.0]),
    normalised=st.booleans(),
    masked=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float32, torch.float64, torch.float16, torch.bfloat16]),
    layout=st.sampled_from(LAYOUTS),
    concatenated=st.booleans(),
    index_dtype=st.sampled_from([torch.int32, torch.int64]),
    seed=st.integers(0, 2**31),
)


@from_log_probs_and_logits
@settings(max_examples=250)
@given(case=cases)
def test_random_cases(device: Device, from_logits: bool, case: Case) -> None:
    case.blank %= case.num_classes
    check_against_reference(case.build(device, from_logits), blank=case.blank, from_logits=from_logits)


@from_log_probs_and_logits
@pytest.mark.parametrize("length", [1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 200])
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
@pytest.mark.parametrize("length", [16, 63, 64, 65, 80, 128, 200])
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


# Forms of the arguments


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_gradient_has_the_dtype_of_its_input(device: Device, dtype: torch.dtype) -> None:
    batch = random_batch(12, 2, 5, 4)
    x = batch.x.detach().to(dtype).to(device.torch).requires_grad_()
    loss = fastctc.ctc_loss(x, batch.targets.to(device.torch), *arguments(batch)[1:], from_logits=True)
    loss.backward()
    assert x.grad is not None
    assert x.grad.dtype == dtype
    assert loss.dtype == dtype or (dtype.itemsize == 2 and loss.dtype == torch.float32)


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


# Infinities, NaN, and nothing at all


@from_log_probs_and_logits
@pytest.mark.parametrize("zero_infinity", [False, True])
def test_infeasible_sample_leaves_the_others_alone(
    device: Device, from_logits: bool, zero_infinity: bool
) -> None:
    batch = random_batch(6, 3, 5, 4).to(device)
    expected = batch.loss_and_gradient(from_logits=from_logits)
    batch.input_lengths = torch.tensor([6, 3, 6])
    loss, grad = batch.loss_and_gradient(from_logits=from_logits, zero_infinity=zero_infinity)
    assert loss[1] == (0 if zero_infinity else INF)
    assert (grad[:, 1] == 0).all()
    assert_same(loss[::2], expected[0][::2])
    assert_same(grad[:, ::2], expected[1][:, ::2])
    for reduction in ("sum", "mean"):
        total = batch.loss(from_logits=from_logits, zero_infinity=zero_infinity, reduction=reduction)
        assert total.isfinite() == zero_infinity
        grad = torch.autograd.grad(total, batch.x)[0]
        assert grad.isfinite().all()
        assert (grad[:, 1] == 0).all()


@from_log_probs_and_logits
def test_masked_classes_have_probability_zero(device: Device, from_logits: bool) -> None:
    """-inf in a class the target does without, in one frame of a label, in the blank, in all of a label."""
    batch = random_batch(7, 4, 5, 3)
    batch.targets = torch.tensor([[1, 2, 3]] * 4)
    with torch.no_grad():
        batch.x[:, 0, 4] = -INF
        batch.x[3, 1, 2] = -INF
        batch.x[:, 2, 0] = -INF
        batch.x[:, 3, 2] = -INF
    masked = batch.x == -INF
    batch = batch.to(device)
    check_against_reference(batch, from_logits=from_logits)
    loss, grad = batch.loss_and_gradient(from_logits=from_logits)
    assert loss.isfinite().tolist() == [True, True, True, False]
    assert grad.isfinite().all()
    assert (grad[masked].abs() <= 1e-6).all()
    assert (grad[:, 3] == 0).all()
    zeroed, zeroed_grad = batch.loss_and_gradient(from_logits=from_logits, zero_infinity=True)
    assert zeroed[3] == 0
    assert_same(zeroed_grad, grad)


def test_masked_states_do_not_outweigh_unlikely_ones(device: Device) -> None:
    """The likely first frame leads nowhere: the blank is masked after it. What remains is below 2^-190."""
    log_p = torch.tensor(
        [[0.0, -7.0], [-INF, -55.0], [-73.0, -INF], [-40.0, 0.0], [0.0, -11.0], [-26.0, 0.0]]
    )
    batch = Batch(log_p.unsqueeze(1), torch.tensor([[1, 1]]), torch.tensor([6]), torch.tensor([2])).to(device)
    assert batch.loss(reduction="sum").isfinite()
    check_against_reference(batch)


@from_log_probs_and_logits
@pytest.mark.parametrize("value", [-1e4, -1e9, -1e30, torch.finfo(torch.float32).min])
def test_large_negative_masks(device: Device, from_logits: bool, value: float) -> None:
    """The usual stand-ins for -inf, in a class that the target does without."""
    batch = random_batch(9, 2, 6, 4)
    batch.targets.clamp_(max=4)
    with torch.no_grad():
        batch.x[:, :, 5] = value
        batch.x[4, :, 1] = value
    check_against_reference(batch.to(device), from_logits=from_logits)


def test_unlikely_targets_keep_their_digits(device: Device) -> None:
    """Every path has log-probabilities of -1e4: far below the smallest float, and x - max must not round."""
    batch = random_batch(9, 2, 6, 4)
    with torch.no_grad():
        batch.x[:, :, 1:] -= 1e4
    for from_logits in (False, True):
        check_against_reference(batch.to(device), from_logits=from_logits)


def test_confident_predictions(device: Device) -> None:
    path = torch.tensor([0, 1, 1, 0, 2, 0, 3, 3])
    logits = (100.0 * F.one_hot(path, 5)).unsqueeze(1).to(device.torch).requires_grad_()
    targets = torch.tensor([[1, 2, 3]], device=device.torch)
    loss = fastctc.ctc_loss(logits, targets, [8], [3], from_logits=True)
    assert 0 <= loss.item() < 1e-6
    assert float(torch.autograd.grad(loss, logits)[0].abs().max()) < 1e-6


@from_log_probs_and_logits
def test_nan_in_padding_is_never_read(device: Device, from_logits: bool) -> None:
    batch = random_batch(12, 3, 5, 4).to(device)
    batch.input_lengths = torch.tensor([12, 9, 0])
    batch.target_lengths = torch.tensor([4, 3, 0])
    expected = batch.loss_and_gradient(from_logits=from_logits)
    with torch.no_grad():
        batch.x[9:, 1] = NAN
        batch.x[:, 2] = NAN
    loss, grad = batch.loss_and_gradient(from_logits=from_logits)
    assert_same(loss, expected[0])
    assert_same(grad, expected[1])
    assert (grad[9:, 1] == 0).all()
    assert (grad[:, 2] == 0).all()


@from_log_probs_and_logits
@pytest.mark.parametrize("frame", [0, 5, 11])
def test_nan_in_use_stays_in_its_sample(device: Device, from_logits: bool, frame: int) -> None:
    batch = random_batch(12, 3, 5, 4).to(device)
    expected = batch.loss_and_gradient(from_logits=from_logits)
    with torch.no_grad():
        batch.x[frame, 1] = NAN
    for zero_infinity in (False, True):
        loss, grad = batch.loss_and_gradient(from_logits=from_logits, zero_infinity=zero_infinity)
        assert loss[1].isnan()
        assert grad[:, 1].isnan().any()
        assert_same(loss[::2], expected[0][::2])
        assert_same(grad[:, ::2], expected[1][:, ::2])


@from_log_probs_and_logits
def test_empty_targets(device: Device, from_logits: bool) -> None:
    x = random_batch(6, 3, 4, 0).x.detach().to(device.torch).requires_grad_()
    log_probs = x.log_softmax(2) if from_logits else x
    for targets in (torch.zeros(3, 0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)):
        loss = fastctc.ctc_loss(x, targets, [6, 4, 0], [0, 0, 0], 2, "none", from_logits=from_logits)
        expected = [
            -log_probs[:6, 0, 2].sum(),
            -log_probs[:4, 1, 2].sum(),
            torch.zeros((), device=device.torch),
        ]
        torch.testing.assert_close(loss, torch.stack(expected))
        gradients = [
            torch.autograd.grad(each, x, retain_graph=True)[0] for each in (loss.sum(), sum(expected))
        ]
        torch.testing.assert_close(*gradients)
    assert_same(fastctc.ctc_loss(x, targets, [0, 0, 0], [0, 0, 0]), torch.zeros((), device=device.torch))


@from_log_probs_and_logits
def test_no_frames(device: Device, from_logits: bool) -> None:
    x = torch.zeros(0, 2, 3, device=device.torch, requires_grad=True)
    targets = torch.tensor([[1], [1]], device=device.torch)
    loss = fastctc.ctc_loss(x, targets, [0, 0], [0, 1], reduction="none", from_logits=from_logits)
    assert loss.tolist() == [0, INF]
    zeroed = fastctc.ctc_loss(x, targets, [0, 0], [0, 1], zero_infinity=True, from_logits=from_logits)
    assert zeroed == 0
    assert torch.autograd.grad(zeroed, x)[0].shape == (0, 2, 3)


@from_log_probs_and_logits
def test_no_samples(device: Device, from_logits: bool) -> None:
    x = torch.zeros(5, 0, 3, device=device.torch, requires_grad=True)
    for targets in (torch.zeros(0, 4, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)):
        lengths = torch.zeros(0, dtype=torch.int64)
        loss = fastctc.ctc_loss(x, targets, lengths, lengths, reduction="none", from_logits=from_logits)
        assert loss.shape == (0,)
        assert torch.autograd.grad(loss.sum(), x)[0].shape == (5, 0, 3)
        for reduction in ("sum", "mean"):
            assert fastctc.ctc_loss(x, targets, [], [], reduction=reduction, from_logits=from_logits) == 0


# Determinism: bitwise


@pytest.fixture
def varied(device: Device) -> Batch:
    """Five samples of different lengths, with repeats and one that is infeasible."""
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
