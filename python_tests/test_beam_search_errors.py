"""Errors of fastctc.beam_search and BeamSearchDecoder: argument, expectation and value."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from beams import INF, NAN, random_log_probs
from conftest import Device, require_cuda

import fastctc
from fastctc import BeamSearchDecoder

NODE_INTS = fastctc.ops._C.BEAM_NODE_INTS

OPTIONS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "beam_size 0": ({"beam_size": 0}, ValueError, "beam_size is 0, but must be at least 1"),
    "beam_size float": ({"beam_size": 5.0}, TypeError, "beam_size must be an int, got float"),
    "beam_size bool": ({"beam_size": True}, TypeError, "beam_size must be an int, got bool"),
    "nbest 0": ({"nbest": 0}, ValueError, "nbest is 0, but must be at least 1"),
    "nbest bool": ({"nbest": True}, TypeError, "nbest must be an int, got bool"),
    "nbest too large": ({"beam_size": 4, "nbest": 5}, ValueError, "nbest is 5, but beam_size is only 4"),
    "blank float": ({"blank": 0.0}, TypeError, "blank must be an int, got float"),
    "blank negative": ({"blank": -1}, ValueError, "blank is -1"),
    "beam_threshold negative": (
        {"beam_threshold": -1.0},
        ValueError,
        r"beam_threshold is -1\.0, but must be",
    ),
    "beam_threshold NaN": ({"beam_threshold": NAN}, ValueError, "beam_threshold is nan"),
    "beam_threshold str": ({"beam_threshold": "5"}, TypeError, "beam_threshold must be a number, got str"),
    "token_threshold negative": (
        {"token_threshold": -0.1},
        ValueError,
        r"token_threshold is -0\.1, .* at least 0",
    ),
    "token_threshold NaN": ({"token_threshold": NAN}, ValueError, "token_threshold is nan"),
    "token_threshold bool": (
        {"token_threshold": True},
        TypeError,
        "token_threshold must be a number, got bool",
    ),
    "blank_skip 0": (
        {"blank_skip": 0.0},
        ValueError,
        r"blank_skip is 0\.0, but must be a probability above 0",
    ),
    "blank_skip percent": ({"blank_skip": 95}, ValueError, "blank_skip is 95, .* at most 1"),
    "blank_skip NaN": ({"blank_skip": NAN}, ValueError, "blank_skip is nan"),
    "blank_skip bool": ({"blank_skip": True}, TypeError, "blank_skip must be a number, got bool"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options(device: Device, name: str) -> None:
    options, exception, message = OPTIONS[name]
    with pytest.raises(exception, match=message):
        fastctc.beam_search(torch.zeros(2, 3, 4, device=device.torch).log_softmax(2), **options)
    with pytest.raises(exception, match=message):
        BeamSearchDecoder(2, device=device.torch, **options)


INPUTS: dict[str, tuple[Any, dict[str, Any], type[Exception], str]] = {
    "list": ([[0.0]], {}, TypeError, "log_probs must be a tensor, got list"),
    "integers": (torch.zeros(2, 8, 3).long(), {}, TypeError, r"log_probs must be .*float.* torch\.int64"),
    "one dimension": (torch.zeros(3), {}, ValueError, "log_probs must have 2 or 3 dimensions, got 1"),
    "blank": (torch.zeros(2, 8, 3), {"blank": 3}, ValueError, "blank is 3, but log_probs has 3 classes"),
    "float lengths": (
        torch.zeros(2, 8, 3),
        {"input_lengths": torch.tensor([1.0, 2.0])},
        TypeError,
        r"input_lengths must be .*integer.* torch\.float32",
    ),
    "bool lengths": (
        torch.zeros(2, 8, 3),
        {"input_lengths": [True, 8]},
        TypeError,
        r"input_lengths\[0\] must be an int, got bool",
    ),
    "number of lengths": (
        torch.zeros(2, 8, 3),
        {"input_lengths": [8]},
        ValueError,
        "input_lengths has 1 values, but log_probs has a batch of 2",
    ),
    "length of one": (
        torch.zeros(8, 3),
        {"input_lengths": [8, 8]},
        ValueError,
        "input_lengths has 2 values, but log_probs has a batch of 1",
    ),
}


@pytest.mark.parametrize("name", INPUTS)
def test_inputs(device: Device, name: str) -> None:
    x, options, exception, message = INPUTS[name]
    x = x.to(device.torch) if isinstance(x, torch.Tensor) else x
    with pytest.raises(exception, match=message):
        fastctc.beam_search(x, **options)
    streams = x.shape[0] if isinstance(x, torch.Tensor) and x.dim() == 3 else 1
    decoder = BeamSearchDecoder(streams, blank=options.get("blank", 0), device=device.torch)
    with pytest.raises(exception, match=message):
        decoder.push(x, options.get("input_lengths"))


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([8, 9], r"input_lengths\[1\] is 9, but log_probs has 8 frames"),
        ([-1, 8], r"input_lengths\[0\] is -1, but must not be negative"),
    ],
    ids=["too large", "negative"],
)
def test_wrong_lengths(device: Device, lengths: list[int], message: str) -> None:
    """The CPU raises an exception; the CUDA kernels find nothing and make the scores NaN."""
    x = random_log_probs(2, 8, 3).to(device.torch)
    if not device.runs_cuda_kernels:
        with pytest.raises(ValueError, match=message):
            fastctc.beam_search(x, lengths)
        return
    result = fastctc.beam_search(x, torch.tensor(lengths, device=device.torch), nbest=2)
    wrong, right = (0, 1) if lengths[0] < 0 else (1, 0)
    assert result.scores[wrong].isnan().all()
    assert result.lengths[wrong].tolist() == [0, 0]
    assert (result.tokens[wrong] == -1).all()
    for one, other in zip(result, fastctc.beam_search(x, nbest=2), strict=True):
        assert torch.equal(one[right], other[right])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("position", [0, 2, 4])
def test_positive_log_probs(device: Device, dtype: torch.dtype, position: int) -> None:
    """The error names the place and the remedy; the CUDA kernels make the scores NaN."""
    x = random_log_probs(3, 9, 5, dtype=dtype)
    x[1, 7, position] = 0.8125
    x[1, 8] = 3.0
    x[2, 6:] = 5.0  # padding
    right = random_log_probs(3, 9, 5, dtype=dtype).to(device.torch)
    x = x.to(device.torch)
    layouts = [(x, False), (x.transpose(0, 1), True), (x.transpose(1, 2).contiguous().transpose(1, 2), False)]
    for input, time_major in layouts:
        if device.runs_cuda_kernels:
            result = fastctc.beam_search(input, [9, 9, 6], nbest=2, time_major=time_major)
            assert result.scores[1].isnan().all()
            for one, other in zip(result, fastctc.beam_search(right, [9, 9, 6], nbest=2), strict=True):
                assert torch.equal(one[::2], other[::2])
            continue
        message = (
            rf"log_probs\[1, 7, {position}\] \(sample, frame, class\) is 0\.8125, but natural-log probabilities are"
            r" at most 0 \(for logits pass from_logits=True, for probabilities their log\(\)\)"
        )
        with pytest.raises(ValueError, match=message):
            fastctc.beam_search(input, [9, 9, 6], time_major=time_major)


@pytest.mark.parametrize("beam_size", [1, 4, 40])
@pytest.mark.parametrize("classes", [2, 40, 700])
def test_positive_anywhere(device: Device, beam_size: int, classes: int) -> None:
    """The error does not depend on the beam, its cuts and skipped blanks."""
    for c in {0, 1, classes // 2, classes - 1}:
        for options in ({}, {"blank_skip": 0.01}, {"token_threshold": 0.5}, {"beam_threshold": 0.1}):
            x = random_log_probs(1, 6, classes, dtype=torch.float32).to(device.torch)
            x[0, 5, c] = 0.5
            if device.runs_cuda_kernels:
                assert fastctc.beam_search(x, beam_size=beam_size, **options).scores.isnan().all()
                continue
            with pytest.raises(ValueError, match=rf"log_probs\[0, 5, {c}\]"):
                fastctc.beam_search(x, beam_size=beam_size, **options)


def test_rounded_log_probs_may_exceed_zero(device: Device) -> None:
    x = random_log_probs(1, 6, 3).to(device.torch)
    x[0, 2] = torch.tensor([-INF, 0.009, -INF])
    assert fastctc.beam_search(x).scores.isfinite().all()
    logits = 100 * random_log_probs(1, 6, 3).to(device.torch) + 500
    assert fastctc.beam_search(logits, from_logits=True).scores.isfinite().all()


def test_probabilities_by_mistake() -> None:
    with pytest.raises(ValueError, match=r"log_probs\[0, 0, \d\] .*for probabilities their log\(\)"):
        fastctc.beam_search(random_log_probs(10, 4).exp())


def test_too_large_to_number(device: Device) -> None:
    x = torch.zeros(1, 1, 2, device=device.torch).expand(1, 1 << 21, 2)
    with pytest.raises(
        ValueError, match=r"log_probs has 2097152 frames and beam_size is 1024, .* less than 2\^31"
    ):
        fastctc.beam_search(x, beam_size=1024)
    if device.runs_cuda_kernels:
        with pytest.raises(ValueError, match="beam_size is 1025, but must be at most 1024 on CUDA"):
            fastctc.beam_search(x[:, :3], beam_size=1025)
    with pytest.raises(ValueError, match=r"beam_size is 1099511627776, but must be at most \d+"):
        fastctc.beam_search(x[:, :0], beam_size=1 << 40)


def test_debugging_raises_on_cuda() -> None:
    require_cuda()
    x = random_log_probs(2, 9, 5).cuda()
    x[1, 3, 2] = 0.5
    decoder = BeamSearchDecoder(2, device="cuda")
    fastctc.debug(True)
    try:
        with pytest.raises(ValueError, match=r"log_probs\[1, 3, 2\]"):
            fastctc.beam_search(x)
        with pytest.raises(ValueError, match=r"log_probs\[1, 3, 2\]"):
            decoder.push(x)
        with pytest.raises(ValueError, match=r"input_lengths\[0\] is 10"):
            fastctc.beam_search(x, torch.tensor([10, 3], device="cuda"))
        assert decoder.frames.tolist() == [0, 0]
        decoder.push(x[:, :3])
        assert torch.equal(decoder.result().scores, fastctc.beam_search(x[:, :3]).scores)
        x[1, 2, 2] = NAN
        assert fastctc.beam_search(x[:, :3]).scores.isnan().any()
    finally:
        fastctc.debug(False)


# ---- of the decoder


def test_decoder_options(device: Device) -> None:
    for streams, exception in ((0, ValueError), (-1, ValueError), (True, TypeError), (2.0, TypeError)):
        with pytest.raises(exception, match="num_streams"):
            BeamSearchDecoder(streams)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="blank must be an int, got bool"):
        BeamSearchDecoder(blank=False, device=device.torch)


def test_decoder_chunks_must_fit(device: Device) -> None:
    decoder = BeamSearchDecoder(2, device=device.torch)
    decoder.push(torch.zeros(2, 3, 5, device=device.torch).log_softmax(2))
    for chunk, exception, message in [
        (torch.zeros(3, 2, 5), ValueError, "log_probs has a batch of 3, but there are 2 streams"),
        (torch.zeros(2, 3, 4), ValueError, "log_probs has 4 classes, but had 5 before"),
        (torch.zeros(2, 3, 5).double(), TypeError, r"type torch\.float64, but was of torch\.float32 before"),
        (torch.zeros(3, 5), ValueError, "log_probs has a batch of 1, but there are 2 streams"),
    ]:
        with pytest.raises(exception, match=message):
            decoder.push(chunk.to(device.torch))
    with pytest.raises(ValueError, match="log_probs is on meta, but the decoder is on"):
        decoder.push(torch.zeros(2, 3, 5, device="meta"))
    assert decoder.frames.tolist() == [3, 3]


@pytest.mark.parametrize(
    ("streams", "exception", "message"),
    [
        (2, ValueError, "streams has 2, but there are 2"),
        ([0, -1], ValueError, "streams has -1, but there are 2"),
        (torch.tensor([5]), ValueError, "streams has 5, but there are 2"),
        (torch.tensor([True]), ValueError, r"streams has shape \(1,\), but there are 2"),
        (torch.tensor([0.0]), TypeError, r"streams must be indices, got torch\.float32"),
    ],
    ids=str,
)
def test_decoder_reset(streams: object, exception: type[Exception], message: str) -> None:
    decoder = BeamSearchDecoder(2)
    decoder.push(random_log_probs(2, 4, 5))
    with pytest.raises(exception, match=message):
        decoder.reset(streams)  # type: ignore[arg-type]
    assert decoder.frames.tolist() == [4, 4]


def test_decoder_runs_out_of_numbers(device: Device) -> None:
    decoder = BeamSearchDecoder(1, beam_size=1024, device=device.torch)
    with pytest.raises(ValueError, match=r"2097152 frames and beam_size is 1024, .*2\^31: reset it"):
        decoder.push(torch.zeros(1, 1, 2, device=device.torch).expand(1, 1 << 21, 2))


# ---- of the ops, which other code may call too


def test_ops_refuse_what_does_not_belong_together(device: Device) -> None:
    ops = torch.ops.fastctc
    x, lengths = random_log_probs(2, 4, 5).to(device.torch), torch.tensor([4, 4], device=device.torch)
    state = torch.zeros(2, fastctc.ops._C.beam_state_bytes(10), dtype=torch.uint8, device=device.torch)
    arena = torch.zeros(2, 40, NODE_INTS, dtype=torch.int32, device=device.torch)
    options = 10, 0, False, math.inf, math.inf, math.inf
    shifted = torch.zeros(state.numel() + 8, dtype=torch.uint8, device=device.torch)[8:].view_as(state)
    for wrong_state, wrong_arena, message in [
        (state[:, :-1], arena, r"state must be \(N, \d+\) of type uint8 for a beam_size of 10"),
        (state.to(torch.int8), arena, "state must be"),
        (state[:1], arena[:1], "state has 1 samples, but log_probs has a batch of 2"),
        (shifted, arena, "state must be 64-byte aligned"),
        (state, arena[:1], r"arena must be \(N, capacity, 8\) of type int32, where state has N = 2"),
        (state, arena.float(), "arena must be"),
        (state, arena[:, ::2], "arena must be contiguous"),
    ]:
        with pytest.raises(ValueError, match=message):
            ops.beam_search_advance(x, lengths, wrong_state, wrong_arena, *options)
    with pytest.raises(ValueError, match="nbest is 11, but beam_size is only 10"):
        ops.beam_search_result(state, arena, 10, 11, 4, False)
    with pytest.raises(ValueError, match="max_length is -1"):
        ops.beam_search_result(state, arena, 10, 1, -1, False)
    with pytest.raises(ValueError, match="input must have 3 dimensions"):
        ops.beam_search(x[0], lengths, 10, 1, *options[1:])
    with pytest.raises(ValueError, match="blank is 5, but log_probs has 5 classes"):
        ops.beam_search(x, lengths, 10, 1, 5, *options[2:])


def test_ops_never_leave_an_arena_or_a_result(device: Device) -> None:
    """With too little room the CPU raises an exception; the CUDA kernels make the scores NaN."""
    ops = torch.ops.fastctc
    x, lengths = random_log_probs(2, 4, 5).to(device.torch), torch.tensor([4, 1], device=device.torch)
    state = torch.zeros(2, fastctc.ops._C.beam_state_bytes(10), dtype=torch.uint8, device=device.torch)
    arena = torch.zeros(2, 39, NODE_INTS, dtype=torch.int32, device=device.torch)
    options = 10, 0, False, math.inf, math.inf, math.inf
    if device.runs_cuda_kernels:
        ops.beam_search_advance(x, lengths, state, arena, *options)
        scores = ops.beam_search_result(state, arena, 10, 1, 4, False)[2]
        assert scores.isnan().flatten().tolist() == [True, False]
        return
    with pytest.raises(ValueError, match=r"sample 0 cannot go on.* no room for 4 more frames"):
        ops.beam_search_advance(x, lengths, state, arena, *options)
    with pytest.raises(ValueError, match="max_length is 0, but sample 1 has 1 frames"):
        ops.beam_search_result(state, arena, 10, 1, 0, False)
