"""fastctc.forced_align and merge_tokens: against brute force, the reference and torchaudio, and what must hold."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from alignments import of_reference, random_scores, random_targets
from batches import from_log_probs_and_logits
from conftest import Device, slow
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import TOLERANCES, assert_same
from torch import Tensor

import fastctc
from fastctc.reference import collapse

pytestmark = pytest.mark.ptx

INF = math.inf
NAN = math.nan


def assert_spells(path: Tensor, target: Tensor, blank: int = 0) -> None:
    assert collapse(path.tolist(), blank) == tuple(target.tolist())


# Values


@pytest.mark.parametrize("shape", [(1, 2), (3, 3), (4, 4), (6, 3)], ids=str)
@pytest.mark.parametrize("levels", [0, 2])
@pytest.mark.parametrize(
    "dtype", [torch.float32, *slow(torch.float64, torch.float16, torch.bfloat16)], ids=str
)
def test_equals_the_best_of_all_paths(
    device: Device, shape: tuple[int, int], levels: int, dtype: torch.dtype
) -> None:
    """All targets of up to T + 1 labels as one batch."""
    num_frames, num_classes = shape
    x = random_scores(num_frames, num_classes, levels=levels).to(dtype)
    for blank in (0, num_classes - 1):
        best: dict[tuple[int, ...], float] = {}
        rows = x.double().tolist()
        for path in itertools.product(range(num_classes), repeat=num_frames):
            score = math.fsum(row[c] for row, c in zip(rows, path, strict=True))
            spelled = collapse(path, blank)
            best[spelled] = max(best.get(spelled, -INF), score)
        labels = [c for c in range(num_classes) if c != blank]
        targets = [t for length in range(num_frames + 2) for t in itertools.product(labels, repeat=length)]
        lengths = torch.tensor([len(target) for target in targets])
        concatenated = torch.tensor([label for target in targets for label in target])
        paths, scores = fastctc.forced_align(
            x.to(device.torch).expand(len(targets), -1, -1), concatenated, None, lengths, blank
        )
        assert scores.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        for target, path, score in zip(targets, paths.cpu(), scores.double().cpu(), strict=True):
            expected = best.get(target, -INF)
            assert score.sum().item() == pytest.approx(expected, rel=1e-12 if levels else 1e-6)
            if expected > -INF:
                assert_spells(path, torch.tensor(target), blank)
                assert_same(score, x.double().gather(1, path[:, None])[:, 0])
            else:
                assert (path == blank).all()


@from_log_probs_and_logits
@settings(max_examples=60)
@given(
    num_samples=st.integers(1, 4),
    num_frames=st.integers(0, 90),
    num_classes=st.sampled_from([2, 3, 5, 17, 33, 100]),
    length=st.integers(0, 40),
    levels=st.sampled_from([0, 0, 2, 4]),
    blank=st.sampled_from([0, -1]),
    stars=st.booleans(),
    time_major=st.booleans(),
    dtype=st.sampled_from(list(TOLERANCES)),
    seed=st.integers(0, 2**31),
)
def test_random_cases(
    device: Device,
    from_logits: bool,
    num_samples: int,
    num_frames: int,
    num_classes: int,
    length: int,
    levels: int,
    blank: int,
    stars: bool,
    time_major: bool,
    dtype: torch.dtype,
    seed: int,
) -> None:
    blank %= num_classes
    x = random_scores(num_samples, num_frames, num_classes, seed=seed, levels=levels).to(dtype)
    targets = random_targets(num_samples, length, num_classes, blank, seed)
    generator = torch.Generator().manual_seed(seed)
    options: dict[str, Any] = {"from_logits": from_logits}
    if stars:
        options["star"] = num_classes
        targets[torch.rand(targets.shape, generator=generator) < 0.3] = num_classes
    frames = torch.randint(num_frames // 2, num_frames + 1, (num_samples,), generator=generator)
    labels = torch.randint(0, length + 1, (num_samples,), generator=generator)
    expected_paths, expected = of_reference(x, targets, frames, labels, blank, **options)
    there = x.to(device.torch)
    there = there.transpose(0, 1).contiguous() if time_major else there
    paths, scores = fastctc.forced_align(
        there, targets.to(device.torch), frames, labels, blank, time_major=time_major, **options
    )
    sums = scores.double().cpu().sum(1)
    tolerance = 1e-12 if dtype == torch.float64 or not from_logits else 1e-5
    torch.testing.assert_close(sums, expected.sum(1), rtol=tolerance, atol=tolerance)
    if not from_logits:  # rounding after a log-softmax breaks ties
        assert_same(paths.cpu(), expected_paths)
        assert_same(scores.double().cpu(), expected)
    for n in range(num_samples):
        if num_frames and sums[n] > -INF:
            assert_spells(paths[n, : frames[n]], targets[n, : labels[n]], blank)


@pytest.mark.parametrize("length", [1, 7, 8, 15, 16, 31, 32, 33, 63, 64, 65, 100, 129])
@pytest.mark.parametrize("spare", [0, 1, 30])
def test_target_lengths_around_the_blocks(device: Device, length: int, spare: int) -> None:
    x = random_scores(1, length + spare, 8, seed=length)
    targets = (1 + torch.arange(length) % 7).unsqueeze(0)
    paths, scores = fastctc.forced_align(x.to(device.torch), targets)
    expected_paths, expected = of_reference(x, targets, [length + spare], [length])
    assert_same(paths.cpu(), expected_paths)
    assert_same(scores.double().cpu(), expected)
    if spare == 0:
        assert_same(paths.cpu(), targets)


@pytest.mark.large
@pytest.mark.parametrize(("num_frames", "length"), [(3000, 700), *slow((9000, 8500), (30000, 2600))], ids=str)
def test_long_inputs(device: Device, num_frames: int, length: int) -> None:
    """With checkpoints; exact, because float64 is for sums of these scores."""
    x = random_scores(1, num_frames, 12, seed=1, levels=9)
    targets = (1 + torch.arange(length) % 11).unsqueeze(0)
    paths, scores = fastctc.forced_align(x.to(device.torch), targets)
    expected_paths, expected = of_reference(x, targets, [num_frames], [length])
    assert_same(paths.cpu(), expected_paths)
    assert_same(scores.double().cpu(), expected)


def test_by_hand(device: Device) -> None:
    p = torch.tensor([[0.1, 0.8, 0.1], [0.5, 0.4, 0.1], [0.6, 0.2, 0.2], [0.2, 0.1, 0.7]])
    paths, scores = fastctc.forced_align(p.log().unsqueeze(0).to(device.torch), torch.tensor([[1, 2]]))
    assert paths.tolist() == [[1, 0, 0, 2]]
    assert scores.exp()[0].tolist() == pytest.approx([0.8, 0.5, 0.6, 0.7])
    assert paths.dtype == torch.int64
    assert {paths.device.type, scores.device.type} == {device.torch.type}


# Ties


def test_a_tie_of_two_ways_is_no_reason_to_take_the_third(device: Device) -> None:
    """pytorch/audio#4221: of three ways into a state two are equally good, and the third is worse."""
    x = torch.tensor([[[0.0, -1.0, -1.0], [0.0, 0.0, -5.0], [-1.0, -5.0, 0.0]]]).to(device.torch)
    for target in itertools.product([1, 2], repeat=2):
        paths, scores = fastctc.forced_align(x, torch.tensor([target]))
        rows = x[0].tolist()
        scored = {
            path: sum(row[c] for row, c in zip(rows, path, strict=True))
            for path in itertools.product(range(3), repeat=3)
            if collapse(path) == target
        }
        assert scores.sum() == max(scored.values())
        assert scored[tuple(paths[0].tolist())] == max(scored.values())


@pytest.mark.parametrize(
    ("target", "path"),
    [([2], [2, 2, 2, 2, 2]), ([1, 2], [1, 2, 2, 2, 2]), ([1, 1], [1, 0, 1, 1, 1]), ([], [0] * 5)],
    ids=str,
)
def test_ties_enter_each_state_as_early_as_they_can(
    device: Device, target: list[int], path: list[int]
) -> None:
    x = torch.zeros(5, 3, device=device.torch)
    assert fastctc.forced_align(x, torch.tensor(target, dtype=torch.int64))[0].tolist() == path


# torchaudio


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_equals_torchaudio(dtype: torch.dtype) -> None:
    theirs = pytest.importorskip("torchaudio.functional", exc_type=ImportError)
    for seed in range(40):
        num_frames, length = 20 + 7 * seed, 1 + 3 * seed
        x = random_scores(1, num_frames, 5 + seed, seed=seed).to(dtype).log_softmax(2)
        targets = random_targets(1, length, 5 + seed, seed=seed)
        if num_frames < length + int((targets[0, 1:] == targets[0, :-1]).sum()):
            continue
        paths, scores = fastctc.forced_align(x, targets)
        expected_paths, expected = theirs.forced_align(x, targets)
        total, expected_total = scores.double().sum(), expected.double().sum()
        if dtype == torch.float64:  # no two paths tie
            assert_same(paths, expected_paths)
            assert_same(scores, expected)
        else:  # torchaudio adds up in float32, and may miss the best path for it
            assert total >= expected_total - 1e-9
            assert total == pytest.approx(expected_total.item(), rel=1e-6)
        ours = fastctc.merge_tokens(expected_paths[0], expected[0])
        spans = theirs.merge_tokens(expected_paths[0], expected[0])
        assert [(s.token, s.start, s.end, len(s)) for s in ours] == [
            (s.token, s.start, s.end, len(s)) for s in spans
        ]
        assert [s.score for s in ours] == pytest.approx([s.score for s in spans], rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
def test_takes_what_torchaudio_takes(device: Device, dtype: torch.dtype) -> None:
    x = random_scores(1, 9, 5).log_softmax(2).to(device.torch)
    targets = torch.tensor([[1, 2, 2]], dtype=dtype, device=device.torch)
    lengths = [torch.tensor([length], dtype=dtype, device=device.torch) for length in (9, 3)]
    results = [
        fastctc.forced_align(x, targets),
        fastctc.forced_align(x, targets, *lengths, blank=0),
        fastctc.forced_align(
            log_probs=x, targets=targets, input_lengths=lengths[0], target_lengths=lengths[1]
        ),
    ]
    for paths, scores in results:
        assert paths.dtype == dtype
        assert paths.shape == scores.shape == (1, 9)
        assert_same(paths, results[0][0])
        assert_same(scores, x[:, range(9), paths[0].long()])


# Meaning


@from_log_probs_and_logits
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("num_classes", [2, 3, 15, 16, 17, 33, 100, 127, 128])
def test_classes_of_probability_zero_change_no_bit(
    device: Device, num_classes: int, dtype: torch.dtype, from_logits: bool
) -> None:
    """The CPU kernel transposes rows of up to 128 classes."""
    generator = torch.Generator().manual_seed(num_classes)
    x = torch.randn(3, 50, num_classes, generator=generator, dtype=torch.float64).mul(5)
    x[0, ::3, 1:] = -INF
    targets = torch.randint(1, num_classes, (3, 130), generator=generator)
    lengths = [50, 33, 16], [20, 12, 1]
    x = (x if from_logits else x.log_softmax(-1)).to(device.torch, dtype)
    wide = torch.cat([x, torch.full((3, 50, 200), -INF).to(x)], -1)
    expected = fastctc.forced_align(wide, targets, *lengths, from_logits=from_logits)
    for form in (x, wide[..., :num_classes], x.transpose(1, 2).contiguous().transpose(1, 2)):
        found = fastctc.forced_align(form, targets, *lengths, from_logits=from_logits)
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])
    assert expected[1][2, :16].isfinite().all()


@pytest.mark.parametrize("num_classes", [20, 200])
def test_nan_in_a_class_that_no_path_takes(device: Device, num_classes: int) -> None:
    """Log-probabilities of other classes are not read, but a denominator of logits is NaN."""
    x = torch.randn(1, 40, num_classes).log_softmax(-1).to(device.torch)
    targets = torch.randint(1, 19, (1, 30))
    expected = fastctc.forced_align(x, targets)
    x[0, 7, 19] = NAN
    assert torch.equal(fastctc.forced_align(x, targets)[1], expected[1])
    assert fastctc.forced_align(x, targets, from_logits=True)[1].isnan().all()


@pytest.mark.parametrize("form", ["star", "column"])
def test_star_is_a_column_of_zeros(device: Device, form: str) -> None:
    x = random_scores(2, 30, 6).log_softmax(2).to(device.torch)
    targets = torch.tensor([[6, 1, 2, 6, 3], [4, 6, 4, 1, 0]])
    if form == "star":
        paths, scores = fastctc.forced_align(x, targets, None, [5, 4], star=6)
    else:
        paths, scores = fastctc.forced_align(torch.nn.functional.pad(x, (0, 1)), targets, None, [5, 4])
    expected_paths, expected = of_reference(x, targets, [30, 30], [5, 4], star=6)
    assert_same(paths.cpu(), expected_paths)
    assert_same(scores.double().cpu(), expected)
    assert (scores[paths == 6] == 0).all()
    logits = (x + 3.0).to(torch.float64)  # their log-softmax is x
    fused_paths, fused = fastctc.forced_align(logits, targets, None, [5, 4], star=6, from_logits=True)
    torch.testing.assert_close(fused.sum(1).cpu(), expected.sum(1), rtol=1e-6, atol=0)
    assert (fused_paths == 6).any()


def test_logits_score_by_their_log_softmax(device: Device) -> None:
    x = 3 * random_scores(3, 40, 70, seed=2)
    targets = random_targets(3, 12, 70, seed=2)
    paths, scores = fastctc.forced_align(x.to(device.torch), targets, from_logits=True)
    log_probs = x.double().log_softmax(2)
    expected_paths, _ = fastctc.forced_align(log_probs.to(device.torch), targets)
    assert_same(paths, expected_paths)
    expected = log_probs.gather(2, paths.cpu()[:, :, None])[:, :, 0]
    torch.testing.assert_close(scores.cpu(), expected.float(), rtol=2e-7, atol=1e-7)


@from_log_probs_and_logits
def test_empty_targets_and_infeasible_ones(device: Device, from_logits: bool) -> None:
    x = random_scores(4, 4, 3).log_softmax(2)
    x[2, 1, 1] = -INF
    x[3, :, 1] = -1e30
    targets = torch.tensor([[0, 0, 0], [1, 1, 1], [1, 2, 1], [2, 2, 1]])
    paths, scores = fastctc.forced_align(
        x.to(device.torch), targets, None, [0, 3, 3, 3], from_logits=from_logits
    )
    assert (paths[[0, 1, 3]] == 0).all()
    torch.testing.assert_close(scores[0].cpu(), x[0, :, 0], rtol=1e-6, atol=1e-6)
    assert (scores[[1, 3]] == -INF).all()
    assert_spells(paths[2], targets[2])
    assert paths[2, 1] != 1
    assert scores[2].isfinite().all()


@from_log_probs_and_logits
@pytest.mark.parametrize("value", [NAN, INF])
def test_nan_and_padding(device: Device, from_logits: bool, value: float) -> None:
    x = random_scores(4, 20, 5).log_softmax(2).to(device.torch)
    targets = random_targets(4, 4, 5)
    options: dict[str, Any] = {"input_lengths": [20, 15, 20, 20], "from_logits": from_logits}
    before = fastctc.forced_align(x, targets, **options)
    x[1, 15:] = NAN
    x[2, 0, targets[2, 3]] = value  # where no path can be yet
    paths, scores = fastctc.forced_align(x, targets, **options)
    assert scores[2].isnan().all()
    assert (paths[2] == 0).all()
    for one, other in zip((paths, scores), before, strict=True):
        assert_same(one[[0, 1, 3]], other[[0, 1, 3]])
    assert (paths[1, 15:] == 0).all()
    assert (scores[1, 15:] == 0).all()


def test_nothing_to_align(device: Device) -> None:
    for shape in ((0, 4, 3), (2, 0, 3)):
        x = torch.zeros(shape, device=device.torch)
        paths, scores = fastctc.forced_align(x, torch.zeros(shape[0], 0, dtype=torch.int64))
        assert paths.shape == scores.shape == shape[:2]
    paths, scores = fastctc.forced_align(torch.zeros(2, 3, 4, device=device.torch), torch.zeros(2, 0).long())
    assert paths.tolist() == scores.tolist() == [[0, 0, 0]] * 2


def test_many_forms_of_the_same(device: Device) -> None:
    x = random_scores(3, 30, 6).log_softmax(2).to(device.torch)
    targets = random_targets(3, 7, 6).to(device.torch)
    frames, labels = [30, 20, 25], [7, 3, 5]
    expected = fastctc.forced_align(x, targets, frames, labels)
    inside = torch.arange(7) < torch.tensor(labels)[:, None]
    wide = torch.nn.functional.pad(x, (3, 2), value=NAN)[:, :, 3:9]
    forms: list[tuple[Any, ...]] = [
        (x, targets, torch.tensor(frames, dtype=torch.int32), torch.tensor(labels, device=device.torch)),
        (x, targets[inside.to(device.torch)], tuple(frames), labels),
        (wide, targets.to(torch.int16), frames, labels),
        (x.transpose(0, 1).contiguous().transpose(0, 1), targets.t().contiguous().t(), frames, labels),
    ]
    for form in forms:
        for one, other in zip(fastctc.forced_align(*form), expected, strict=True):
            assert_same(one, other)
    by_time = fastctc.forced_align(x.transpose(0, 1), targets, frames, labels, time_major=True)
    for one, other in zip(by_time, expected, strict=True):
        assert_same(one, other)


def test_same_alone_as_in_a_batch(device: Device) -> None:
    x = random_scores(4, 50, 40, levels=4).to(device.torch)
    targets = random_targets(4, 20, 40)
    frames, labels = [50, 37, 41, 50], [20, 11, 20, 0]
    for from_logits in (False, True):
        batch = fastctc.forced_align(x, targets, frames, labels, from_logits=from_logits)
        for n in range(4):
            alone = fastctc.forced_align(x[n, : frames[n]], targets[n, : labels[n]], from_logits=from_logits)
            for one, other in zip(alone, batch, strict=True):
                assert_same(one, other[n, : frames[n]])


def test_unbatched(device: Device) -> None:
    x = random_scores(20, 6).to(device.torch)
    target = torch.tensor([1, 2, 2])
    expected = fastctc.forced_align(x.unsqueeze(0), target.unsqueeze(0), [17], [2])
    for lengths in ((17, 2), (torch.tensor(17), torch.tensor([2])), ([17], [2])):
        for one, other in zip(fastctc.forced_align(x, target, *lengths), expected, strict=True):
            assert one.shape == (20,)
            assert_same(one, other[0])


def test_carries_no_gradient(device: Device) -> None:
    x = random_scores(2, 6, 5).to(device.torch).requires_grad_()
    assert not any(each.requires_grad for each in fastctc.forced_align(x, torch.tensor([[1], [2]])))


@pytest.mark.slow_emulated
def test_compiles_and_maps(device: Device) -> None:
    torch._dynamo.reset()
    x = random_scores(3, 12, 6).to(device.torch)
    arguments = [
        each.to(device.torch)
        for each in (random_targets(3, 4, 6), torch.tensor([12, 9, 12]), torch.tensor([4, 3, 4]))
    ]
    expected = fastctc.forced_align(x, *arguments, from_logits=True)

    def align(x: Tensor, *arguments: Tensor) -> tuple[Tensor, Tensor]:
        return fastctc.forced_align(x, *arguments, from_logits=True)

    def align_whole(x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return fastctc.forced_align(x, targets)

    dynamic = torch.compile(align_whole, fullgraph=True, backend="aot_eager", dynamic=True)
    for one, other in zip(dynamic(x, arguments[0]), align_whole(x, arguments[0]), strict=True):
        assert_same(one, other)
    compiled = torch.compile(align, fullgraph=True, backend="aot_eager")
    for results in (compiled(x, *arguments), torch.func.vmap(align)(x, *arguments)):
        for one, other in zip(results, expected, strict=True):
            assert_same(one, other)


# Long audio


@pytest.mark.slow
def test_long_audio_in_little_memory() -> None:
    """T = 10^5, S = 10^4: the whole process needs less than 1 GiB."""
    script = """
import resource, sys, torch, fastctc
torch.set_num_threads(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
x = torch.randn(1, 100_000, 32, generator=torch.Generator().manual_seed(0)).log_softmax(2)
targets = (1 + torch.arange(10_000) % 31).unsqueeze(0)
paths, scores = fastctc.forced_align(x, targets)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert scores.isfinite().all()
spans = fastctc.merge_tokens(paths[0], scores[0])
assert [span.token for span in spans] == targets[0].tolist()
print((after - before) * 1024)
"""
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2**28
