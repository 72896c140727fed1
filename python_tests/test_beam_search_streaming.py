"""fastctc.BeamSearchDecoder: streams in chunks of any size, equal to the search on all frames at once."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from beams import INF, NAN, assert_equal, assert_well_formed, of_sample, random_log_probs, speech_like
from conftest import Device, slow
from hypothesis import given, settings
from hypothesis import strategies as st

import fastctc
from fastctc import BeamSearchDecoder

OPTIONS = [
    {},
    {"beam_size": 33, "nbest": 20},
    {"from_logits": True, "blank": 3},
    {"beam_threshold": 4.0, "token_threshold": 3.0, "blank_skip": 0.9},
]


@pytest.mark.parametrize("dtype", [torch.float32, *slow(torch.float64, torch.float16, torch.bfloat16)])
@settings(max_examples=15)
@given(
    chunks=st.lists(st.sampled_from([0, 1, 1, 2, 3, 5, 8, 13]), min_size=1, max_size=12),
    options=st.sampled_from(OPTIONS),
    time_major=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_any_chunks_give_the_offline_result(
    device: Device,
    dtype: torch.dtype,
    chunks: list[int],
    options: dict[str, object],
    time_major: bool,
    seed: int,
) -> None:
    x = random_log_probs(3, sum(chunks), 6, seed=seed, dtype=dtype).to(device.torch)
    decoder = BeamSearchDecoder(3, time_major=time_major, device=device.torch, **options)  # type: ignore[arg-type]
    heard = 0
    for chunk in x.split(chunks, dim=1):
        decoder.push(chunk.transpose(0, 1) if time_major else chunk)
        heard += chunk.shape[1]
        result = decoder.result()
        assert_well_formed(result)
        assert_equal(result, fastctc.beam_search(x[:, :heard], **options))  # type: ignore[arg-type]
    assert decoder.frames.tolist() == [heard] * 3


@pytest.mark.parametrize("beam_size", [1, 4, 10, 40])
def test_frame_by_frame(device: Device, beam_size: int) -> None:
    x = speech_like(2, 80, 12).to(device.torch)
    decoder = BeamSearchDecoder(2, beam_size=beam_size, nbest=beam_size, device=device.torch)
    for t in range(80):
        decoder.push(x[:, t : t + 1])
    assert_equal(decoder.result(), fastctc.beam_search(x, beam_size=beam_size, nbest=beam_size))


@pytest.mark.parametrize("form", ["list", "tensor", "on the device"])
def test_streams_out_of_step(device: Device, form: str) -> None:
    """Each stream gets its own number of frames of a chunk, mostly none."""
    x = speech_like(4, 40, 8).to(device.torch)
    decoder = BeamSearchDecoder(4, nbest=3, device=device.torch)
    heard = [0, 0, 0, 0]
    generator = torch.Generator().manual_seed(0)
    while min(heard) < 40:
        wanted = [
            min(int(torch.randint(0, 5, (), generator=generator)) * (n != 2 or heard[0] == 40), 40 - heard[n])
            for n in range(4)
        ]
        chunk = torch.full((4, max(wanted), 8), NAN, device=device.torch)
        for n, length in enumerate(wanted):
            chunk[n, :length] = x[n, heard[n] : heard[n] + length]
            heard[n] += length
        lengths: object = wanted
        if form != "list":
            lengths = torch.tensor(wanted, device=device.torch if form == "on the device" else "cpu")
        decoder.push(chunk, lengths)  # type: ignore[arg-type]
        assert decoder.frames.tolist() == heard
    result, expected = decoder.result(), fastctc.beam_search(x, nbest=3)
    assert_equal([t[..., :40] if t.dim() == 3 else t for t in result], expected)


def test_nothing_heard_yet(device: Device) -> None:
    decoder = BeamSearchDecoder(2, nbest=3, device=device.torch)
    for _ in range(2):
        result = decoder.result()
        assert result.tokens.shape == (2, 3, 0)
        assert result.scores.tolist() == [[0, -INF, -INF]] * 2
        assert result.to_list() == [[[]], [[]]]
        assert decoder.frames.tolist() == [0, 0]
        decoder.push(torch.zeros(2, 0, 5, device=device.torch))


def test_one_stream_takes_single_samples(device: Device) -> None:
    x = speech_like(20, 7).to(device.torch)
    decoder = BeamSearchDecoder(device=device.torch)
    decoder.push(x[:11])
    decoder.push(x[11:], 5)
    assert_equal(decoder.result(), fastctc.beam_search(x[:16].unsqueeze(0)))
    with pytest.raises(ValueError, match="log_probs has a batch of 1, but there are 2 streams"):
        BeamSearchDecoder(2, device=device.torch).push(x)


def test_nbest_of_a_result(device: Device) -> None:
    x = speech_like(2, 20, 7).to(device.torch)
    decoder = BeamSearchDecoder(2, beam_size=8, nbest=2, device=device.torch)
    decoder.push(x)
    for nbest in (1, 2, 8):
        assert_equal(decoder.result(nbest), fastctc.beam_search(x, beam_size=8, nbest=nbest))
    assert decoder.result().lengths.shape == (2, 2)
    with pytest.raises(ValueError, match="nbest is 9, but beam_size is only 8"):
        decoder.result(9)


@pytest.mark.parametrize(
    ("streams", "gone"),
    [
        (None, [0, 1, 2, 3]),
        (1, [1]),
        ([0, 2], [0, 2]),
        ((), []),
        (torch.tensor([3, 3]), [3]),
        (torch.tensor(2), [2]),
        (torch.tensor([True, False, False, True]), [0, 3]),
        ([True, False, False, True], [0, 3]),
    ],
    ids=str,
)
def test_reset(device: Device, streams: object, gone: list[int]) -> None:
    x = speech_like(4, 60, 8).to(device.torch)
    decoder = BeamSearchDecoder(4, device=device.torch)
    decoder.push(x[:, :35])
    decoder.reset(streams.to(device.torch) if isinstance(streams, torch.Tensor) else streams)  # type: ignore[arg-type]
    assert decoder.frames.tolist() == [0 if n in gone else 35 for n in range(4)]
    decoder.push(x[:, 35:])
    result = decoder.result()
    for n in range(4):
        frames = x[n, 35:] if n in gone else x[n]
        assert_equal(of_sample(result, n, len(frames)), fastctc.beam_search(frames))


def test_room_is_that_of_the_longest_stream(device: Device) -> None:
    """A server that resets each stream at the end of its utterance does not grow."""
    decoder = BeamSearchDecoder(2, beam_size=4, device=device.torch)
    x = speech_like(2, 10, 5).to(device.torch)
    sizes = []
    for utterance in range(12):
        decoder.push(x)
        decoder.push(x, [10, 0])
        decoder.reset(utterance % 2)
        decoder.reset([1 - utterance % 2])
        sizes.append(decoder._arena.numel())
    assert len(set(sizes)) == 1


def test_after_reset_everything_may_change(device: Device) -> None:
    decoder = BeamSearchDecoder(2, device=device.torch)
    decoder.push(speech_like(2, 10, 5).to(device.torch))
    decoder.reset()
    x = random_log_probs(2, 10, 9).to(device.torch)
    decoder.push(x)
    assert_equal(decoder.result(), fastctc.beam_search(x))


def test_copies_go_on_by_themselves(device: Device) -> None:
    x = speech_like(1, 30, 8).to(device.torch)
    other = speech_like(1, 30, 8, seed=1).to(device.torch)
    decoder = BeamSearchDecoder(device=device.torch)
    decoder.push(x[:, :20])
    fork = copy.deepcopy(decoder)
    fork.push(other)
    decoder.push(x[:, 20:])
    assert_equal(decoder.result(), fastctc.beam_search(x))
    assert_equal(fork.result(), fastctc.beam_search(torch.cat([x[:, :20], other], 1)))


@pytest.mark.parametrize("first", [True, False])
def test_inference_mode_may_come_and_go(device: Device, first: bool) -> None:
    x = speech_like(1, 30, 8).to(device.torch)
    with torch.inference_mode(first):
        decoder = BeamSearchDecoder(device=device.torch)
        decoder.push(x[:, :10])
    with torch.inference_mode(not first):
        decoder.push(x[:, 10:])
        decoder.reset(0)
    decoder.push(x)
    assert_equal(decoder.result(), fastctc.beam_search(x))


def test_chunks_that_require_grad(device: Device) -> None:
    x = speech_like(1, 30, 8).to(device.torch).requires_grad_()
    decoder = BeamSearchDecoder(device=device.torch)
    decoder.push(x * 1.0)
    assert not any(t.requires_grad for t in decoder.result())


def test_nan_silences_one_stream_until_reset(device: Device) -> None:
    x = speech_like(3, 30, 8).to(device.torch)
    broken = x.clone()
    broken[1, 12, 3] = NAN
    decoder = BeamSearchDecoder(3, nbest=2, device=device.torch)
    for chunk in broken.split(10, dim=1):
        decoder.push(chunk)
    result, expected = decoder.result(), fastctc.beam_search(x, nbest=2)
    assert result.scores[1].isnan().all()
    assert result.to_list()[1] == []
    assert_equal([t[::2] for t in result], [t[::2] for t in expected])
    decoder.reset(1)
    decoder.push(x, [0, 30, 0])
    assert_equal([t[..., :30] if t.dim() == 3 else t for t in decoder.result()], expected)


def test_an_error_changes_nothing(device: Device) -> None:
    """The CPU raises. The CUDA kernels make the scores of the wrong stream NaN and raise nothing."""
    x = speech_like(3, 30, 8).to(device.torch)
    decoder = BeamSearchDecoder(3, device=device.torch)
    decoder.push(x[:, :10])
    wrong = x[:, 10:20].clone()
    wrong[1, 4, 2] = 1.0
    if device.runs_cuda_kernels:
        decoder.push(wrong)
        decoder.push(x[:, 20:])
        result = decoder.result()
        assert result.scores[1].isnan().all()
        assert_equal([t[::2] for t in result], [t[::2] for t in fastctc.beam_search(x)])
        return
    before = decoder.result()
    with pytest.raises(ValueError, match=r"log_probs\[1, 4, 2\] \(sample, frame, class\) is 1,"):
        decoder.push(wrong)
    with pytest.raises(ValueError, match=r"input_lengths\[2\] is 11, but log_probs has 10 frames"):
        decoder.push(x[:, 10:20], [0, 10, 11])
    assert_equal(decoder.result(), before)
    assert decoder.frames.tolist() == [10, 10, 10]
    decoder.push(x[:, 10:])
    assert_equal(decoder.result(), fastctc.beam_search(x))


@pytest.mark.slow
def test_the_example() -> None:
    script = Path(__file__).parents[1] / "examples" / "streaming_beam_search.py"
    command = [sys.executable, script, "--text", "it's fine", "--chunk", "7"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert output[0].startswith("    7 frames  ")
    assert any(line.startswith("log-probability") and line.endswith("  it's fine") for line in output)
    usage = subprocess.run(
        [sys.executable, script, "--help"], check=True, capture_output=True, text=True
    ).stdout
    assert "--beam-size" in usage
