"""fastctc.ctc_loss gives what PyTorch's ctc_loss gives, and the values other packages' tests expect.

PyTorch's gradient of log_probs presumes a log-softmax before it, fastctc's does not; so it is the gradients
of the logits that are compared.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import math
from typing import Any

import pytest
import torch
from conftest import Device, slow
from tolerances import assert_gradient_close, assert_loss_close, assert_same
from torch import Tensor
from torch.nn import functional as F

import fastctc

dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
reductions = pytest.mark.parametrize("reduction", ["none", "sum", "mean"])


def check_against_torch(logits: Tensor, *arguments: Any, **options: Any) -> None:
    """Losses and gradients of the logits, by both forms of fastctc's; torch's in float64 on the CPU."""
    expected_logits = logits.detach().double().cpu().requires_grad_()
    on_cpu = [each.cpu() if isinstance(each, Tensor) else each for each in arguments]
    expected = F.ctc_loss(expected_logits.log_softmax(-1), *on_cpu, **options)
    (expected_grad,) = torch.autograd.grad(expected.sum(), expected_logits)

    logits = logits.detach().requires_grad_()
    for loss in (
        fastctc.ctc_loss(logits.log_softmax(-1), *arguments, **options),
        fastctc.ctc_loss(logits, *arguments, **options, from_logits=True),
    ):
        assert_loss_close(loss, expected, logits.dtype)
        (grad,) = torch.autograd.grad(loss.sum(), logits)
        assert_gradient_close(grad, expected_grad, logits.dtype)


def random_logits(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def random_targets(*shape: int, num_classes: int, seed: int = 0) -> Tensor:
    return torch.randint(1, num_classes, shape, generator=torch.Generator().manual_seed(seed))


# PyTorch's own samples


@functools.cache
def operator_samples(dtype: torch.dtype) -> list[Any]:
    common = pytest.importorskip("torch.testing._internal.common_methods_invocations")
    (info,) = (info for info in common.op_db if info.name == "nn.functional.ctc_loss")
    torch.manual_seed(0)
    return list(info.sample_inputs("cpu", dtype, requires_grad=False))


@pytest.mark.slow
@dtypes
def test_samples_of_the_operator(device: Device, dtype: torch.dtype) -> None:
    samples = operator_samples(dtype)
    assert len(samples) >= 12
    for sample in samples:
        arguments = [each.to(device.torch) if isinstance(each, Tensor) else each for each in sample.args]
        check_against_torch(sample.input.to(device.torch), *arguments, **sample.kwargs)


@functools.cache
def module_samples(dtype: torch.dtype) -> list[Any]:
    common = pytest.importorskip("torch.testing._internal.common_modules")
    (info,) = (info for info in common.module_db if info.module_cls is torch.nn.CTCLoss)
    torch.manual_seed(0)
    return info.module_inputs_func(info, device="cpu", dtype=dtype, requires_grad=False, training=True)


@pytest.mark.slow_emulated
@pytest.mark.parametrize("dtype", [torch.float32, *slow(torch.float64)], ids=str)
def test_samples_of_the_module(device: Device, dtype: torch.dtype) -> None:
    samples = module_samples(dtype)
    assert len(samples) >= 40
    for sample in samples:
        options = sample.constructor_input.kwargs
        log_probs, *rest = sample.forward_input.args
        arguments = [each.to(device.torch) if isinstance(each, Tensor) else each for each in rest]
        module = fastctc.CTCLoss(**options)
        expected = torch.nn.CTCLoss(**options)(log_probs.double(), *rest)
        assert_loss_close(module(log_probs.to(device.torch), *arguments), expected, dtype)
        check_against_torch(log_probs.to(device.torch), *arguments, **options)


def test_same_signature_as_torch() -> None:
    """A module of PyTorch's may be swapped for one of fastctc's, arguments by position included."""
    ours = list(inspect.signature(fastctc.ctc_loss).parameters.values())
    theirs = list(inspect.signature(F.ctc_loss).parameters.values())
    assert [(p.name, p.default) for p in ours[: len(theirs)]] == [(p.name, p.default) for p in theirs]
    assert all(p.kind == p.KEYWORD_ONLY for p in ours[len(theirs) :])
    ours = list(inspect.signature(fastctc.CTCLoss).parameters.values())
    assert [(p.name, p.default) for p in ours[:3]] == [
        ("blank", 0),
        ("reduction", "mean"),
        ("zero_infinity", False),
    ]


# PyTorch's tests, test_nn.py: CTCLoss_*


@pytest.mark.parametrize("which", [1, 2])
def test_typechecks(device: Device, which: int) -> None:
    lengths: list[Tensor] = [torch.tensor([50, 50, 50]), torch.tensor([30, 25, 20])]
    lengths[which - 1] = lengths[which - 1].float()
    targets = random_targets(75, num_classes=15).to(device.torch)
    name = ("input_lengths", "target_lengths")[which - 1]
    with pytest.raises(TypeError, match=rf"{name} must be an integer tensor, got torch\.float32"):
        fastctc.ctc_loss(random_logits(50, 3, 15).to(device.torch), targets, *lengths)


def test_length_checks_of_targets(device: Device) -> None:
    """29 columns for 30 labels."""
    targets = random_targets(3, 29, num_classes=15)
    if device.runs_cuda_kernels:
        pytest.skip("checked on the device, see test_ctc_loss_errors.py")
    with pytest.raises(ValueError, match=r"target_lengths\[0\] is 30"):
        fastctc.ctc_loss(random_logits(50, 3, 15), targets, [50, 50, 50], [30, 25, 20])


def test_length_checks_of_inputs(device: Device) -> None:
    """40 frames for an input length of 50."""
    if device.runs_cuda_kernels:
        pytest.skip("checked on the device, see test_ctc_loss_errors.py")
    targets = random_targets(75, num_classes=15)
    with pytest.raises(ValueError, match=r"input_lengths\[0\] is 50"):
        fastctc.ctc_loss(random_logits(40, 3, 15), targets, [50, 50, 50], [30, 25, 20])


@pytest.mark.large
@pytest.mark.slow
@reductions
def test_long_targets(device: Device, reduction: str) -> None:
    targets = random_targets(2, 1200, num_classes=3).to(device.torch)
    logits = random_logits(4000, 2, 3).to(device.torch)
    check_against_torch(logits, targets, [4000, 4000], [1200, 1150], reduction=reduction)


@pytest.mark.slow_emulated
@dtypes
def test_critical_target_length(device: Device, dtype: torch.dtype) -> None:
    """256 labels in 500 frames: once the limit of a block of CUDA threads."""
    targets = random_targets(1, 256, num_classes=10).int().to(device.torch)
    logits = random_logits(500, 1, 10, dtype=dtype).to(device.torch)
    lengths = torch.tensor([500], dtype=torch.int32), torch.tensor([256], dtype=torch.int32)
    check_against_torch(logits, targets, *lengths, reduction="sum")


@reductions
def test_empty_target(device: Device, reduction: str) -> None:
    logits = random_logits(50, 3, 15).to(device.torch)
    for target_lengths in ([0, 0, 0], [0, 9, 0]):
        targets = random_targets(sum(target_lengths), num_classes=15).to(device.torch)
        check_against_torch(logits, targets, [50, 50, 50], target_lengths, reduction=reduction)


def test_zero_input_lengths(device: Device) -> None:
    logits = random_logits(16, 3, 12).to(device.torch)
    targets = random_targets(3, 5, num_classes=12).to(device.torch)
    lengths = torch.tensor([16, 0, 0]), torch.tensor([5, 5, 0])
    loss = fastctc.ctc_loss(logits, targets, *lengths, reduction="none", from_logits=True)
    assert loss[1:].tolist() == [math.inf, 0.0]
    alone = fastctc.ctc_loss(logits[:, :1], targets[:1], [16], [5], reduction="none", from_logits=True)
    assert_same(loss[0], alone[0])


@reductions
@pytest.mark.parametrize("zero_infinity", [False, True])
def test_zero_infinity(device: Device, reduction: str, zero_infinity: bool) -> None:
    """60 labels in 50 frames. Without zero_infinity torch's gradient is NaN there, so only losses compare."""
    logits = random_logits(50, 3, 15).to(device.torch).requires_grad_()
    targets = random_targets(60 + 25 + 20, num_classes=15).to(device.torch)
    arguments = targets, [50, 50, 50], [60, 25, 20]
    options: dict[str, Any] = {"reduction": reduction, "zero_infinity": zero_infinity}
    loss = fastctc.ctc_loss(logits, *arguments, **options, from_logits=True)
    expected = F.ctc_loss(logits.double().log_softmax(2).cpu(), targets.cpu(), *arguments[1:], **options)
    assert_loss_close(loss, expected, torch.float32)
    assert torch.autograd.grad(loss.sum(), logits)[0].isfinite().all()
    if zero_infinity:
        check_against_torch(logits, *arguments, **options)


@reductions
@dtypes
def test_no_batch_dimension(device: Device, reduction: str, dtype: torch.dtype) -> None:
    logits = random_logits(40, 3, dtype=dtype).to(device.torch)
    targets = random_targets(12, num_classes=3).to(device.torch)
    check_against_torch(logits, targets, torch.tensor(40), torch.tensor(12), reduction=reduction)
    check_against_torch(logits, targets.int(), torch.tensor([40]), torch.tensor([12]), reduction=reduction)


@dtypes
def test_blank_anywhere(device: Device, dtype: torch.dtype) -> None:
    logits = random_logits(30, 2, 6, dtype=dtype).to(device.torch)
    for blank, index_dtype in itertools.product((0, 3, 5), (torch.int32, torch.int64)):
        targets = random_targets(2, 9, num_classes=6).to(index_dtype)
        targets = (targets + blank) % 6
        check_against_torch(logits, targets.to(device.torch), [30, 28], [9, 7], blank=blank, reduction="none")


# Values from other packages' tests

# Alex Graves' implementation, by way of TensorFlow's ctc_loss_op_test; blank is class 5. (T, N, C)
GRAVES_PROBABILITIES = [
    [
        [0.633766, 0.221185, 0.0917319, 0.0129757, 0.0142857, 0.0260553],
        [0.30176, 0.28562, 0.0831517, 0.0862751, 0.0816851, 0.161508],
    ],
    [
        [0.111121, 0.588392, 0.278779, 0.0055756, 0.00569609, 0.010436],
        [0.24082, 0.397533, 0.0557226, 0.0546814, 0.0557528, 0.19549],
    ],
    [
        [0.0357786, 0.633813, 0.321418, 0.00249248, 0.00272882, 0.0037688],
        [0.230246, 0.450868, 0.0389607, 0.038309, 0.0391602, 0.202456],
    ],
    [
        [0.0663296, 0.643849, 0.280111, 0.00283995, 0.0035545, 0.00331533],
        [0.280884, 0.429522, 0.0326593, 0.0339046, 0.0326856, 0.190345],
    ],
    [
        [0.458235, 0.396634, 0.123377, 0.00648837, 0.00903441, 0.00623107],
        [0.423286, 0.315517, 0.0338439, 0.0393744, 0.0339315, 0.154046],
    ],
]
GRAVES_LOSSES = [3.34211, 5.42262]
# Of the logits, by frame and sample.
GRAVES_GRADIENTS = {
    (0, 0): [-0.366234, 0.221185, 0.0917319, 0.0129757, 0.0142857, 0.0260553],
    (1, 0): [0.111121, -0.411608, 0.278779, 0.0055756, 0.00569609, 0.010436],
    (2, 0): [0.0357786, 0.633813, -0.678582, 0.00249248, 0.00272882, 0.0037688],
    (3, 0): [0.0663296, -0.356151, 0.280111, 0.00283995, 0.0035545, 0.00331533],
    (4, 0): [-0.541765, 0.396634, 0.123377, 0.00648837, 0.00903441, 0.00623107],
    (0, 1): [-0.69824, 0.28562, 0.0831517, 0.0862751, 0.0816851, 0.161508],
    (1, 1): [0.24082, -0.602467, 0.0557226, 0.0546814, 0.0557528, 0.19549],
    (2, 1): [0.230246, 0.450868, 0.0389607, 0.038309, 0.0391602, -0.797544],
    (3, 1): [0.280884, -0.570478, 0.0326593, 0.0339046, 0.0326856, 0.190345],
    (4, 1): [-0.576714, 0.315517, 0.0338439, 0.0393744, 0.0339315, 0.154046],
}


def test_values_of_graves(device: Device) -> None:
    """With two more frames of NaN, as in TensorFlow's test."""
    logits = torch.tensor(GRAVES_PROBABILITIES).log()
    logits = F.pad(logits, (0, 0, 0, 0, 0, 2), value=math.nan).to(device.torch).requires_grad_()
    targets = torch.tensor([[0, 1, 2, 1, 0], [0, 1, 1, 0, -1]], device=device.torch)
    loss = fastctc.ctc_loss(logits, targets, [5, 5], [5, 4], blank=5, reduction="none", from_logits=True)
    assert loss.tolist() == pytest.approx(GRAVES_LOSSES, abs=1e-5)
    grad = torch.autograd.grad(loss.sum(), logits)[0]
    for (t, n), expected in GRAVES_GRADIENTS.items():
        assert grad[t, n].tolist() == pytest.approx(expected, abs=2e-6)
    assert (grad[5:] == 0).all()


def test_values_of_warp_ctc(device: Device) -> None:
    """Its small test: two labels in two frames, so P is the product of two softmax entries."""
    logits = torch.tensor([[[0.1, 0.6, 0.1, 0.1, 0.1]], [[0.1, 0.1, 0.6, 0.1, 0.1]]], device=device.torch)
    targets = torch.tensor([[1, 2]], device=device.torch)
    loss = fastctc.ctc_loss(logits, targets, [2], [2], reduction="sum", from_logits=True)
    p = math.exp(0.6) / (math.exp(0.6) + 4 * math.exp(0.1))
    assert loss.item() == pytest.approx(-2 * math.log(p), rel=1e-6)


def test_masked_label_of_warp_ctc(device: Device) -> None:
    """Its inf test: a label of the target at -1e30 in every frame. A huge or infinite loss, and no NaN."""
    logits = random_logits(50, 1, 15)
    logits[:, :, 2] = -1e30
    targets = random_targets(1, 10, num_classes=15)
    targets[0, 0] = 2
    logits = logits.to(device.torch).requires_grad_()
    loss = fastctc.ctc_loss(logits, targets.to(device.torch), [50], [10], reduction="sum", from_logits=True)
    assert loss.item() >= 1e30
    assert torch.autograd.grad(loss, logits)[0].isfinite().all()


# Tests of other packages whose targets hold the blank


@pytest.mark.parametrize(
    ("targets", "target_lengths"),
    [
        ([[1, 0, -1, -1], [2, 1, 1, -1]], [2, 3]),
        ([[2, 1, 2, 2], [3, 2, 2, 2]], [2, 3]),  # the first label of the second sample is the blank
    ],
    ids=["no blank", "blank"],
)
@pytest.mark.parametrize("targets_dtype", [torch.int64, torch.int32])
def test_values_of_mxnet(
    device: Device, targets: list[list[int]], target_lengths: list[int], targets_dtype: torch.dtype
) -> None:
    """Gluon's test of CTCLoss: uniform scores of four classes in 20 frames, the blank is the last class."""
    logits = torch.ones(20, 2, 4, device=device.torch)
    loss = fastctc.ctc_loss(
        logits,
        torch.tensor(targets, dtype=targets_dtype, device=device.torch),
        torch.tensor([20, 20]),
        target_lengths,
        blank=3,
        reduction="none",
        from_logits=True,
    )
    torch.testing.assert_close(loss.cpu(), torch.tensor([18.82820702, 16.50581741]), rtol=1e-6, atol=0)


def not_blank_at_the_end(targets: Tensor, lengths: Tensor, blank: int) -> None:
    """Where the last label is the blank, PyTorch's gradient is wrong: see test_ctc_loss_blank_labels.py."""
    last = torch.arange(len(lengths)), lengths - 1
    targets[last] = torch.where(targets[last] == blank, 1, targets[last])


@pytest.mark.parametrize("blank", [0, 5])
@reductions
def test_random_targets_of_tensorflow(device: Device, reduction: str, blank: int) -> None:
    """Its dense tests: labels of any class, and what is beyond a target is 0."""
    targets = torch.randint(0, 6, (8, 5), generator=torch.Generator().manual_seed(5))
    lengths = torch.tensor([2, 3, 4, 5, 4, 3, 2, 5])
    not_blank_at_the_end(targets, lengths, blank)
    targets = targets * (torch.arange(5) < lengths[:, None])
    assert (targets == blank).any()
    logits = random_logits(12, 8, 6, seed=5).to(device.torch)
    frames = torch.full((8,), 12)
    check_against_torch(logits, targets.to(device.torch), frames, lengths, blank=blank, reduction=reduction)


@reductions
def test_random_targets_of_espnet(device: Device, reduction: str) -> None:
    """Its tests of the CTC module: random targets with the blank 0 among them, one sample shorter."""
    targets = torch.randint(0, 10, (2, 5), generator=torch.Generator().manual_seed(1))
    targets[0, 1] = targets[1, 2] = 0
    not_blank_at_the_end(targets, torch.tensor([5, 4]), 0)
    logits = random_logits(10, 2, 10, seed=1).to(device.torch)
    check_against_torch(logits, targets.to(device.torch), [10, 8], [5, 4], reduction=reduction)


@reductions
def test_concatenated_targets_of_any_class(device: Device, reduction: str) -> None:
    """PyTorch's CTCLoss tests with targets that are drawn from all classes."""
    targets = torch.randint(0, 15, (30 + 25 + 20,), generator=torch.Generator().manual_seed(0))
    assert (targets == 0).any()
    targets[[29, 54, 74]] = 1
    logits = random_logits(100, 3, 15).to(device.torch)
    lengths = torch.tensor([100, 95, 90]), torch.tensor([30, 25, 20])
    check_against_torch(logits, targets.to(device.torch), *lengths, reduction=reduction, zero_infinity=True)
