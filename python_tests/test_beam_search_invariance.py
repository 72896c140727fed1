"""The result of fastctc.beam_search has the same bits everywhere, whatever surrounds a sample."""

from __future__ import annotations

import ctypes
import gc
import itertools
import os
import random
import sys
import time
from collections.abc import Iterable
from typing import ClassVar

import pytest
import torch
from beams import (
    NAN,
    assert_close,
    assert_equal,
    assert_well_formed,
    of_sample,
    random_log_probs,
    speech_like,
)
from conftest import CUDA_MACHINES, Device, cuda_kernels, require_cuda, slow
from hypothesis import given, settings
from hypothesis import strategies as st

import fastctc
from fastctc.reference import beam_search_reference

pytestmark = pytest.mark.ptx

INFINITE = float("inf")
LENGTHS = [40, 31, 0, 1, 40, 17]


def test_same_alone_as_in_a_batch(device: Device) -> None:
    x = speech_like(6, 40, 20).to(device.torch)
    batch = fastctc.beam_search(x, LENGTHS, nbest=4)
    for n, length in enumerate(LENGTHS):
        alone = fastctc.beam_search(x[n, :length], nbest=4)
        assert_equal(alone, of_sample(batch, n, length))
        assert (batch.tokens[n, :, length:] == -1).all()
    order = [4, 2, 0, 5, 3, 1]
    assert_equal(
        fastctc.beam_search(x[order], [LENGTHS[n] for n in order], nbest=4), [t[order] for t in batch]
    )


def test_padding_is_never_read(device: Device) -> None:
    x = speech_like(6, 40, 20).to(device.torch)
    expected = fastctc.beam_search(x, LENGTHS, nbest=4)
    for garbage in (NAN, 1e30, -1e30, INFINITE):
        for n, length in enumerate(LENGTHS):
            x[n, length:] = garbage
        assert_equal(fastctc.beam_search(x, LENGTHS, nbest=4), expected)


@pytest.mark.parametrize("from_logits", [False, True], ids=["log_probs", "logits"])
@pytest.mark.parametrize("dtype", [torch.float32, *slow(torch.float64, torch.float16, torch.bfloat16)])
@settings(max_examples=25)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 20), st.sampled_from([2, 5, 33, 70])),
    order=st.permutations([0, 1, 2]),
    step=st.integers(1, 2),
    seed=st.integers(0, 2**31),
)
def test_memory_layout(
    device: Device,
    from_logits: bool,
    dtype: torch.dtype,
    shape: tuple[int, int, int],
    order: list[int],
    step: int,
    seed: int,
) -> None:
    """Any strides, and an offset: slices of a larger tensor, dimensions in any order."""
    x = random_log_probs(*shape, seed=seed, dtype=dtype).to(device.torch)
    options = {"nbest": 3, "from_logits": from_logits}
    expected = fastctc.beam_search(x.contiguous(), **options)
    larger = torch.full([step * shape[d] + 1 for d in order], NAN, dtype=dtype, device=device.torch)
    view = larger[tuple(slice(1, None, step) for _ in order)].permute(*[order.index(d) for d in range(3)])
    view.copy_(x)
    assert view.shape == x.shape
    assert_equal(fastctc.beam_search(view, **options), expected)
    assert_equal(fastctc.beam_search(view.transpose(0, 1), time_major=True, **options), expected)


@pytest.mark.parametrize("exact_scores", [False, True], ids=["", "exact_scores"])
def test_the_input_is_not_copied(device: Device, exact_scores: bool) -> None:
    """32 GB of it, of which one frame is in use."""
    x = torch.full((1, 1, 1), -14.0, device=device.torch).expand(2, 4096, 1 << 20)
    result = fastctc.beam_search(x, [1, 0], beam_size=2, nbest=2, exact_scores=exact_scores)
    assert result.to_list() == [[[], [1]], [[]]]
    assert result.scores.tolist() == [[-14, -14], [0, -INFINITE]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("from_logits", [False, True], ids=["log_probs", "logits"])
def test_half_is_float_of_the_same_values(device: Device, dtype: torch.dtype, from_logits: bool) -> None:
    x = random_log_probs(3, 20, 9, dtype=dtype).to(device.torch)
    options = {"nbest": 5, "from_logits": from_logits}
    half, full = fastctc.beam_search(x, **options), fastctc.beam_search(x.float(), **options)
    assert half.scores.dtype == half.confidences.dtype == torch.float32
    assert_equal(half, full)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("from_logits", [False, True], ids=["log_probs", "logits"])
def test_dtypes_against_the_reference(device: Device, dtype: torch.dtype, from_logits: bool) -> None:
    x = random_log_probs(4, 15, 7, std=2.0, dtype=dtype)
    options = {"beam_size": 5, "nbest": 5, "from_logits": from_logits}
    result = fastctc.beam_search(x.to(device.torch), **options)
    assert result.scores.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    tolerance = torch.float64 if dtype == torch.float64 else torch.float32
    assert_close(result, beam_search_reference(x, **options), tolerance)


@pytest.mark.parametrize("blank", [1, 7, 19])
def test_blank_can_be_any_class(device: Device, blank: int) -> None:
    x = speech_like(3, 50, 20).to(device.torch)
    classes = list(range(1, 20))
    classes.insert(blank, 0)  # what stands in each column now
    moved = fastctc.beam_search(x[:, :, classes], blank=blank, nbest=5)
    expected = fastctc.beam_search(x, nbest=5)
    renamed = torch.tensor([-1] + [classes.index(c) for c in range(1, 20)], device=device.torch)
    tokens = torch.where(expected.tokens < 0, -1, renamed[expected.tokens.clamp(min=0)])
    assert_equal(moved, expected._replace(tokens=tokens))


def test_more_hypotheses_change_nothing(device: Device) -> None:
    x = speech_like(3, 50, 20).to(device.torch)
    many = fastctc.beam_search(x, nbest=10)
    for nbest in (1, 3, 9):
        assert_equal(fastctc.beam_search(x, nbest=nbest), [t[:, :nbest] for t in many])


def test_threads_change_nothing() -> None:
    x, lengths = speech_like(33, 40, 20), [(7 * n) % 41 for n in range(33)]
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(fastctc.beam_search(x, lengths, nbest=3))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert_equal(result, results[0])


@pytest.mark.parametrize("machine", CUDA_MACHINES)
@pytest.mark.parametrize("beam_size", [5, 33, *slow(1, 10, 16, 32, 64, 150)])
@pytest.mark.parametrize("from_logits", [False, True], ids=["log_probs", "logits"])
@pytest.mark.parametrize("dtype", [torch.float32, *slow(torch.float64, torch.bfloat16)])
def test_same_bits_on_every_machine(
    request: pytest.FixtureRequest, machine: str, beam_size: int, from_logits: bool, dtype: torch.dtype
) -> None:
    there, namespace = cuda_kernels(request, machine)
    op = getattr(torch.ops, namespace).beam_search.default
    lengths = torch.tensor([30, 22])
    for make, classes in (
        (speech_like, 30),
        (random_log_probs, 30),
        (random_log_probs, 3),
        (random_log_probs, 300),
    ):
        for seed in range(2):
            x = make(2, 30, classes, seed=seed, dtype=dtype)
            for cuts in ((INFINITE, INFINITE, INFINITE), (4.0, 3.0, -0.2)):
                options = beam_size, beam_size, 0, from_logits, *cuts
                result = op(x.to(there), lengths.to(there), *options)
                assert_equal(result, torch.ops.fastctc.beam_search.default(x, lengths, *options))


def test_cuda_graph() -> None:
    require_cuda()
    x = speech_like(4, 60, 30).cuda()
    lengths = torch.tensor([60, 50, 3, 0], device="cuda")
    static = x.clone()

    def search() -> fastctc.NBestResult:
        return fastctc.beam_search(static, lengths, nbest=5, exact_scores=True)

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        search()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = search()
    for seed in (1, 2):
        static.copy_(speech_like(4, 60, 30, seed=seed))
        graph.replay()
        assert_equal(result, fastctc.beam_search(static.clone(), lengths, nbest=5, exact_scores=True))


class MallocInfo(ctypes.Structure):
    """Hold the result of mallinfo2, which glibc has since version 2.33."""

    _fields_: ClassVar = [
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    ]


def allocated() -> tuple[int, int]:
    """Return the bytes that malloc has given out, and the small blocks that Python uses."""
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = MallocInfo
    gc.collect()
    info = mallinfo()
    return info.uordblks + info.hblkhd, sys.getallocatedblocks()


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc 2.33")
def test_memory_stays_flat() -> None:
    """Counted by the allocators, so that neither other processes nor the cache of the system matter."""
    x = random_log_probs(8, 100, 30, dtype=torch.float32)

    def use(rounds: int) -> None:
        for _ in range(rounds):
            fastctc.beam_search(x, beam_size=20, nbest=5, exact_scores=True).to_list()
            decoder = fastctc.BeamSearchDecoder(8, beam_size=20)
            for chunk in x.split(30, dim=1):
                decoder.push(chunk)
            decoder.result()
            with pytest.raises(ValueError, match=r"log_probs\[.*natural-log probabilities are at most 0"):
                fastctc.beam_search(x + 1.0)

    use(4)
    before = allocated()
    use(10)
    after = allocated()
    assert after[0] - before[0] < 32 << 10 and after[1] - before[1] < 1000, (before, after)
    held = torch.zeros(16 << 10)
    assert allocated()[0] - after[0] >= held.nbytes  # so a leak would be seen


def fuzz_case(random_: random.Random, place: torch.device) -> None:
    batch, frames = random_.randint(1, 5), random_.randint(0, 60)
    classes, beam_size = (
        random_.choice([1, 2, 3, 4, 8, 31, 100]),
        random_.choice([1, 2, 3, 5, 8, 16, 17, 40, 64]),
    )
    seed = random_.getrandbits(31)
    masked = random_.choice([0.0, 0.0, 0.1, 0.5, 0.9])
    x = random_log_probs(
        batch, frames, classes, seed=seed, std=random_.choice([0.1, 1, 5, 30]), masked=masked
    )
    x = x.to(random_.choice([torch.float32, torch.float64, torch.float16])).to(place)
    if random_.random() < 0.2 and frames:
        x[random_.randrange(batch), random_.randrange(frames), random_.randrange(classes)] = NAN
    lengths = [random_.randint(0, frames) for _ in range(batch)]
    options: dict[str, object] = {"beam_size": beam_size, "blank": random_.randrange(classes)}
    for name, values in {
        "beam_threshold": (0.0, 1.0, 10.0),
        "token_threshold": (0.0, 1.0, 10.0),
        "blank_skip": (1e-9, 0.5, 1.0),
        "from_logits": (True,),
    }.items():
        if random_.random() < 0.3:
            options[name] = random_.choice(values)
    offline = fastctc.beam_search(x, lengths, nbest=beam_size, **options)  # type: ignore[arg-type]
    assert_well_formed(offline)
    decoder = fastctc.BeamSearchDecoder(batch, nbest=beam_size, device=place, **options)  # type: ignore[arg-type]
    begin, end = 0, -1
    while end < frames:
        end = min(frames, begin + random_.choice([0, 1, 2, 7, 30]))
        decoder.push(x[:, begin:end], [min(max(length - begin, 0), end - begin) for length in lengths])
        begin = end
    streamed, longest = decoder.result(), max(lengths)
    assert_equal(streamed, [t[..., :longest] if t.dim() == 3 else t for t in offline])


def test_fuzz(device: Device) -> None:
    """FASTCTC_FUZZ_SECONDS=600 for longer, from a new seed; the seed of a failing case is in the message."""
    seconds = os.environ.get("FASTCTC_FUZZ_SECONDS")
    if seconds is None:
        seeds: Iterable[int] = range(60)
    else:
        end, first = time.monotonic() + float(seconds), random.getrandbits(32)
        seeds = itertools.takewhile(lambda _: time.monotonic() < end, itertools.count(first))
    for seed in seeds:
        try:
            fuzz_case(random.Random(seed), device.torch)
        except Exception as error:
            raise AssertionError(f"fuzz_case of seed {seed}") from error
