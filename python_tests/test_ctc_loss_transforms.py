"""fastctc.ctc_loss under torch.func, forward-mode AD, torch.compile, torch.export and autocast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from batches import Batch, arguments, from_log_probs_and_logits, random_batch
from conftest import Device, slow
from tolerances import assert_gradient_close, assert_loss_close
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap

import fastctc

Loss = Callable[..., Tensor]
ALL_OPTIONS: dict[str, Any] = {
    "focal_gamma": 1.5,
    "label_priors": torch.linspace(-1.5, -0.5, 5),
    "blank_penalty": 0.4,
    "delay_penalty": 0.1,
    "star": 5,
    "zero_infinity": True,
}


@pytest.fixture
def groups(device: Device) -> list[Tensor]:
    """Return three batches of two as one: (3, T, N, C) = (3, 7, 2, 5) in float64, their targets and lengths."""
    batch = random_batch(7, 6, 5, 3)
    x = batch.x.detach().double().reshape(7, 3, 2, 5).transpose(0, 1)
    targets = batch.targets.reshape(3, 2, 3)
    targets[1, 0] = 2
    frames = torch.tensor([[7, 6], [5, 7], [4, 7]])
    lengths = torch.tensor([[3, 2], [2, 3], [1, 0]])
    return [each.to(device.torch) for each in (x, targets, frames, lengths)]


@pytest.fixture(params=[False, True], ids=["log_probs", "logits"])
def loss(request: pytest.FixtureRequest) -> Loss:
    """Return the losses, one per sample."""

    def compute(x: Tensor, *labels: Tensor) -> Tensor:
        return fastctc.ctc_loss(x, *labels, reduction="none", from_logits=request.param)

    return compute


def in_turn(function: Callable[..., Tensor], *groups: Tensor) -> Tensor:
    """Return what vmap computes, by a loop."""
    return torch.stack([function(*group) for group in zip(*groups, strict=True)])


def total(loss: Loss) -> Loss:
    return lambda *args: loss(*args).sum()


def gradient_of(loss: Loss) -> Callable[..., Tensor]:
    def compute(x: Tensor, *labels: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        return torch.autograd.grad(loss(x, *labels).sum(), x)[0]

    return compute


# vmap


def test_vmap(groups: list[Tensor], loss: Loss) -> None:
    expected = in_turn(loss, *groups)
    torch.testing.assert_close(vmap(loss)(*groups), expected)
    moved = groups[0].movedim(0, 3), groups[1].movedim(0, 1), *groups[2:]
    torch.testing.assert_close(vmap(loss, in_dims=(3, 1, 0, 0))(*moved), expected)


def test_vmap_over_some_arguments(groups: list[Tensor], loss: Loss) -> None:
    for mapped in range(1, 2**4 - 1):
        in_dims = tuple(0 if mapped >> i & 1 else None for i in range(4))
        some = [each if dim == 0 else each[1] for each, dim in zip(groups, in_dims, strict=True)]
        every = [
            each if dim == 0 else each[1].expand_as(each) for each, dim in zip(groups, in_dims, strict=True)
        ]
        torch.testing.assert_close(vmap(loss, in_dims=in_dims)(*some), in_turn(loss, *every))


def test_vmap_over_single_samples(groups: list[Tensor], loss: Loss) -> None:
    singles = groups[0][:, :, 0], *(each[:, 0] for each in groups[1:])
    torch.testing.assert_close(vmap(loss)(*singles), in_turn(loss, *groups)[:, 0])


def test_vmap_of_vmap(groups: list[Tensor], loss: Loss) -> None:
    nested = vmap(vmap(loss, in_dims=(1, 0, 0, 0)))
    torch.testing.assert_close(nested(*groups), in_turn(loss, *groups))


def test_vmap_with_all_options(groups: list[Tensor]) -> None:
    options = ALL_OPTIONS | {"label_priors": ALL_OPTIONS["label_priors"].to(groups[0].device)}
    for reduction in ("none", "sum", "mean"):

        def loss(*args: Tensor, reduction: str = reduction) -> Tensor:
            return fastctc.ctc_loss(*args, reduction=reduction, **options)

        torch.testing.assert_close(vmap(loss)(*groups), in_turn(loss, *groups))
        torch.testing.assert_close(vmap(grad(total(loss)))(*groups), in_turn(gradient_of(loss), *groups))


def test_vmap_is_one_call_of_the_op(groups: list[Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    op = fastctc.ops.ctc_loss

    def counted(*args: Any) -> Any:
        if not torch._C._functorch.is_functorch_wrapped_tensor(args[0]):
            calls.append(args[0].shape)
        return op(*args)

    monkeypatch.setattr(fastctc.ops, "ctc_loss", counted)
    vmap(fastctc.ctc_loss)(*groups)
    assert calls == [(7, 6, 5)]


def test_vmap_over_concatenated_targets(groups: list[Tensor], loss: Loss) -> None:
    """Concatenated targets can be repeated. Mapped over, they would be found at the wrong places."""
    concatenated = groups[1][0].reshape(-1)
    lengths = torch.full_like(groups[2][0], 7), torch.full_like(groups[3][0], 3)
    expected = in_turn(lambda x: loss(x, concatenated, *lengths), groups[0])
    mapped = vmap(loss, in_dims=(0, None, None, None))
    torch.testing.assert_close(mapped(groups[0], concatenated, *lengths), expected)
    with pytest.raises(ValueError, match=r"vmap over targets .* needs padded targets"):
        vmap(loss)(groups[0], groups[1].flatten(1), *groups[2:])


def test_vmap_over_priors_is_refused(groups: list[Tensor]) -> None:
    def loss(priors: Tensor) -> Tensor:
        return fastctc.ctc_loss(*(each[0] for each in groups), label_priors=priors)

    with pytest.raises(ValueError, match="vmap over label_priors is not supported"):
        vmap(loss)(torch.zeros(3, 5, dtype=torch.float64, device=groups[0].device))


# Derivatives


def test_gradients(groups: list[Tensor], loss: Loss) -> None:
    expected = in_turn(gradient_of(loss), *groups)
    torch.testing.assert_close(vmap(grad(total(loss)))(*groups), expected)
    one = [each[1] for each in groups]
    torch.testing.assert_close(grad(total(loss))(*one), expected[1])
    torch.testing.assert_close(jacrev(loss)(*one).sum(0), expected[1])
    torch.testing.assert_close(jacfwd(loss)(*one), jacrev(loss)(*one))
    torch.testing.assert_close(vmap(jacrev(loss))(*groups).sum(1), expected)


def test_tangent_is_gradient_times_direction(groups: list[Tensor], loss: Loss) -> None:
    direction = torch.linspace(-1, 1, groups[0].numel(), dtype=torch.float64).reshape(groups[0].shape)
    direction = direction.to(groups[0])
    expected = (in_turn(gradient_of(loss), *groups) * direction).sum((1, 3))

    def tangent(x: Tensor, direction: Tensor, *labels: Tensor) -> Tensor:
        return jvp(lambda x: loss(x, *labels), (x,), (direction,))[1]

    torch.testing.assert_close(vmap(tangent)(groups[0], direction, *groups[1:]), expected)
    one, *labels = (each[1] for each in groups)
    torch.testing.assert_close(tangent(one, direction[1], *labels), expected[1])
    for requires_grad in (False, True):
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(one.detach().requires_grad_(requires_grad), direction[1])
            primal, result = forward_ad.unpack_dual(loss(dual, *labels))
        torch.testing.assert_close(primal, loss(one, *labels))
        assert result is not None
        torch.testing.assert_close(result, expected[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_tangent_in_other_dtypes(groups: list[Tensor], dtype: torch.dtype) -> None:
    x, *labels = (each[0] for each in groups)
    x = x.to(dtype)

    def loss(x: Tensor) -> Tensor:
        return fastctc.ctc_loss(x, *labels, reduction="sum", from_logits=True)

    _, tangent = jvp(loss, (x,), (torch.ones_like(x) * x,))
    assert tangent.dtype == torch.float32
    expected = (gradient_of(lambda x: loss(x))(x).double() * x.double()).sum()
    assert_loss_close(tangent, expected, dtype)


def test_tangent_reads_no_padding(groups: list[Tensor], loss: Loss) -> None:
    """A sample that cannot be aligned has no tangent either. A NaN in use stays in its sample."""
    x, targets, frames, lengths = (each[1] for each in groups)
    x, frames = x.clone(), frames.clone()
    direction = torch.ones_like(x)
    direction[5:, 0] = torch.nan
    _, tangent = jvp(lambda x: loss(x, targets, frames, lengths), (x,), (direction,))
    assert tangent.isfinite().all()
    frames[0] = 1
    _, tangent = jvp(lambda x: loss(x, targets, frames, lengths), (x,), (direction,))
    assert tangent[0] == 0
    x[0, 1] = torch.nan
    _, tangent = jvp(lambda x: loss(x, targets, frames, lengths), (x,), (direction,))
    assert tangent.isnan().tolist() == [False, True]


def test_gradcheck_in_both_modes(groups: list[Tensor], loss: Loss) -> None:
    x, *labels = (each[1] for each in groups)
    torch.autograd.gradcheck(
        lambda x: loss(x, *labels),
        x.detach().requires_grad_(),
        check_forward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=True,
    )


def test_second_derivatives_in_all_orders(groups: list[Tensor], loss: Loss) -> None:
    x, *labels = (each[1] for each in groups)

    def of_sum(x: Tensor) -> Tensor:
        return loss(x, *labels).sum()

    expected = torch.autograd.functional.hessian(of_sum, x)
    for compute in (
        hessian,
        lambda f: jacrev(jacrev(f)),
        lambda f: jacrev(jacfwd(f)),
    ):
        torch.testing.assert_close(compute(of_sum)(x), expected)

    with pytest.raises(NotImplementedError, match="use jacfwd of jacrev"):
        jacfwd(jacfwd(of_sum))(x)

    x = x.detach().requires_grad_()
    direction = torch.ones_like(x) * x.detach()
    with forward_ad.dual_level():  # forward over reverse, by a graph that is not kept
        (gradient,) = torch.autograd.grad(of_sum(forward_ad.make_dual(x, direction)), x)
        change = forward_ad.unpack_dual(gradient).tangent
    assert change is not None
    torch.testing.assert_close(change, torch.tensordot(expected, direction, dims=3))


# torch.compile and torch.export


TARGETS = {
    "padded": ([[1, 2, 2], [3, 0, 0]], torch.tensor([6, 5]), torch.tensor([3, 1])),
    "concatenated": ([1, 2, 2, 3], torch.tensor([6, 5]), torch.tensor([3, 1])),
    "lists": ([[1, 2, 2], [3, 0, 0]], [6, 5], [3, 1]),
}


def same_as_compiled(function: Loss, x: Tensor, *args: Any, backend: str = "aot_eager") -> None:
    """Return value and gradient."""
    torch._dynamo.reset()
    compiled = torch.compile(function, fullgraph=True, backend=backend)
    results = []
    for each in (compiled, function):
        value = each(x, *args)
        results.append((value, torch.autograd.grad(value, x)[0]))
    (value, gradient), (expected_value, expected_gradient) = results
    assert_loss_close(value, expected_value, torch.float32)
    assert_gradient_close(gradient, expected_gradient, torch.float32)


@pytest.mark.parametrize("form", ["padded", *slow("concatenated", "lists")])
@from_log_probs_and_logits
def test_compiles_without_graph_breaks(device: Device, form: str, from_logits: bool) -> None:
    values, *lengths = TARGETS[form]
    targets = torch.tensor(values, device=device.torch)
    lengths = [each.to(device.torch) if isinstance(each, Tensor) else each for each in lengths]
    x = random_batch(6, 2, 5, 0).to(device).x

    def loss(x: Tensor, targets: Tensor) -> Tensor:
        return fastctc.ctc_loss(2 * x, targets, *lengths, from_logits=from_logits) * 3

    same_as_compiled(loss, x, targets)


@pytest.mark.slow
@from_log_probs_and_logits
def test_compiles_with_inductor_and_all_options(device: Device, from_logits: bool) -> None:
    batch = random_batch(6, 2, 5, 3).to(device)
    options = ALL_OPTIONS | {"label_priors": ALL_OPTIONS["label_priors"].to(device.torch)}
    module = fastctc.CTCLoss(from_logits=from_logits, **options)
    lengths = [each.to(device.torch) for each in arguments(batch)[1:]]
    same_as_compiled(module, batch.x, batch.targets, *lengths, backend="inductor")


@pytest.mark.slow_emulated
def test_compiles_once_for_changing_shapes(device: Device) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(fastctc.ctc_loss, fullgraph=True, backend="aot_eager", dynamic=True)
    stance = "default"
    for num_frames, num_samples, length in ((6, 2, 3), (9, 3, 4), (14, 5, 2), (3, 4, 5)):
        batch = random_batch(num_frames, num_samples, 5, length).to(device)
        batch.target_lengths.fill_(2)
        labels = [each.to(device.torch) for each in arguments(batch)]
        with torch.compiler.set_stance(stance):
            result = compiled(batch.x, *labels)
        expected = fastctc.ctc_loss(batch.x, *labels)
        assert_loss_close(result, expected, torch.float32)
        gradients = [torch.autograd.grad(each, batch.x)[0] for each in (result, expected)]
        assert_gradient_close(*gradients, torch.float32)
        stance = "fail_on_recompile"


def test_compiled_vmap(groups: list[Tensor]) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(vmap(fastctc.ctc_loss), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*groups), in_turn(fastctc.ctc_loss, *groups))


@pytest.mark.slow
def test_compiled_forward_mode_is_not_lost(groups: list[Tensor]) -> None:
    """Forward-mode AD is not supported, so it breaks the graph. With fullgraph it raises."""
    x, *labels = (each[1] for each in groups)

    def tangent(x: Tensor) -> Tensor:
        return jvp(lambda x: fastctc.ctc_loss(x, *labels), (x,), (x,))[1]

    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(tangent, backend="aot_eager")(x), tangent(x))
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported, match="forward-mode AD"):
        torch.compile(tangent, backend="aot_eager", fullgraph=True)(x)


@pytest.mark.parametrize("strict", [False, *slow(True)])
@from_log_probs_and_logits
def test_exports_for_any_shape(device: Device, strict: bool, from_logits: bool) -> None:
    """A program that was exported from tensors without gradient has a gradient."""
    module = fastctc.CTCLoss(from_logits=from_logits)
    frames, samples, columns = (torch.export.Dim(name) for name in ("frames", "samples", "columns"))
    shapes = {0: frames, 1: samples}, {0: samples, 1: columns}, {0: samples}, {0: samples}

    def labels(batch: Batch) -> list[Tensor]:
        return [each.to(device.torch) for each in arguments(batch)]

    traced = random_batch(7, 3, 5, 4).to(device)
    inputs = traced.x.detach(), *labels(traced)
    exported = torch.export.export(module, inputs, dynamic_shapes=shapes, strict=strict).module()
    for batch in (traced, random_batch(12, 4, 5, 6).to(device), random_batch(5, 2, 5, 9).to(device)):
        batch.target_lengths.fill_(3)
        results = []
        for function in (exported, module):
            value = function(batch.x, *labels(batch))
            results.append((value, torch.autograd.grad(value, batch.x)[0]))
        (value, gradient), (expected_value, expected_gradient) = results
        assert_loss_close(value, expected_value, torch.float32)
        assert_gradient_close(gradient, expected_gradient, torch.float32)


def test_op_called_without_gradient_has_none(device: Device) -> None:
    batch = random_batch(7, 3, 5, 4).to(device)
    labels = [each.to(device.torch) for each in arguments(batch)]
    loss, *_ = torch.ops.fastctc.ctc_loss(batch.x, *labels, None, 4, 0, -1, 0.0, False, False)
    with pytest.raises(RuntimeError, match="need_grad=False"):
        loss.sum().backward()


# autocast, checkpoints


def test_autocast(device: Device) -> None:
    """Logits of a layer that autocast ran in bfloat16 are taken as they are."""
    layer = torch.nn.Linear(4, 5).to(device.torch)
    batch = random_batch(6, 2, 4, 0).to(device)
    labels = torch.tensor([[1, 2, 2], [3, 0, 0]], device=device.torch), [6, 5], [3, 1]
    with torch.autocast(device.torch.type, dtype=torch.bfloat16):
        logits = layer(batch.x.detach())
        loss = fastctc.ctc_loss(logits, *labels, from_logits=True)
        gamma = fastctc.ctc_posteriors(logits, *labels, from_logits=True)
    assert logits.dtype == torch.bfloat16
    assert loss.dtype == gamma.dtype == torch.float32
    loss.backward()
    assert_loss_close(
        loss, fastctc.ctc_loss(logits.detach().float(), *labels, from_logits=True), torch.float32
    )
    assert layer.weight.grad is not None
    assert layer.weight.grad.isfinite().all()


def test_checkpoints(device: Device) -> None:
    batch = random_batch(6, 2, 5, 3).to(device)
    for reentrant in (False, True):
        again = torch.utils.checkpoint.checkpoint(
            lambda x: fastctc.ctc_loss(x, *arguments(batch)), batch.x, use_reentrant=reentrant
        )
        gradients = [torch.autograd.grad(loss, batch.x)[0] for loss in (batch.loss(),)]
        again.backward()
        assert batch.x.grad is not None
        assert torch.equal(batch.x.grad, gradients[0])
        batch.x.grad = None
