"""fastctc.greedy_decode against the reference."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import Device
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import assert_loss_close, assert_same
from torch import Tensor

import fastctc
from fastctc import DecodeResult
from fastctc.reference import DecodeReference, greedy_decode_reference

pytestmark = pytest.mark.ptx

INF = math.inf
NAN = math.nan


def random_logits(*shape: int, seed: int = 0, std: float = 2.0) -> Tensor:
    return std * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_log_probs(*shape: int, seed: int = 0) -> Tensor:
    return random_logits(*shape, seed=seed).log_softmax(-1)


def check_against_reference(x: Tensor, *lengths: object, **options: object) -> None:
    result = fastctc.greedy_decode(x, *lengths, **options)
    expected = greedy_decode_reference(x, *lengths, **options)
    assert_same(result.tokens, expected.tokens)
    assert_same(result.lengths, expected.lengths)
    for name in ("timesteps", "ends"):
        assert_same(getattr(result, name), getattr(expected, name))
    check_peaks(result, expected, x, options)
    for name in ("scores", "path_scores", "confidences", "token_scores"):
        assert_loss_close(getattr(result, name), getattr(expected, name), x.dtype)


def check_peaks(
    result: DecodeResult, expected: DecodeReference, x: Tensor, options: dict[str, object]
) -> None:
    """Check the peaks; probabilities of logits may tie up to rounding, in any frame of the run."""
    if not options.get("from_logits"):
        assert_same(result.peaks, expected.peaks)
        return
    rows = x.transpose(0, 1) if options.get("time_major") else x
    used = expected.tokens >= 0
    sample = used.nonzero()[:, 0]
    at_peak = rows.cpu().double().softmax(-1)[sample, result.peaks.cpu()[used], expected.tokens[used]]
    assert_loss_close(at_peak, expected.confidences[used], x.dtype)
    assert bool(
        (result.peaks.cpu() >= expected.timesteps).all()
        & (result.peaks.cpu()[used] < expected.ends[used]).all()
    )
    assert_same(result.peaks.cpu()[~used], expected.peaks[~used])


def test_by_hand(device: Device) -> None:
    p = torch.tensor([[0.1, 0.9, 0], [0.2, 0.8, 0], [0.5, 0.3, 0.2], [0.4, 0.6, 0], [0.1, 0.45, 0.45]])
    result = fastctc.greedy_decode(p.log().unsqueeze(0).to(device.torch))
    tokens, lengths, scores, timesteps, confidences, *_ = result
    assert tokens.tolist() == [[1, 1, -1, -1, -1]]
    assert timesteps.tolist() == [[0, 3, -1, -1, -1]]
    assert lengths.tolist() == [2]
    assert scores.exp().tolist() == pytest.approx([0.9 * 0.8 * 0.5 * 0.6 * 0.45])
    assert confidences[0].tolist() == pytest.approx([0.9, 0.6, 0, 0, 0])
    assert type(result) is fastctc.DecodeResult
    assert {each.dtype for each in (tokens, lengths, timesteps)} == {torch.int64}
    assert {each.device.type for each in result} == {device.torch.type}


@pytest.mark.slow_emulated
@pytest.mark.parametrize("from_logits", [False, True], ids=["log_probs", "logits"])
@settings(max_examples=100)
@given(
    num_samples=st.integers(1, 4),
    num_frames=st.integers(0, 70),
    num_classes=st.sampled_from([1, 2, 5, 31, 32, 33, 100]),
    levels=st.sampled_from([0, 2, 5]),
    blank=st.sampled_from([0, -1]),
    time_major=st.booleans(),
    transposed=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]),
    seed=st.integers(0, 2**31),
)
def test_random_cases(
    device: Device,
    from_logits: bool,
    num_samples: int,
    num_frames: int,
    num_classes: int,
    levels: int,
    blank: int,
    time_major: bool,
    transposed: bool,
    dtype: torch.dtype,
    seed: int,
) -> None:
    """`levels` is the number of different values, which decides how often classes tie; 0 for no limit."""
    x = random_logits(num_samples, num_frames, num_classes, seed=seed)
    if levels:
        x = -((x.abs() * 10).round() % levels)
    if not from_logits and not levels:
        x = x.log_softmax(2)
    x = x.to(dtype).to(device.torch)
    if time_major:
        x = x.transpose(0, 1)
    x = x.transpose(0, 1).contiguous().transpose(0, 1) if transposed else x.contiguous()
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, num_frames + 1, (num_samples,), generator=generator)
    options = {"blank": blank % num_classes, "time_major": time_major, "from_logits": from_logits}
    check_against_reference(x, lengths, **options)


@pytest.mark.parametrize("num_classes", [7, 129, 1025, 5003])
@pytest.mark.parametrize("best", ["first", "last"])
def test_best_class_anywhere(device: Device, num_classes: int, best: str) -> None:
    x = torch.zeros(2, 5, num_classes, device=device.torch)
    x[:, ::2, 0 if best == "first" else -1] = 3.0
    check_against_reference(x, blank=1, from_logits=True)


def test_ties_go_to_the_lowest_class(device: Device) -> None:
    x = torch.full((1, 3, 200), -1.0, device=device.torch)
    x[0, 0, [37, 5, 199]] = 0.0
    x[0, 1, [64, 33]] = 0.0
    assert fastctc.greedy_decode(x).tokens.tolist() == [[5, 33, -1]]


def test_confidences_of_long_runs(device: Device) -> None:
    """Runs of many frames have their peak anywhere."""
    x = torch.zeros(3, 150, 3, device=device.torch)
    x[:, 3:70, 1] = x[:, 80:145, 2] = 1.0
    for n, (first, second) in enumerate(((3, 80), (34, 111), (69, 144))):
        x[n, first, 1] = 2.0
        x[n, second, 2] = 3.0
    result = fastctc.greedy_decode(x, from_logits=True)
    assert result.to_list() == [[1, 2]] * 3
    expected = [math.exp(2) / (math.exp(2) + 2), math.exp(3) / (math.exp(3) + 2)]
    for n in range(3):
        assert result.confidences[n, :2].tolist() == pytest.approx(expected, rel=1e-5)
    check_against_reference(x, from_logits=True)


def test_infinities(device: Device) -> None:
    x = random_logits(3, 4, 5).log_softmax(2).to(device.torch)
    x[0, :, 1:] = -INF
    x[1, 2, :] = -INF
    check_against_reference(x)
    assert fastctc.greedy_decode(x).scores[1] == -INF


@pytest.mark.parametrize("from_logits", [False, True], ids=["log_probs", "logits"])
@pytest.mark.parametrize(
    "where", [(slice(None),), (0,), (4,)], ids=["whole frame", "first class", "last class"]
)
def test_nan_shows_in_the_score(device: Device, from_logits: bool, where: tuple[slice | int]) -> None:
    x = random_log_probs(3, 6, 5).to(device.torch)
    expected = fastctc.greedy_decode(x, [6, 5, 4], from_logits=from_logits)
    x[1, 2][where] = NAN
    x[2, 4:] = NAN
    result = fastctc.greedy_decode(x, [6, 5, 4], from_logits=from_logits)
    assert result.scores.isnan().tolist() == [False, True, False]
    for one, other in zip(result, expected, strict=True):
        assert_same(one[::2], other[::2])


@pytest.mark.parametrize("form", ["list", "tuple", "int32", "int64", "none"])
def test_lengths_come_in_many_forms(device: Device, form: str) -> None:
    x = random_log_probs(3, 6, 5).to(device.torch)
    values = [6, 6, 6] if form == "none" else [6, 2, 0]
    lengths = {
        "list": values,
        "tuple": tuple(values),
        "int32": torch.tensor(values, dtype=torch.int32),
        "int64": torch.tensor(values, device=device.torch),
        "none": None,
    }[form]
    result = fastctc.greedy_decode(x, lengths)
    for one, other in zip(result, fastctc.greedy_decode(x, values), strict=True):
        assert_same(one, other)


def test_unbatched(device: Device) -> None:
    x = random_log_probs(6, 5).to(device.torch)
    for lengths in (None, 4, torch.tensor(4)):
        result = fastctc.greedy_decode(x, lengths)
        batched = fastctc.greedy_decode(x.unsqueeze(0), None if lengths is None else [4])
        for one, other in zip(result, batched, strict=True):
            assert_same(one, other[0])


def test_nothing_to_decode(device: Device) -> None:
    no_frames = fastctc.greedy_decode(torch.zeros(2, 0, 3, device=device.torch))
    assert no_frames.tokens.shape == no_frames.timesteps.shape == no_frames.confidences.shape == (2, 0)
    assert no_frames.lengths.tolist() == [0, 0]
    assert no_frames.scores.tolist() == [0, 0]
    no_samples = fastctc.greedy_decode(torch.zeros(0, 4, 3, device=device.torch))
    assert no_samples.tokens.shape == no_samples.timesteps.shape == (0, 4)
    assert no_samples.lengths.shape == no_samples.scores.shape == (0,)


def test_same_alone_as_in_a_batch(device: Device) -> None:
    x = random_logits(4, 30, 40).to(device.torch)
    lengths = [30, 17, 5, 1]
    batch = fastctc.greedy_decode(x, lengths, from_logits=True)
    for n, length in enumerate(lengths):
        alone = fastctc.greedy_decode(x[n, :length], from_logits=True)
        assert_same(alone.tokens, batch.tokens[n, :length])
        assert_same(alone.timesteps, batch.timesteps[n, :length])
        assert_same(alone.confidences, batch.confidences[n, :length])
        assert_same(alone.lengths, batch.lengths[n])
        assert_same(alone.scores, batch.scores[n])
        assert (batch.tokens[n, length:] == -1).all()


def test_input_that_requires_grad(device: Device) -> None:
    x = random_log_probs(2, 6, 5).to(device.torch).requires_grad_()
    result = fastctc.greedy_decode(x)
    assert not any(each.requires_grad for each in result)


ERRORS = {
    "one dimension": (lambda: (torch.zeros(3),), {}, ValueError, r"log_probs must have 2 or 3 dimensions"),
    "integers": (
        lambda: (torch.zeros(2, 8, 3, dtype=torch.int64),),
        {},
        TypeError,
        r"log_probs must be .*float.* torch\.int64",
    ),
    "blank": (
        lambda: (torch.zeros(2, 8, 3),),
        {"blank": 3},
        ValueError,
        r"blank is 3, but log_probs has 3 classes",
    ),
    "float lengths": (
        lambda: (torch.zeros(2, 8, 3), torch.tensor([1.0, 2.0])),
        {},
        TypeError,
        r"input_lengths must be .*integer.* torch\.float32",
    ),
    "number of lengths": (
        lambda: (torch.zeros(2, 8, 3), [8]),
        {},
        ValueError,
        r"input_lengths has 1 values, but log_probs has a batch of 2",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_wrong_forms_raise(device: Device, name: str) -> None:
    arguments, options, exception, message = ERRORS[name]
    x, *rest = arguments()
    with pytest.raises(exception, match=message):
        fastctc.greedy_decode(x.to(device.torch), *rest, **options)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([8, 9], r"input_lengths\[1\] is 9, but log_probs has 8 frames"),
        ([-1, 8], r"input_lengths\[0\] is -1"),
    ],
    ids=["too large", "negative"],
)
def test_wrong_lengths(device: Device, lengths: list[int], message: str) -> None:
    """The CPU raises an exception; the CUDA kernels decode nothing and make the score NaN."""
    x = random_log_probs(2, 8, 3).to(device.torch)
    if not device.runs_cuda_kernels:
        with pytest.raises(ValueError, match=message):
            fastctc.greedy_decode(x, lengths)
        return
    result = fastctc.greedy_decode(x, torch.tensor(lengths, device=device.torch))
    wrong, right = (0, 1) if lengths[0] < 0 else (1, 0)
    assert result.scores[wrong].isnan()
    assert result.lengths[wrong] == 0
    assert (result.tokens[wrong] == -1).all()
    assert (result.confidences[wrong] == 0).all()
    for one, other in zip(result, fastctc.greedy_decode(x, [8, 8]), strict=True):
        assert_same(one[right], other[right])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("position", [0, 2, 4])
def test_logits_or_probabilities_by_mistake(device: Device, dtype: torch.dtype, position: int) -> None:
    """The message names the place and the remedy; the CUDA kernels make the score NaN."""
    x = random_log_probs(3, 9, 5).to(dtype)
    right = x.clone().to(device.torch)
    x[1, 7, position] = 0.8125
    x[1, 8] = 3.0
    x[2, 6:] = 5.0  # padding
    x = x.to(device.torch)
    for input, time_major in (
        (x, False),
        (x.transpose(0, 1).contiguous(), True),
        (x.mT.contiguous().mT, False),
    ):
        if device.runs_cuda_kernels:
            result = fastctc.greedy_decode(input, [9, 9, 6], time_major=time_major)
            assert result.scores[1].isnan() and result.lengths[1] == 0
            for one, other in zip(result, fastctc.greedy_decode(right, [9, 9, 6]), strict=True):
                assert_same(one[::2], other[::2])
            continue
        message = (
            rf"log_probs\[1, 7, {position}\] \(sample, frame, class\) is 0\.8125, but natural-log probabilities are"
            r" at most 0 \(for logits pass from_logits=True, for probabilities their log\(\)\)"
        )
        with pytest.raises(ValueError, match=message):
            fastctc.greedy_decode(input, [9, 9, 6], time_major=time_major)


def test_rounded_log_probs_may_exceed_zero(device: Device) -> None:
    x = torch.tensor([[-INF, 0.009, -INF], [0.0, -9.0, -INF]], device=device.torch)
    result = fastctc.greedy_decode(x)
    assert result.to_list() == [1]
    assert result.scores == 0 and result.confidences[0] == 1 and result.token_scores[0] == 0


def test_a_logit_of_infinity_gives_no_tokens(device: Device) -> None:
    """Like a NaN, which it makes of the softmax; a row of -inf has no class of any probability."""
    x = random_logits(3, 4, 5).to(device.torch)
    x[0, 2, 3], x[1, 1, :] = INF, -INF
    result = fastctc.greedy_decode(x, from_logits=True)
    assert result.scores[0].isnan() and result.lengths[0] == 0 and (result.tokens[0] == -1).all()
    assert result.scores[1] == -INF and result.scores[2].isfinite()


def test_a_nan_is_no_mistaken_log_probability(device: Device) -> None:
    """It comes first: no exception for a positive value beside it or after it."""
    x = random_log_probs(1, 4, 5).to(device.torch)
    x[0, 1, 4], x[0, 1, 0], x[0, 2, 0] = NAN, 2.0, 2.0
    assert fastctc.greedy_decode(x).scores.isnan().all()
