"""torch.ops.fastctc: every operator holds to PyTorch's contract, and can be compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import Device, operators, slow
from torch import Tensor

import fastctc
from fastctc import _C
from fastctc.convolution import pack_convolution
from fastctc.ops import LossArguments, SavedLoss
from fastctc.scoring import Lexicon, LexiconScorer, hotwords
from fastctc.scoring.packed import PackedScorer, pack

Arguments = tuple[Any, ...]


def log_probs(device: Device, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return log-probabilities (T, N, C) = (6, 2, 5)."""
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


INFINITE = float("inf")


def beam_search_samples(device: Device) -> list[Arguments]:
    (lengths,) = indices(device, [6, 4])
    samples: list[Arguments] = []
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        x = log_probs(device, dtype).transpose(0, 1)
        samples.append((x, lengths, 10, 1, 0, False, INFINITE, INFINITE, INFINITE))
        samples.append((x, lengths, 33, 20, 4, True, 5.0, 4.0, -0.1))
    return samples


def beam_states(device: Device, beam_size: int) -> tuple[Tensor, Tensor]:
    state = torch.zeros(2, _C.beam_state_bytes(beam_size), dtype=torch.uint8, device=device.torch)
    return state, torch.zeros(2, 20 * beam_size, _C.BEAM_NODE_INTS, dtype=torch.int32, device=device.torch)


def beam_search_advance_samples(device: Device) -> list[Arguments]:
    return [
        (x, lengths, *beam_states(device, beam_size), beam_size, *options)
        for x, lengths, beam_size, _, *options in beam_search_samples(device)
    ]


def beam_search_result_samples(device: Device) -> list[Arguments]:
    samples: list[Arguments] = []
    for arguments in beam_search_advance_samples(device):
        _, _, state, arena, beam_size, *_ = arguments
        torch.ops.fastctc.beam_search_advance(*arguments)
        samples += [(state, arena, beam_size, nbest, 6, nbest == 1) for nbest in (1, beam_size)]
    return samples


def scorers(device: Device) -> list[PackedScorer]:
    """Return an automaton, and a lexicon with a word model and an automaton."""
    hotword = hotwords({(1, 2): 1.0})
    words = LexiconScorer(Lexicon([("a", [1]), ("b", [1, 2]), ("c", [1, 2])]), separator=3, unknown_word=-1.0)
    return [
        pack(hotword.to(device.torch), device.torch),
        pack([words.to(device.torch), hotword.to(device.torch)], device.torch),
    ]


def scored_search_samples(device: Device) -> list[Arguments]:
    return [(*each, *scorer) for each in beam_search_samples(device)[:4] for scorer in scorers(device)]


def scored_search_advance_samples(device: Device) -> list[Arguments]:
    samples: list[Arguments] = []
    for x, lengths, _, arena, beam_size, *options in beam_search_advance_samples(device)[:2]:
        state = torch.zeros(2, _C.beam_state_bytes(beam_size, True), dtype=torch.uint8, device=device.torch)
        samples += [
            (x, lengths, state.clone(), arena.clone(), beam_size, *options, *scorer)
            for scorer in scorers(device)
        ]
    return samples


def scored_search_result_samples(device: Device) -> list[Arguments]:
    samples: list[Arguments] = []
    for arguments in scored_search_advance_samples(device):
        _, _, state, arena, beam_size, *_ = arguments
        torch.ops.fastctc.scored_search_advance(*arguments)
        samples += [(state, arena, beam_size, nbest, 6, False, *arguments[-3:]) for nbest in (1, beam_size)]
    return samples


CPU_ONLY = {
    "convolution", "convolution_weights", "normalization", "normalization_grad", "pack_convolution",
}  # fmt: skip


def pack_convolution_samples(device: Device) -> list[Arguments]:
    shapes = [(16, 3, 3), (16, 1, 5), (16, 1, 1), (1, 3, 3), (1, 5, 5)]
    return [(torch.randn(32, *shape),) for shape in shapes]


def convolution_samples(device: Device) -> list[Arguments]:
    bias, options = torch.randn(32), [[12, 5], 1, True, False]
    packed = [pack_convolution(weight) for (weight,) in pack_convolution_samples(device)]
    images = torch.randn(2, 16, 6, 12).contiguous(memory_format=torch.channels_last)
    gray = images[:, :1].contiguous(memory_format=torch.channels_last)
    lines = images[:, :, :1].contiguous(memory_format=torch.channels_last)
    return [
        (images, packed[0], bias, *options, 2, 2),
        (images, packed[0], bias, *options, 1, 1),
        (lines, packed[1], bias, [12, 5], 2, False, False, 1, 1),
        (images, packed[2], bias, *options, 1, 1),
        (gray, packed[3], bias, *options, 2, 2),
        (gray, packed[4], bias, *options, 2, 2),
    ]


def convolution_weights_samples(device: Device) -> list[Arguments]:
    input, grad = (torch.randn(2, n, 6, 12).contiguous(memory_format=torch.channels_last) for n in (16, 32))
    return [(input, grad, 3, 3, 1), (input, grad, 1, 5, 2)]


def normalization_samples(device: Device) -> list[Arguments]:
    images, added = (torch.randn(2, 16, n, 12).contiguous(memory_format=torch.channels_last) for n in (6, 3))
    weight, bias = torch.randn(2, 16)
    return [
        (images, weight, bias, [12, 5], 1e-5, 1, 1, images),
        (images, weight, bias, [12, 12], 1e-5, 2, 1, added),
        (images, weight, bias, [12, 5], 1e-5, 2, 2, None),
    ]


def normalization_grad_samples(device: Device) -> list[Arguments]:
    samples: list[Arguments] = []
    for images, weight, bias, *options, _ in normalization_samples(device):
        grad, mean, variance = torch.ops.fastctc.normalization(images, weight, bias, *options, None)
        samples.append((grad, images, weight, bias, mean, variance, *options))
    return samples


# Every operator has its samples here.
SAMPLES: dict[str, Callable[[Device], list[Arguments]]] = {
    "beam_search": beam_search_samples,
    "beam_search_advance": beam_search_advance_samples,
    "beam_search_result": beam_search_result_samples,
    "convolution": convolution_samples,
    "convolution_weights": convolution_weights_samples,
    "ctc_loss": ctc_loss_samples,
    "ctc_loss_backward": ctc_loss_backward_samples,
    "ctc_loss_tangent": ctc_loss_tangent_samples,
    "forced_align": forced_align_samples,
    "greedy_decode": greedy_decode_samples,
    "normalization": normalization_samples,
    "normalization_grad": normalization_grad_samples,
    "pack_convolution": pack_convolution_samples,
    "scored_search": scored_search_samples,
    "scored_search_advance": scored_search_advance_samples,
    "scored_search_result": scored_search_result_samples,
}


def test_every_operator_has_samples() -> None:
    assert set(operators("fastctc")) == set(SAMPLES)


@pytest.mark.usefixtures("emulated_library")
def test_every_operator_is_emulated() -> None:
    assert set(operators("fastctc_emulated")) == set(operators("fastctc")) - CPU_ONLY
    for name in operators("fastctc_emulated"):
        ours, emulated = (
            getattr(getattr(torch.ops, n), name).default for n in ("fastctc", "fastctc_emulated")
        )
        assert str(emulated._schema).removeprefix("fastctc_emulated::") == str(ours._schema).removeprefix(
            "fastctc::"
        )


def test_named_arguments_follow_the_schemas() -> None:
    """The structures are unpacked into the arguments of the ops, so the orders must be equal."""
    assert set(fastctc.ops.ARGUMENTS) == set(operators("fastctc"))
    for name, arguments in fastctc.ops.ARGUMENTS.items():
        schema = getattr(torch.ops.fastctc, name).default._schema
        assert arguments == tuple(each.name for each in schema.arguments)
    assert fastctc.ops.ARGUMENTS["ctc_loss"] == (*LossArguments._fields, "need_grad")
    assert fastctc.ops.ARGUMENTS["ctc_loss_backward"] == ("grad_loss", *SavedLoss._fields)


@pytest.mark.parametrize("samples", [slice(1), *slow(slice(1, None))], ids=["first sample", "other samples"])
@pytest.mark.parametrize("name", SAMPLES)
def test_opcheck(device: Device, name: str, samples: slice) -> None:
    pytest.importorskip("expecttest")  # which PyTorch's checks import
    operator = getattr(torch.ops.fastctc, name).default
    chosen = SAMPLES[name](device)[samples]
    assert chosen
    for arguments in chosen:
        torch.library.opcheck(operator, arguments)


def test_greedy_decode_compiles(device: Device) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(fastctc.greedy_decode, fullgraph=True, backend="aot_eager")
    x = log_probs(device).transpose(0, 1)
    for one, other in zip(compiled(x), fastctc.greedy_decode(x), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("exact_scores", [*slow(False), True], ids=["", "exact_scores"])
@pytest.mark.parametrize("dynamic", [False, *slow(True)], ids=["static", "dynamic"])
def test_beam_search_compiles(device: Device, exact_scores: bool, dynamic: bool) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(fastctc.beam_search, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    options = {"beam_size": 8, "nbest": 3, "exact_scores": exact_scores, "blank_skip": 0.9}
    for frames in (6, 5):
        x = log_probs(device)[:frames].transpose(0, 1)
        result = compiled(x, **options)
        assert type(result) is fastctc.NBestResult
        for one, other in zip(result, fastctc.beam_search(x, **options), strict=True):
            assert torch.equal(one, other)


def test_operators_of_streams_compile(device: Device) -> None:
    """The state is changed in place."""
    torch._dynamo.reset()
    x, lengths, state, arena, beam_size, *options = beam_search_advance_samples(device)[0]
    lengths = torch.full_like(lengths, 2)

    def search(x: Tensor, state: Tensor) -> tuple[Tensor, ...]:
        for chunk in x.split(2, dim=1):
            torch.ops.fastctc.beam_search_advance(chunk, lengths, state, arena, beam_size, *options)
        return torch.ops.fastctc.beam_search_result(state, arena, beam_size, 2, 6, False)

    result = torch.compile(search, fullgraph=True, backend="aot_eager")(x, state)
    assert state.any()
    for one, other in zip(result, fastctc.beam_search(x, nbest=2), strict=True):
        assert torch.equal(one, other)
