"""Calls without PyTorch's dispatcher: the same results as of the ops, and only where nothing can notice."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import fastctc
from fastctc import direct

FRAMES, SAMPLES, CLASSES, LABELS = 30, 7, 11, 5
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def batch(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(3)
    x = torch.randn(FRAMES, SAMPLES, CLASSES, generator=g, dtype=torch.float64).log_softmax(2).to(dtype)
    targets = torch.randint(1, CLASSES, (SAMPLES, LABELS), generator=g)
    input_lengths = torch.randint(2, FRAMES + 1, (SAMPLES,), generator=g)  # one is too short for its target
    return x, targets, input_lengths, torch.randint(0, LABELS + 1, (SAMPLES,), generator=g)


def loss_and_gradient(x: Tensor, *arguments: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    loss = fastctc.ctc_loss(x, *arguments, **options)
    (gradient,) = torch.autograd.grad(loss.sum(), x)
    return loss.detach(), gradient


CALLS: dict[str, Callable[..., Any]] = {
    "loss": lambda x, *rest: (fastctc.ctc_loss(x, *rest, reduction="none"),),
    "gradient": lambda *batch: loss_and_gradient(*batch, reduction="none"),
    "gradient of logits": lambda *batch: loss_and_gradient(
        *batch, reduction="mean", from_logits=True, zero_infinity=True
    )[1:],
    "gradient with options": lambda *batch: loss_and_gradient(
        *batch, reduction="sum", label_priors=torch.arange(CLASSES) / 10, star=CLASSES, delay_penalty=0.1
    )[1:],
    "greedy": lambda x, _, lengths, __: fastctc.greedy_decode(x, lengths, time_major=True),
    "beam": lambda x, _, lengths, __: fastctc.beam_search(x, lengths, time_major=True, nbest=3),
    "alignment": lambda x, *rest: fastctc.forced_align(x, *rest, time_major=True),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_same_bits_as_the_ops(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    found = CALLS[name](*batch(dtype))
    monkeypatch.setattr(direct, "enabled", False)
    expected = CALLS[name](*batch(dtype))
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype and torch.equal(a.nan_to_num(-1, 1e4), b.nan_to_num(-1, 1e4))


def test_the_interfaces_of_pytorch_are_there() -> None:
    """They are private. Without them every call works, but takes longer."""
    assert direct.enabled and direct.applies(*batch())


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
@pytest.mark.parametrize("reduction", ("mean", "sum"))
def test_sums_are_rounded_once(reduction: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    x, targets, input_lengths, target_lengths = (
        torch.cat([part] * 60, 1 if part.dim() == 3 else 0) for part in batch(dtype)
    )
    x = x * (1 + torch.arange(x.shape[1], dtype=dtype)[:, None])  # losses of many sizes
    arguments = x, targets, input_lengths, target_lengths
    losses = fastctc.ctc_loss(*arguments, reduction="none", zero_infinity=True).tolist()
    if reduction == "mean":
        losses = [loss / max(1, length) for loss, length in zip(losses, target_lengths.tolist(), strict=True)]
    expected = math.fsum(losses) / (len(losses) if reduction == "mean" else 1)
    found = fastctc.ctc_loss(*arguments, reduction=reduction, zero_infinity=True)
    assert found.item() == torch.tensor(expected, dtype=dtype).item()
    monkeypatch.setattr(direct, "enabled", False)
    assert fastctc.ctc_loss(*arguments, reduction=reduction, zero_infinity=True).item() == pytest.approx(
        expected, rel=torch.finfo(dtype).eps
    )


def test_sums_of_infinity_and_of_nothing() -> None:
    x, targets, input_lengths, target_lengths = batch()
    target_lengths[0], input_lengths[0] = LABELS, 1
    for reduction in ("mean", "sum"):
        assert fastctc.ctc_loss(x, targets, input_lengths, target_lengths, reduction=reduction) == math.inf
        nothing = (x[:, :0], targets[:0], input_lengths[:0], target_lengths[:0])
        assert fastctc.ctc_loss(*nothing, reduction=reduction) == 0
        assert loss_and_gradient(*nothing, reduction=reduction)[1].shape == (FRAMES, 0, CLASSES)


class Ops(TorchDispatchMode):
    """Record the names of the ops."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_a_dispatch_mode_sees_the_ops() -> None:
    with Ops() as ops:
        loss_and_gradient(*batch())
    assert {"fastctc.ctc_loss.default", "fastctc.ctc_loss_backward.default"} <= set(ops.names)


def test_a_profiler_sees_the_ops() -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        loss_and_gradient(*batch())
    assert {"fastctc::ctc_loss", "fastctc::ctc_loss_backward"} <= {
        each.key for each in profile.key_averages()
    }


def test_a_change_of_the_input_before_the_backward_pass_is_found() -> None:
    x, *rest = batch()
    x.requires_grad_()
    y = x * 1
    loss = fastctc.ctc_loss(y, *rest)
    with torch.no_grad():
        y.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


class Subclass(Tensor):
    """A tensor that may mean anything."""


NOT_PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "subclass": lambda x: x.as_subclass(Subclass),
    "negative view": torch._neg_view,
    "meta": lambda x: x.to("meta"),
    "zero": lambda x: torch._efficientzerotensor(x.shape),
    "sparse": lambda x: x.to_sparse(),
}


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_it_does_not_apply_to(name: str) -> None:
    x, *rest = batch()
    assert not direct.applies(NOT_PLAIN[name](x), *rest)


def test_values_of_a_negative_view() -> None:
    x, *rest = batch()
    assert torch.equal(fastctc.ctc_loss(torch._neg_view(-x), *rest), fastctc.ctc_loss(x, *rest))


def test_inside_a_transform_it_does_not_apply() -> None:
    x, *rest = batch()
    seen: list[bool] = []

    def loss(x: Tensor) -> Tensor:
        seen.append(direct.applies(x, *rest))
        return fastctc.ctc_loss(x, *rest)

    torch.func.vmap(loss)(x[None])
    torch.func.grad(loss)(x)
    assert seen == [False, False]


def test_hooks_of_saved_tensors_are_called() -> None:
    packed: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        packed.append(tensor)
        return tensor.clone()

    expected = loss_and_gradient(*batch())[1]
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        found = loss_and_gradient(*batch())[1]
    assert packed and torch.equal(found, expected)


def test_results_in_inference_mode() -> None:
    expected = fastctc.ctc_loss(*batch())
    with torch.inference_mode():
        loss = fastctc.ctc_loss(*batch())
        assert loss.is_inference() and direct.applies(*batch())
    assert torch.equal(loss, expected)


def test_two_backward_passes_and_released_memory() -> None:
    x, *rest = batch()
    x.requires_grad_()
    loss = fastctc.ctc_loss(x, *rest, zero_infinity=True)
    first, second = (torch.autograd.grad(loss, x, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    torch.autograd.grad(loss, x)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, x)


@pytest.mark.parametrize("form", [list, tuple])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_lists_of_lengths_give_the_bits_of_tensors(form: type, reduction: str) -> None:
    x, targets, *lengths = batch()
    lists = [form(each.tolist()) for each in lengths]
    assert torch.equal(
        fastctc.ctc_loss(x, targets, *lists, reduction=reduction),
        fastctc.ctc_loss(x, targets, *lengths, reduction=reduction),
    )
    of_lists = loss_and_gradient(x, targets, *lists, reduction=reduction, zero_infinity=True)
    of_tensors = loss_and_gradient(x, targets, *lengths, reduction=reduction, zero_infinity=True)
    for a, b in zip(of_lists, of_tensors, strict=True):
        assert torch.equal(a, b)


def test_lists_that_change_after_the_loss_do_not_change_its_derivatives() -> None:
    x, targets, *lengths = batch(torch.float64)
    derivatives = []
    for given in (lengths, [each.tolist() for each in lengths]):
        y = x.clone().requires_grad_()
        loss = fastctc.ctc_loss(y, targets, *given, reduction="sum", zero_infinity=True)
        if isinstance(given[0], list):
            for each in given:
                each[:] = [1] * (SAMPLES + 1)
        (gradient,) = torch.autograd.grad(loss, y, create_graph=True)
        (second,) = torch.autograd.grad(gradient.square().sum(), y)
        derivatives.append((gradient.detach(), second))
    for a, b in zip(*derivatives, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("length", [True, 2.0, 1 << 63, -(1 << 70), "2", None], ids=repr)
@pytest.mark.parametrize("grad", [False, True])
def test_lists_of_other_than_ints_give_the_result_or_the_error_of_the_checks(
    length: object, grad: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def outcome() -> object:
        x = batch()[0][:, :2].clone().requires_grad_(grad)
        try:
            return fastctc.ctc_loss(x, torch.tensor([[1, 2], [3, 4]]), [5, 5], [1, length]).item()  # type: ignore[list-item]
        except (OverflowError, RuntimeError, TypeError, ValueError) as error:
            return type(error), str(error)

    found = outcome()
    monkeypatch.setattr(direct, "enabled", False)
    assert found == outcome()
