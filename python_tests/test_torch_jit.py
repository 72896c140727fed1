"""torch.jit.trace of loss and alignment, which works, and torch.jit.script, which raises one clear sentence."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import Device
from torch import Tensor

import fastctc

pytestmark = [
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*not supported.*:DeprecationWarning"),
]


def example(num_frames: int, num_samples: int, length: int, device: Device) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(num_frames)
    x = torch.randn(num_frames, num_samples, 5, generator=generator)
    targets = torch.randint(1, 5, (num_samples, length), generator=generator)
    frames = torch.arange(num_frames, num_frames - num_samples, -1)
    lengths = torch.full((num_samples,), length - 1)
    return tuple(each.to(device.torch) for each in (x, targets, frames, lengths))


class Model(torch.nn.Module):
    """A layer and the loss."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(5, 5)
        self.loss = fastctc.CTCLoss(from_logits=True, zero_infinity=True, **options)

    def forward(self, x: Tensor, targets: Tensor, frames: Tensor, lengths: Tensor) -> Tensor:
        result: Tensor = self.loss(self.layer(x), targets, frames, lengths)
        return result


def saved_and_loaded(traced: Any) -> Any:
    buffer = io.BytesIO()
    torch.jit.save(traced, buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)


@pytest.mark.parametrize("form", ["padded", "concatenated"])
@pytest.mark.parametrize(
    "options",
    [{}, {"star": 4, "delay_penalty": 0.1, "focal_gamma": 2.0, "reduction": "sum"}],
    ids=["plain", "all"],
)
def test_a_traced_loss_takes_other_shapes_and_is_differentiable(
    device: Device, options: dict[str, Any], form: str
) -> None:
    def of_form(arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x, targets, frames, lengths = arguments
        return (x, targets[:, :-1].reshape(-1), frames, lengths) if form == "concatenated" else arguments

    model = Model(**options).to(device.torch)
    traced = saved_and_loaded(torch.jit.trace(model, of_form(example(8, 2, 3, device))))
    for shape in ((8, 2, 3), (12, 3, 5), (5, 1, 2)):
        arguments = of_form(example(*shape, device))
        results = []
        for each in (model, traced):
            loss = each(*arguments)
            results.append([loss.detach(), *torch.autograd.grad(loss, list(each.parameters()))])
        for ours, of_trace in zip(*results, strict=True):
            torch.testing.assert_close(of_trace, ours, rtol=0, atol=0)


def test_a_trace_without_gradients(device: Device) -> None:
    with torch.no_grad():
        traced = torch.jit.trace(fastctc.ctc_loss, example(8, 2, 3, device))
    arguments = example(9, 2, 4, device)
    torch.testing.assert_close(traced(*arguments), fastctc.ctc_loss(*arguments), rtol=0, atol=0)


@pytest.mark.parametrize("function", [fastctc.ctc_posteriors, fastctc.forced_align], ids=lambda f: f.__name__)
def test_traced_alignments_take_other_shapes(device: Device, function: Callable[..., Any]) -> None:
    def call(x: Tensor, *labels: Tensor) -> Any:
        if function is fastctc.forced_align:
            x = x.log_softmax(2).transpose(0, 1)
        return function(x, *labels)

    traced = saved_and_loaded(torch.jit.trace(call, example(8, 2, 3, device)))
    for shape in ((8, 2, 3), (12, 3, 5)):
        arguments = example(*shape, device)
        torch.testing.assert_close(traced(*arguments), call(*arguments), rtol=0, atol=0)


def in_a_function(function: Callable[..., Any]) -> Callable[[], object]:
    def user(x: Tensor, targets: Tensor) -> Tensor:
        return function(x, targets)

    return lambda: torch.jit.script(user)


SCRIPTS: dict[str, tuple[str, Callable[[], object]]] = {
    "the loss": ("ctc_loss", lambda: torch.jit.script(fastctc.ctc_loss)),
    "the module": ("CTCLoss", lambda: torch.jit.script(fastctc.CTCLoss())),
    "a model with it": ("CTCLoss", lambda: torch.jit.script(Model())),
    "the alignment": ("forced_align", lambda: torch.jit.script(fastctc.forced_align)),
    "the posteriors": ("ctc_posteriors", lambda: torch.jit.script(fastctc.ctc_posteriors)),
    "the spans": ("merge_tokens", lambda: torch.jit.script(fastctc.merge_tokens)),
    "a function with the loss": ("ctc_loss", in_a_function(fastctc.ctc_loss)),
    "a function with the alignment": ("forced_align", in_a_function(fastctc.forced_align)),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_raises_one_sentence(name: str) -> None:
    function, script = SCRIPTS[name]
    with pytest.raises(RuntimeError) as caught:
        script()
    expected = f"fastctc.{function} cannot be compiled by torch.jit.script: "
    expected += "use torch.jit.trace, torch.export or torch.compile"
    assert str(caught.value).strip().splitlines()[-1].endswith(expected)
