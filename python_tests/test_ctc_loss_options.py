"""Options of fastctc.ctc_loss: focal weights, priors, penalties, stars; against brute force and the reference."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from batches import Batch, arguments, check_against_reference, from_log_probs_and_logits, random_batch
from conftest import Device, slow
from tolerances import TOLERANCES, assert_gradient_close, assert_loss_close, assert_same
from torch import Tensor
from torch.nn import functional as F

import fastctc
from fastctc.reference import brute_force, ctc_loss_reference

pytestmark = pytest.mark.ptx

INF = math.inf
NAN = math.nan
NUM_CLASSES = 4

PRIORS = torch.tensor([0.6, 0.2, 0.15, 0.05]).log()
OPTIONS: dict[str, dict[str, Any]] = {
    "focal": {"focal_gamma": 2.0},
    "focal below 1": {"focal_gamma": 0.5},
    "priors": {"label_priors": PRIORS},
    "blank penalty": {"blank_penalty": 1.5},
    "blank bonus": {"blank_penalty": -0.7},
    "delay penalty": {"delay_penalty": 0.3},
    "delay bonus": {"delay_penalty": -0.4},
    "star": {"star": NUM_CLASSES},
    "star far away": {"star": 1000},
    "star is a class": {"star": 3},
    "all": {
        "focal_gamma": 1.5,
        "label_priors": 0.5 * PRIORS,
        "blank_penalty": 0.4,
        "delay_penalty": 0.1,
        "star": NUM_CLASSES,
    },
}
with_options = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


def on(device: Device, options: dict[str, Any]) -> dict[str, Any]:
    return {k: v.to(device.torch) if isinstance(v, Tensor) else v for k, v in options.items()}


def batch_for(options: dict[str, Any], dtype: torch.dtype = torch.float64) -> Batch:
    """Return five frames, with repeats, and with stars at the start, alone, next to each other and at the end."""
    x = random_batch(5, 5, NUM_CLASSES, 0).x.detach().to(dtype).requires_grad_()
    star = options.get("star", 2)
    targets = torch.tensor([[1, 1, 2], [star, 2, 0], [star, 0, 0], [star, star, 0], [2, 1, star]])
    return Batch(x, targets, torch.tensor([5, 4, 5, 4, 5]), torch.tensor([3, 2, 1, 2, 3]))


def brute_force_with(
    frames: Tensor, targets: list[tuple[int, ...]], blank: int, options: dict[str, Any]
) -> list[tuple[Tensor, Tensor]]:
    """Return log P and posteriors of each target by enumeration: a star is one more class, of probability 1."""
    x = frames.double()
    if "label_priors" in options:
        x = x - options["label_priors"].double()
    x = x - options.get("blank_penalty", 0.0) * F.one_hot(torch.tensor(blank), x.shape[1]).double()
    star, classes = options.get("star"), frames.shape[1]
    if star is not None:
        x = F.pad(x, (0, 1))
        targets = [tuple(classes if label == star else label for label in target) for target in targets]
    paths = brute_force(x, blank, options.get("delay_penalty", 0.0))
    impossible = torch.tensor(-INF).double(), torch.zeros_like(x)
    found = [paths.get(target, impossible) for target in targets]
    return [(log_p, posteriors[:, :classes]) for log_p, posteriors in found]


@with_options
@pytest.mark.parametrize("blank", [0, *slow(2)])
def test_equals_brute_force_on_every_target(device: Device, options: dict[str, Any], blank: int) -> None:
    options = {k: v for k, v in options.items() if k != "focal_gamma"}
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(4, NUM_CLASSES, generator=generator, dtype=torch.float64).log_softmax(1)
    labels = [c for c in range(NUM_CLASSES) if c != blank] + [options.get("star", 1)]
    targets = [t for length in range(4) for t in itertools.product(sorted({*labels}), repeat=length)]
    expected = brute_force_with(frames, targets, blank, options)

    x = frames[:, None].expand(-1, len(targets), -1).to(device.torch).requires_grad_()
    padded = torch.tensor([[*t, *[0] * (3 - len(t))] for t in targets], device=device.torch)
    lengths = [len(t) for t in targets]
    loss = fastctc.ctc_loss(x, padded, [4] * len(targets), lengths, blank, "none", **on(device, options))
    (grad,) = torch.autograd.grad(loss.sum(), x)
    assert_loss_close(loss, -torch.stack([log_p for log_p, _ in expected]), torch.float64)
    assert_gradient_close(grad, -torch.stack([gamma for _, gamma in expected], dim=1), torch.float64)


@with_options
@from_log_probs_and_logits
@pytest.mark.parametrize(
    "dtype", [torch.float32, *slow(torch.float64, torch.float16, torch.bfloat16)], ids=str
)
def test_equals_reference(
    device: Device, options: dict[str, Any], from_logits: bool, dtype: torch.dtype
) -> None:
    batch = batch_for(options, dtype).to(device)
    loss, grad = batch.loss_and_gradient(from_logits=from_logits, **on(device, options))
    expected = batch.reference(from_logits=from_logits, **options)
    assert_loss_close(loss, expected[0], dtype)
    assert_gradient_close(grad, expected[1], dtype, scale=1.0)


@pytest.mark.slow_emulated
@with_options
@from_log_probs_and_logits
@pytest.mark.parametrize("reduction", ["none", *slow("sum", "mean")])
def test_gradcheck(device: Device, options: dict[str, Any], from_logits: bool, reduction: str) -> None:
    batch = batch_for(options).to(device)
    there = on(device, options)

    def loss(x: Tensor) -> Tensor:
        return fastctc.ctc_loss(x, *arguments(batch), 0, reduction, from_logits=from_logits, **there)

    torch.autograd.gradcheck(loss, batch.x)


@pytest.mark.slow_emulated
@with_options
@pytest.mark.parametrize("from_logits", [*slow(False), True], ids=["log_probs", "logits"])
def test_long_samples(device: Device, options: dict[str, Any], from_logits: bool) -> None:
    """Long enough for segments and snapshots, and for the tilt of a delay penalty to leave the range of a float."""
    batch = random_batch(300, 3, NUM_CLASSES, 60, std=2.0)
    batch.targets[:, ::7] = options.get("star", 1)
    batch.input_lengths[1], batch.target_lengths[2] = 170, 41
    batch = batch.to(device)
    loss, grad = batch.loss_and_gradient(from_logits=from_logits, **on(device, options))
    expected = batch.reference(from_logits=from_logits, **options)
    assert_loss_close(loss, expected[0], torch.float32)
    assert_gradient_close(grad, expected[1], torch.float32)


@with_options
@pytest.mark.parametrize("zero_infinity", [False, True])
def test_infeasible_and_masked(device: Device, options: dict[str, Any], zero_infinity: bool) -> None:
    """Too few frames; a masked class the target needs; one it can do without: nothing is NaN."""
    batch = batch_for(options)
    batch.targets = torch.tensor([[1, 1, 2]] * 5)
    batch.input_lengths = torch.tensor([3, 5, 5, 0, 5])
    batch.target_lengths = torch.tensor([3, 3, 3, 0, 2])
    with torch.no_grad():
        batch.x[:, 1, 2] = -INF
        batch.x[:, 2, 3] = -INF
    batch = batch.to(device)
    loss, grad = batch.loss_and_gradient(zero_infinity=zero_infinity, **on(device, options))
    assert loss[:2].tolist() == [0 if zero_infinity else INF] * 2
    assert loss[2:].isfinite().all()
    assert loss[3] == 0
    assert grad.isfinite().all()
    assert (grad[:, [0, 1, 3]] == 0).all()
    mean = torch.autograd.grad(batch.loss(zero_infinity=zero_infinity, **on(device, options)), batch.x)[0]
    assert mean.isfinite().all()


@with_options
def test_nan_stays_in_its_sample(device: Device, options: dict[str, Any]) -> None:
    batch = batch_for(options).to(device)
    expected = batch.loss_and_gradient(**on(device, options))
    with torch.no_grad():
        batch.x[2, 1] = NAN
        batch.x[4:, 3] = NAN  # padding
    loss, grad = batch.loss_and_gradient(**on(device, options))
    others = [0, 2, 3, 4]
    assert loss[1].isnan()
    assert grad[:4, 1].isnan().all()
    assert_same(loss[others], expected[0][others])
    assert_same(grad[:, others], expected[1][:, others])


def test_options_at_their_defaults_change_nothing(device: Device) -> None:
    batch = random_batch(20, 3, 7, 6).to(device)
    for options in (
        {"focal_gamma": 0.0},
        {"label_priors": torch.zeros(7, device=device.torch)},
        {"blank_penalty": 0.0, "delay_penalty": 0.0, "star": None},
        {"star": 7},
    ):
        for each, expected in zip(batch.loss_and_gradient(**options), batch.loss_and_gradient(), strict=True):
            torch.testing.assert_close(each, expected)


# Focal weights


def test_focal_weight_by_hand(device: Device) -> None:
    """As in PaddleOCR: loss * (1 - exp(-loss))^2."""
    batch = random_batch(9, 3, 5, 3).to(device)
    plain = batch.loss(reduction="none", from_logits=True)
    focal = batch.loss(reduction="none", from_logits=True, focal_gamma=2)
    torch.testing.assert_close(focal, plain * (1 - torch.exp(-plain)) ** 2)


@pytest.mark.parametrize("gamma", [1e-3, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("scale", [1.0, 10.0, 20.0, 40.0, 60.0, 100.0, 1e4])
def test_focal_gradient_of_what_is_learned(device: Device, gamma: float, scale: float) -> None:
    """Losses from 1e-1 to exactly 0, where a derivative of (1 - P)^gamma with gamma < 1 is infinite."""
    path = torch.tensor([0, 1, 1, 0, 2])
    logits = (scale * F.one_hot(path, 4)).double().unsqueeze(1).to(device.torch)
    targets = torch.tensor([[1, 2]], device=device.torch)
    for dtype in (torch.float32, torch.float64):
        x = logits.to(dtype).requires_grad_()
        loss = fastctc.ctc_loss(x, targets, [5], [2], from_logits=True, focal_gamma=gamma)
        (grad,) = torch.autograd.grad(loss, x)
        assert 0 <= loss < 1.2
        assert grad.isfinite().all()


# Delay penalty


@pytest.mark.parametrize("frames", [1, 2, 5, 6])
def test_delay_penalty_of_a_single_path(device: Device, frames: int) -> None:
    """One label and all of the probability on one path: its score moves by the delay of the first frame."""
    for first in range(frames):
        log_probs = torch.full((frames, 1, 2), -INF, device=device.torch)
        log_probs[:, 0, 0] = 0.0
        log_probs[first, 0] = torch.tensor([-INF, 0.0])
        loss = fastctc.ctc_loss(
            log_probs, torch.tensor([[1]]), [frames], [1], reduction="sum", delay_penalty=0.25
        )
        assert loss.item() == pytest.approx(-0.25 * ((frames - 1) / 2 - first), abs=1e-6)


def test_delay_penalty_uses_the_length_of_its_sample(device: Device) -> None:
    batch = random_batch(20, 2, 5, 4).to(device)
    batch.input_lengths = torch.tensor([20, 13])
    loss = batch.loss(reduction="none", delay_penalty=0.2)
    alone = fastctc.ctc_loss(batch.x[:13, 1], batch.targets[1], 13, 4, reduction="none", delay_penalty=0.2)
    assert_same(loss[1], alone)


def test_delay_penalty_makes_labels_earlier(device: Device) -> None:
    batch = random_batch(30, 1, 5, 4).to(device)
    frames = torch.arange(30, device=device.torch)
    before = None
    for penalty in (-1.0, -0.1, 0.0, 0.1, 1.0):
        gamma = fastctc.ctc_posteriors(batch.x, *arguments(batch), compact=True, delay_penalty=penalty)[0]
        center = float((gamma[:, 0] * frames).sum() / gamma[:, 0].sum())
        assert before is None or center < before
        before = center


# Priors, blank penalty, star


def test_priors_and_penalty_are_subtracted(device: Device) -> None:
    batch = random_batch(12, 2, NUM_CLASSES, 4).to(device)
    priors = PRIORS.to(device.torch)
    changed = batch.x.detach().log_softmax(2) - priors
    changed[:, :, 0] -= 0.7
    expected = fastctc.ctc_loss(changed, *arguments(batch), reduction="none")
    options = {"label_priors": priors, "blank_penalty": 0.7}
    assert_loss_close(batch.loss(reduction="none", from_logits=True, **options), expected, torch.float32)


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_priors_are_constants_of_any_dtype_and_place(device: Device, dtype: torch.dtype) -> None:
    batch = random_batch(12, 2, NUM_CLASSES, 4).to(device)
    priors = PRIORS.detach().to(dtype, copy=True).requires_grad_()
    loss = batch.loss(label_priors=priors)
    loss.backward()
    assert priors.grad is None
    strided = torch.stack([priors.detach(), PRIORS.to(dtype)], dim=1)[:, 0]
    assert_same(batch.loss(label_priors=strided).detach(), loss.detach())


def test_star_is_a_column_of_zeros(device: Device) -> None:
    batch = random_batch(12, 3, NUM_CLASSES, 4).to(device)
    batch.targets = torch.tensor([[1, 4, 2, 4], [4, 4, 4, 3], [3, 3, 4, 0]], device=device.torch)
    batch.target_lengths = torch.tensor([4, 4, 3])
    log_probs = batch.x.log_softmax(2)
    appended = F.pad(log_probs, (0, 1))
    for options in ({}, {"delay_penalty": 0.3}):
        expected = fastctc.ctc_loss(appended, *arguments(batch), reduction="none", **options)
        (expected_grad,) = torch.autograd.grad(expected.sum(), batch.x, retain_graph=True)
        for x, from_logits in ((log_probs, False), (batch.x, True)):
            loss = fastctc.ctc_loss(
                x, *arguments(batch), reduction="none", from_logits=from_logits, star=4, **options
            )
            assert_loss_close(loss, expected, torch.float32)
            (grad,) = torch.autograd.grad(loss.sum(), batch.x, retain_graph=True)
            assert_gradient_close(grad, expected_grad, torch.float32)


def test_star_takes_the_place_of_a_class(device: Device) -> None:
    """The scores of the class that the star replaces do not matter, not even -inf."""
    batch = random_batch(12, 2, NUM_CLASSES, 4).to(device)
    batch.targets = torch.tensor([[1, 3, 2, 3], [3, 1, 1, 2]], device=device.torch)
    elsewhere = Batch(batch.x, torch.where(batch.targets == 3, 9, batch.targets), *arguments(batch)[1:])
    expected = elsewhere.loss(reduction="none", star=9)
    with torch.no_grad():
        batch.x[:, :, 3] = -INF
    assert_same(batch.loss(reduction="none", star=3), expected)


def test_star_alone_is_certain(device: Device) -> None:
    """T frames of star are one path of score 0; every other path costs its blanks."""
    log_probs = torch.full((6, 1, 3), -50.0, device=device.torch)
    loss = fastctc.ctc_loss(log_probs, torch.tensor([[3]]), [6], [1], star=3)
    assert loss.item() == pytest.approx(0.0, abs=1e-6)


# Errors, and the module


WRONG = {
    "focal_gamma negative": ({"focal_gamma": -1.0}, ValueError, r"focal_gamma is -1\.0, but must not be neg"),
    "focal_gamma a tensor": (
        {"focal_gamma": torch.ones(())},
        TypeError,
        r"focal_gamma must be a number, got T",
    ),
    "focal_gamma nan": ({"focal_gamma": NAN}, ValueError, r"focal_gamma must be finite, got nan"),
    "blank_penalty infinite": ({"blank_penalty": INF}, ValueError, r"blank_penalty must be finite, got inf"),
    "delay_penalty a string": ({"delay_penalty": "1"}, TypeError, r"delay_penalty must be a number, got str"),
    "priors a list": ({"label_priors": [0.0] * 4}, TypeError, r"label_priors must be a .*tensor, got list"),
    "priors of integers": (
        {"label_priors": torch.zeros(4, dtype=torch.int64)},
        TypeError,
        r"label_priors must be a floating-point tensor, got torch\.int64",
    ),
    "priors of another size": (
        {"label_priors": torch.zeros(5)},
        ValueError,
        r"label_priors must have shape \(C\) with C = 4, got \(5,\)",
    ),
    "a prior of probability 0": (
        {"label_priors": torch.tensor([0.5, 0.5, 0.0, 0.0]).log()},
        ValueError,
        r"label_priors must be finite",
    ),
    "star negative": ({"star": -1}, ValueError, r"star is -1, but must not be negative"),
    "star the blank": ({"star": 0}, ValueError, r"star is 0, the blank"),
    "star a float": ({"star": 4.0}, TypeError, r"star must be an int or None, got float"),
    "label beyond the classes that is no star": (
        {"star": 9},
        ValueError,
        r"targets\[2, 0\] is 4, but log_probs",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_options_raise(name: str) -> None:
    options, exception, message = WRONG[name]
    batch = batch_for({})
    batch.targets[2, 0] = 4 if name.startswith("label beyond") else 1
    with pytest.raises(exception, match=message):
        batch.loss(**options)


@with_options
def test_module_has_the_options(device: Device, options: dict[str, Any]) -> None:
    batch = batch_for(options, torch.float32).to(device)
    module = fastctc.CTCLoss(from_logits=True, **options).to(device.torch)
    assert_same(module(batch.x, *arguments(batch)), batch.loss(from_logits=True, **on(device, options)))
    for name in options.keys() - {"label_priors"}:
        assert f"{name}={options[name]}" in repr(module)


def test_reference_gradients_to_second_order() -> None:
    options = OPTIONS["all"]
    batch = batch_for(options)

    def loss(x: Tensor) -> Tensor:
        return ctc_loss_reference(x[:3], *(each[:2] for each in arguments(batch)), **options)

    batch.input_lengths = torch.tensor([3, 3, 3, 3, 3])
    batch.target_lengths = torch.tensor([2, 2, 1, 2, 2])
    x = batch.x.detach()[:, :2].requires_grad_()
    torch.autograd.gradcheck(loss, x)
    torch.autograd.gradgradcheck(loss, x)


def test_options_against_the_reference_on_a_larger_batch(device: Device) -> None:
    batch = random_batch(70, 6, 40, 20, std=3.0).to(device)
    batch.input_lengths = torch.tensor([70, 66, 51, 43, 70, 30])
    batch.target_lengths = torch.tensor([20, 18, 13, 20, 0, 9])
    for from_logits in (False, True):
        check_against_reference(batch, from_logits=from_logits, blank_penalty=0.5, delay_penalty=0.05)
