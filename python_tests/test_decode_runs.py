"""The runs of the tokens on the best path: timesteps, ends, peaks and scores, against other ways to find them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest
import torch
from beams import INF, NAN, assert_close, assert_equal, best_path_score, random_log_probs, speech_like
from conftest import Device, slow
from torch import Tensor

import fastctc
from fastctc.reference import beam_search_reference, collapse


def samples_of(result: fastctc.DecodeResult) -> Iterator[tuple[tuple[int, ...], fastctc.DecodeResult]]:
    """Yield the index and the result of each sequence that exists, without the leading dimensions."""
    for index in itertools.product(*map(range, result.lengths.shape)):
        one = fastctc.DecodeResult(*(each[index] for each in result))
        if one.scores > -INF:
            yield index, one


def path_of(one: fastctc.DecodeResult, frames: int, blank: int) -> list[int]:
    """Return the class of each frame: the tokens in their runs, and blanks."""
    path = [blank] * frames
    for i in range(int(one.lengths)):
        for t in range(int(one.timesteps[i]), int(one.ends[i])):
            path[t] = int(one.tokens[i])
    return path


def check_runs(result: fastctc.DecodeResult, x: Tensor, lengths: list[int], blank: int = 0) -> int:
    """Check that the runs are a path that spells the tokens, with the scores of the result; return their number."""
    count = 0
    for (n, *_), one in samples_of(result.cpu()):
        rows, tokens = x[n, : lengths[n]].double().cpu(), one.tokens[: int(one.lengths)].tolist()
        path = path_of(one, lengths[n], blank)
        assert collapse(path, blank) == tuple(tokens)
        y = rows[torch.arange(lengths[n]), path]
        assert float(one.path_scores) == pytest.approx(min(float(y.sum()), 0.0), rel=1e-6, abs=1e-6)
        for i in range(len(tokens)):
            run = y[int(one.timesteps[i]) : int(one.ends[i])]
            assert int(one.peaks[i]) == int(one.timesteps[i]) + int(run.argmax())
            assert float(one.confidences[i]) == pytest.approx(math.exp(min(float(run.max()), 0.0)), rel=1e-6)
            assert float(one.token_scores[i]) == pytest.approx(
                min(float(run.mean()), 0.0), rel=1e-5, abs=1e-6
            )
            count += 1
    return count


@pytest.mark.parametrize("blank", [0, *slow(3)])
def test_runs_are_a_best_path_that_spells_the_tokens(device: Device, blank: int) -> None:
    """Nothing is pruned: no path that spells the tokens is more probable."""
    x = random_log_probs(12, 6, 4, std=2.0)
    result = fastctc.beam_search(x.to(device.torch), beam_size=1024, nbest=200, blank=blank)
    assert check_runs(result, x, [6] * 12, blank) > 4000
    for (n, _), one in itertools.islice(samples_of(result.cpu()), 0, None, 17):
        expected = best_path_score(x[n], one.tokens[: int(one.lengths)].tolist(), blank)
        assert float(one.path_scores) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("repeats", [False, True], ids=["distinct frames", "ties"])
def test_runs_are_those_of_a_forced_alignment(device: Device, repeats: bool) -> None:
    """The alignment of the hypothesis has the same frames where one path is best, and the same score always."""
    x = random_log_probs(6, 14, 5, std=1.5, dtype=torch.float32)
    if repeats:  # every frame comes twice, and two classes are equal: many paths tie
        x = x[:, :7].repeat_interleave(2, 1)[:, :, [0, 1, 2, 2, 3]].log_softmax(2)
    x = x.to(device.torch)
    result = fastctc.beam_search(x, beam_size=300, nbest=3)
    assert check_runs(result, x, [14] * 6) > 50
    same = 0
    for rank in range(3):
        paths, scores = fastctc.forced_align(
            x, result.tokens[:, rank].clamp(min=0), None, result.lengths[:, rank]
        )
        torch.testing.assert_close(result.path_scores[:, rank], scores.sum(1), rtol=1e-5, atol=1e-5)
        for n in range(6):
            one = fastctc.DecodeResult(*(each[n, rank].cpu() for each in result))
            same += path_of(one, 14, 0) == paths[n].tolist()
    assert same == 18 or repeats


@pytest.mark.parametrize("beam_size", [1, 3, 10, 40])
@pytest.mark.parametrize("options", [{}, {"blank_skip": 0.8}, {"beam_threshold": 3.0}], ids=str)
def test_runs_in_a_pruned_beam(device: Device, beam_size: int, options: dict[str, float]) -> None:
    x, lengths = speech_like(3, 60, 12), [60, 31, 0]
    result = fastctc.beam_search(
        x.to(device.torch), lengths, beam_size=beam_size, nbest=min(3, beam_size), **options
    )
    assert check_runs(result, x, lengths) > 20
    assert_close(
        result,
        beam_search_reference(x, lengths, beam_size=beam_size, nbest=min(3, beam_size), **options),
        torch.float32,
    )


def test_runs_of_greedy_decoding_are_its_path(device: Device) -> None:
    for x in (random_log_probs(4, 50, 6, std=2.0), random_log_probs(4, 50, 3).round()):
        result = fastctc.greedy_decode(x.to(device.torch), [50, 50, 17, 0])
        assert check_runs(result, x, [50, 50, 17, 0]) > 20
        assert torch.equal(result.path_scores, result.scores)
        for n, frames in enumerate([50, 50, 17, 0]):
            assert path_of(result.sample(n), frames, 0) == x[n, :frames].argmax(1).tolist()


def test_runs_by_hand(device: Device) -> None:
    """The run of "a" ends before the blank, and the two runs of "b" are kept apart by one."""
    rows = [
        [0.1, 0.8, 0.1],
        [0.1, 0.9, 0.0],
        [0.9, 0.1, 0.0],
        [0.1, 0.2, 0.7],
        [0.8, 0.1, 0.1],
        [0.1, 0.1, 0.8],
    ]
    x = torch.tensor(rows, device=device.torch).log()
    for result in (fastctc.greedy_decode(x), fastctc.beam_search(x).best()):
        assert result.to_list() == [1, 2, 2]
        assert result.timesteps[:3].tolist() == [0, 3, 5]
        assert result.ends[:3].tolist() == [2, 4, 6]
        assert result.peaks[:3].tolist() == [1, 3, 5]
        assert result.token_scores[:3].tolist() == pytest.approx(
            [math.log(0.8 * 0.9) / 2, math.log(0.7), math.log(0.8)]
        )
        assert float(result.path_scores.exp()) == pytest.approx(0.8 * 0.9 * 0.9 * 0.7 * 0.8 * 0.8)


@pytest.mark.parametrize("dtype", [torch.float32, *slow(torch.float64, torch.float16)])
def test_runs_of_chunks_are_those_of_the_whole(device: Device, dtype: torch.dtype) -> None:
    x = speech_like(2, 40, 8, dtype=dtype).to(device.torch)
    decoder = fastctc.BeamSearchDecoder(2, beam_size=6, nbest=6, device=device.torch)
    for chunk in x.split([1, 3, 0, 20, 16], dim=1):
        decoder.push(chunk)
    assert_equal(decoder.result(), fastctc.beam_search(x, beam_size=6, nbest=6))


@pytest.mark.usefixtures("emulated_library")
@pytest.mark.parametrize("beam_size", [5, 40])
def test_runs_are_the_same_on_cuda(beam_size: int) -> None:
    """To the bit, with ties too."""
    emulated, ops, infinite = torch.ops.fastctc_emulated, torch.ops.fastctc, [INF] * 3
    for x in (speech_like(2, 40, 8), random_log_probs(2, 40, 4).round().float()):
        lengths = torch.tensor([40, 25])
        arguments = (x, lengths, beam_size, 3, 0, False, *infinite)
        assert_equal(emulated.beam_search(*arguments), ops.beam_search(*arguments))
        for from_logits in (False, True):
            greedy = (x, lengths, 0, from_logits)
            assert_equal(emulated.greedy_decode(*greedy), ops.greedy_decode(*greedy))


# ---- spans


def test_spans_are_those_of_merge_tokens(device: Device) -> None:
    """The spans of the best path, which merge_tokens makes of its classes and scores."""
    x = speech_like(3, 50, 8).to(device.torch)
    greedy, beam = fastctc.greedy_decode(x, [50, 20, 0]), fastctc.beam_search(x, [50, 20, 0], nbest=2)
    for result, nested in ((greedy, greedy.spans()), (beam.best(), [each[0] for each in beam.spans()])):
        for n, frames in enumerate([50, 20, 0]):
            path = torch.tensor(path_of(result.sample(n).cpu(), frames, 0), dtype=torch.int64)
            scores = x[n, :frames].cpu()[torch.arange(frames), path]
            expected = fastctc.merge_tokens(path, scores)
            assert [(s.token, s.start, s.end) for s in nested[n]] == [
                (s.token, s.start, s.end) for s in expected
            ]
            assert [s.score for s in nested[n]] == pytest.approx(
                [s.score for s in expected], rel=1e-5, abs=1e-6
            )
    assert fastctc.text.word_spans(greedy.spans()[0], "- abcdef", scale=0.02)


def test_spans_are_nested_like_lists() -> None:
    x = random_log_probs(3, 8, 4)
    x[1, 2] = NAN
    for result in (fastctc.greedy_decode(x), fastctc.beam_search(x, beam_size=20, nbest=20)):
        spans = result.spans()
        assert spans[1] == []
        if isinstance(result, fastctc.NBestResult):
            assert [[[s.token for s in one] for one in sample] for sample in spans] == result.to_list()
        else:
            assert [[s.token for s in sample] for sample in spans] == result.to_list()
    assert [s.token for s in fastctc.greedy_decode(x[0]).spans()] == fastctc.greedy_decode(x[0]).to_list()
    assert fastctc.beam_search(torch.zeros(2, 0, 3)).spans() == [[[]], [[]]]
    assert fastctc.greedy_decode(torch.zeros(0, 4, 3)).spans() == []


# ---- samples and devices


def test_a_sample_of_a_batch(device: Device) -> None:
    x = random_log_probs(3, 8, 4).to(device.torch)
    for decode in (fastctc.greedy_decode, lambda x: fastctc.beam_search(x, nbest=2)):
        batch = decode(x)
        for n in (0, 2, -1):
            assert type(batch.sample(n)) is type(batch)
            assert_equal(batch.sample(n), decode(x[n]))
        with pytest.raises(IndexError):
            batch.sample(3)
        with pytest.raises(ValueError, match=r"sample\(\) needs the result of a batch"):
            batch.sample(0).sample(0)


def test_a_result_on_another_device() -> None:
    for result in (
        fastctc.greedy_decode(random_log_probs(3, 8, 4)),
        fastctc.beam_search(random_log_probs(8, 4)),
    ):
        for moved in (result.to("cpu"), result.cpu(), result.to(torch.device("cpu"), non_blocking=True)):
            assert type(moved) is type(result)
            assert_equal(moved, result)
        there = result.to("meta")
        assert type(there) is type(result) and {each.device.type for each in there} == {"meta"}
        assert [each.dtype for each in there] == [each.dtype for each in result]


# ---- bounds


def confident(dtype: torch.dtype) -> list[Tensor]:
    """Return normalized input whose rounding exceeds probability 1: float32 log-softmax of sharp logits."""
    sharp = [
        (torch.randn(4, 300, 40, generator=torch.Generator().manual_seed(seed)) * std).log_softmax(2)
        for seed, std in enumerate((30, 60, 100))
    ]
    rounded = [x.masked_fill(x == x.amax(2, keepdim=True), 3e-7) for x in sharp]
    assert all((x > 0).any() for x in rounded)
    return [x.to(dtype) for x in sharp + rounded]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *slow(torch.float16, torch.bfloat16)])
def test_no_score_is_above_zero_and_no_confidence_above_one(device: Device, dtype: torch.dtype) -> None:
    for x in confident(dtype):
        x = x[:, :60].to(device.torch)
        decoder = fastctc.BeamSearchDecoder(4, nbest=3, device=device.torch)
        for chunk in x.split(25, dim=1):
            decoder.push(chunk)
        results = [
            fastctc.greedy_decode(x),
            fastctc.beam_search(x, nbest=3),
            fastctc.beam_search(x, nbest=3, exact_scores=True),
            decoder.result(),
        ]
        for result in results:
            for each in (result.scores, result.path_scores, result.token_scores):
                assert not (each > 0).any()
            assert ((result.confidences >= 0) & (result.confidences <= 1)).all()
            assert not (result.path_scores > result.scores + 1e-4).any()


def test_logits_have_the_scores_of_log_probabilities(device: Device) -> None:
    """Greedy decoding of logits, to the precision of float32."""
    x = torch.randn(4, 80, 1000, generator=torch.Generator().manual_seed(0)) * 4
    exact = fastctc.greedy_decode(x.double().log_softmax(2))
    result = fastctc.greedy_decode(x.to(device.torch), from_logits=True).cpu()
    assert torch.equal(result.tokens, exact.tokens)
    assert ((result.scores.double() - exact.scores).abs() <= 2e-7 * exact.scores.abs()).all()
    assert ((result.confidences.double() - exact.confidences).abs() <= 1e-6).all()
