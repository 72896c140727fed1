"""Products with the Hessian of the loss, by each public way of PyTorch to them.

Some of them differentiate the second derivative by its direction, in which it is linear. None needs a third
derivative by the input. Where one is asked for, an exception is raised.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from batches import from_log_probs_and_logits
from conftest import Device
from tolerances import assert_gradient_close
from torch import Tensor
from torch.autograd import functional
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap

import fastctc
from fastctc.reference import ctc_loss_reference

Loss = Callable[[Tensor], Tensor]
TARGETS = torch.tensor([[1, 2, 2], [0, 3, 4]])  # of the blank 0
LENGTHS = torch.tensor([7, 6]), torch.tensor([3, 2])


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loss_of(function: Callable[..., Tensor], device: Device | None, from_logits: bool) -> Loss:
    targets = TARGETS if device is None else TARGETS.to(device.torch)

    def loss(x: Tensor) -> Tensor:
        return function(x, targets, *LENGTHS, reduction="sum", from_logits=from_logits)

    return loss


def r_operator(loss: Loss, x: Tensor, v: Tensor) -> Tensor:
    """The derivative of (u -> H u) in the direction v: what BackPACK and functorch's predecessors call R-op."""
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(x), x, create_graph=True)
    u = torch.zeros_like(gradient, requires_grad=True)
    (product,) = torch.autograd.grad(gradient, x, u, create_graph=True)
    return torch.autograd.grad(product, u, v)[0]


def double_backward(loss: Loss, x: Tensor, v: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(x), x, create_graph=True)
    return torch.autograd.grad(gradient, x, v)[0]


def batched_double_backward(loss: Loss, x: Tensor, v: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(x), x, create_graph=True)
    return torch.autograd.grad(gradient, x, torch.stack([v, -v]), is_grads_batched=True)[0][0]


def through_a_parameter(loss: Loss, x: Tensor, v: Tensor) -> Tensor:
    """As optimizers do it that take a module's parameters."""
    module = torch.nn.Module()
    module.weight = torch.nn.Parameter(x.clone())
    module.forward = lambda: loss(module.weight)  # type: ignore[method-assign]

    def of_parameters(parameters: dict[str, Tensor]) -> Tensor:
        return functional_call(module, parameters, ())

    return jvp(grad(of_parameters), ({"weight": x},), ({"weight": v},))[1]["weight"]


WAYS: dict[str, Callable[[Loss, Tensor, Tensor], Tensor]] = {
    "functional.hvp": lambda f, x, v: functional.hvp(f, x, v)[1],
    "functional.vhp": lambda f, x, v: functional.vhp(f, x, v)[1],
    "functional.hvp, create_graph": lambda f, x, v: functional.hvp(f, x, v, create_graph=True)[1],
    "functional.vhp, create_graph": lambda f, x, v: functional.vhp(f, x, v, create_graph=True)[1],
    "functional.hvp, strict": lambda f, x, v: functional.hvp(f, x, v, strict=True)[1],
    "functional.vhp, strict": lambda f, x, v: functional.vhp(f, x, v, strict=True)[1],
    "functional.jvp of a gradient": lambda f, x, v: functional.jvp(
        lambda y: torch.autograd.grad(f(y), y, create_graph=True)[0], x, v
    )[1],
    "functional.vjp of a gradient": lambda f, x, v: functional.vjp(
        lambda y: torch.autograd.grad(f(y), y, create_graph=True)[0], x, v
    )[1],
    "R-op": r_operator,
    "double backward": double_backward,
    "batched double backward": batched_double_backward,
    "func.jvp of grad": lambda f, x, v: jvp(grad(f), (x,), (v,))[1],
    "func.vjp of grad": lambda f, x, v: vjp(grad(f), x)[1](v)[0],
    "func.grad of jvp": lambda f, x, v: grad(lambda y: jvp(f, (y,), (v,))[1])(x),
    "func.grad of a product": lambda f, x, v: grad(lambda y: (grad(f)(y) * v).sum())(x),
    "func.linearize of grad": lambda f, x, v: linearize(grad(f), x)[1](v),
    "vmap of jvp of grad": lambda f, x, v: vmap(lambda d: jvp(grad(f), (x,), (d,))[1])(torch.stack([-v, v]))[
        1
    ],
    "vmap of vjp of grad": lambda f, x, v: vmap(lambda d: vjp(grad(f), x)[1](d)[0])(torch.stack([-v, v]))[1],
    "functional_call": through_a_parameter,
}
HESSIANS: dict[str, Callable[[Loss, Tensor], Any]] = {
    "functional.hessian": functional.hessian,
    "functional.hessian, vectorized": lambda f, x: functional.hessian(f, x, vectorize=True),
    "functional.hessian, forward mode": lambda f, x: functional.hessian(
        f, x, vectorize=True, outer_jacobian_strategy="forward-mode"
    ),
    "functional.hessian, create_graph": lambda f, x: functional.hessian(f, x, create_graph=True).detach(),
    "func.hessian": lambda f, x: hessian(f)(x),
    "func.jacrev of jacrev": lambda f, x: jacrev(jacrev(f))(x),
    "func.jacrev of jacfwd": lambda f, x: jacrev(jacfwd(f))(x),
}


@pytest.mark.slow_emulated
@from_log_probs_and_logits
@pytest.mark.parametrize("way", WAYS)
def test_products_with_the_hessian(device: Device, way: str, from_logits: bool) -> None:
    x, v = randn(7, 2, 5), randn(7, 2, 5, seed=1)
    expected = double_backward(loss_of(ctc_loss_reference, None, from_logits), x, v)
    loss = loss_of(fastctc.ctc_loss, device, from_logits)
    found = WAYS[way](loss, x.to(device.torch), v.to(device.torch))
    assert_gradient_close(found, expected, torch.float64)


@pytest.mark.slow_emulated
@pytest.mark.parametrize("way", HESSIANS)
def test_hessians(device: Device, way: str) -> None:
    x = randn(7, 2, 5)
    expected = functional.hessian(loss_of(ctc_loss_reference, None, True), x)
    found = HESSIANS[way](loss_of(fastctc.ctc_loss, device, True), x.to(device.torch))
    assert_gradient_close(found, expected, torch.float64)


@pytest.mark.slow_emulated
@from_log_probs_and_logits
def test_derivatives_of_the_second_derivative(device: Device, from_logits: bool) -> None:
    """By the direction and by the weights of the losses, once and twice."""
    x = randn(5, 2, 4).to(device.torch).requires_grad_()
    targets = torch.tensor([[1, 2], [3, 0]], device=device.torch)
    loss = fastctc.ctc_loss(x, targets, [5, 4], [2, 2], reduction="none", from_logits=from_logits)

    def product(direction: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
        (gradient,) = torch.autograd.grad(loss, x, weights, create_graph=True)
        return torch.autograd.grad(gradient, (x, weights), direction, create_graph=True)

    arguments = randn(5, 2, 4, seed=1).to(device.torch), randn(2, seed=2).to(device.torch)
    arguments = tuple(each.requires_grad_() for each in arguments)
    assert torch.autograd.gradcheck(product, arguments)
    assert torch.autograd.gradgradcheck(product, arguments)


THIRD: dict[str, Callable[[Loss, Tensor, Tensor], object]] = {
    "backward": lambda f, x, v: (
        functional.vhp(f, x.requires_grad_(), v, create_graph=True)[1].sum().backward()
    ),
    "func.grad": lambda f, x, v: grad(lambda y: vjp(grad(f), y)[1](v)[0].sum())(x),
    "func.jvp": lambda f, x, v: jvp(lambda y: vjp(grad(f), y)[1](v)[0], (x,), (v,)),
    "func.hessian of grad": lambda f, x, v: hessian(lambda y: (grad(f)(y) * v).sum())(x),
}


@pytest.mark.parametrize("way", THIRD)
def test_there_is_no_third_derivative(device: Device, way: str) -> None:
    x, v = randn(7, 2, 5).to(device.torch), randn(7, 2, 5, seed=1).to(device.torch)
    with pytest.raises(NotImplementedError, match=r"fastctc\.ctc_loss has no third derivative"):
        THIRD[way](loss_of(fastctc.ctc_loss, device, True), x, v)
