"""torch.ops.fastctc: every operator holds to PyTorch's contract, and can be compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import Device, operators
from torch import Tensor

import fastctc

Arguments = tuple[Any, ...]


def log_probs(device: Device, dtype: torch.dtype = torch.float32) -> Tensor:
    """(T, N, C) = (6, 2, 5)"""
    x = torch.randn(6, 2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x.log_softmax(2).to(dtype).to(device.torch)


def indices(device: Device, *values: list[int]) -> list[Tensor]:
    return [torch.tensor(each, device=device.torch) for each in values]


def ctc_loss_samples(device: Device) -> list[Arguments]:
    padded = indices(device, [[1, 2, 2], [3, 0, 0]], [6, 5], [3, 1])
    concatenated = indices(device, [1, 2, 2, 3], [6, 5], [3, 1])
    with_star = indices(device, [[1, 5, 2], [5, 0, 0]], [6, 5], [3, 1])
    samples: list[Arguments] = []
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        scalar = torch.float64 if dtype == torch.float64 else torch.float32
        bias = torch.linspace(-1, 1, 5, dtype=scalar, device=device.torch)
        for from_logits in (False, True):
            x = log_probs(device, dtype)
            samples.append((x.clone().requires_grad_(), *padded, None, 3, 0, -1, 0.0, from_logits, True))
            samples.append((x.clone().requires_grad_(), *with_star, bias, 3, 0, 5, 0.1, from_logits, True))
            samples.append((x, *concatenated, bias, 3, 4, -1, 0.1, from_logits, False))
    batch_first = log_probs(device).transpose(0, 1).contiguous().transpose(0, 1)
    samples.append((batch_first.requires_grad_(), *padded, None, 3, 0, -1, 0.0, True, True))
    return samples


def ctc_loss_backward_samples(device: Device) -> list[Arguments]:
    samples: list[Arguments] = []
    for forward in ctc_loss_samples(device):
        x, *labels, class_bias, _, blank, star, delay_penalty, from_logits, need_grad = forward
        if need_grad:
            with torch.no_grad():
                loss, *saved = torch.ops.fastctc.ctc_loss(*forward)
            options = class_bias, blank, star, delay_penalty, from_logits
            for requires_grad in (False, True):
                inputs = [torch.ones_like(loss), x.detach()]
                inputs = [each.requires_grad_(requires_grad) for each in inputs]
                samples.append((*inputs, *labels, *saved, *options))
    return samples


def ctc_loss_tangent_samples(device: Device) -> list[Arguments]:
    samples: list[Arguments] = []
    for x, *others, from_logits, _ in ctc_loss_samples(device):
        tangent = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(device.torch)
        tangent = tangent.double() if x.dtype == torch.float64 else tangent
        samples.append((x.detach(), tangent, *others, from_logits))
    return samples


def greedy_decode_samples(device: Device) -> list[Arguments]:
    (lengths,) = indices(device, [6, 4])
    batch_first = log_probs(device).transpose(0, 1)
    return [
        (x, lengths, blank, fused)
        for x in (batch_first, batch_first.half())
        for blank, fused in [(0, False), (4, True)]
    ]


def forced_align_samples(device: Device) -> list[Arguments]:
    padded = indices(device, [[1, 2, 2], [3, 0, 0]], [6, 5], [3, 1])
    concatenated = indices(device, [1, 2, 2, 3], [6, 5], [3, 1])
    with_star = indices(device, [[1, 5, 2], [5, 0, 0]], [6, 5], [3, 1])
    samples: list[Arguments] = []
    for dtype in (torch.float32, torch.float64, torch.float16):
        for from_logits in (False, True):
            x = log_probs(device, dtype)
            samples.append((x, *padded, 3, 0, -1, from_logits))
            samples.append((x, *concatenated, 3, 4, -1, from_logits))
            samples.append((x, *with_star, 3, 0, 5, from_logits))
    return samples


# Every operator has its samples here.
SAMPLES: dict[str, Callable[[Device], list[Arguments]]] = {
    "ctc_loss": ctc_loss_samples,
    "ctc_loss_backward": ctc_loss_backward_samples,
    "ctc_loss_tangent": ctc_loss_tangent_samples,
    "forced_align": forced_align_samples,
    "greedy_decode": greedy_decode_samples,
}


def test_every_operator_has_samples() -> None:
    assert set(operators("fastctc")) == set(SAMPLES)


@pytest.mark.usefixtures("emulated_library")
def test_every_operator_is_emulated() -> None:
    assert set(operators("fastctc_emulated")) == set(operators("fastctc"))
    for name in operators("fastctc"):
        ours, emulated = (
            getattr(getattr(torch.ops, n), name).default for n in ("fastctc", "fastctc_emulated")
        )
        assert str(emulated._schema).removeprefix("fastctc_emulated::") == str(ours._schema).removeprefix(
            "fastctc::"
        )


@pytest.mark.parametrize("name", SAMPLES)
def test_opcheck(device: Device, name: str) -> None:
    operator = getattr(torch.ops.fastctc, name).default
    for arguments in SAMPLES[name](device):
        torch.library.opcheck(operator, arguments)


def test_greedy_decode_compiles(device: Device) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(fastctc.greedy_decode, fullgraph=True, backend="aot_eager")
    x = log_probs(device).transpose(0, 1)
    for one, other in zip(compiled(x), fastctc.greedy_decode(x), strict=True):
        assert torch.equal(one, other)
