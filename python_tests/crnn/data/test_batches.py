"""Batches of samples: their order, their padding, and the checks of the samples before."""

import numpy as np
import pytest
import torch

from fastctc.crnn.data import (
    AugmentConfig,
    BatchMaker,
    LabelError,
    Samples,
    check_samples,
    frames_needed,
    pad_batch,
    split_holdout,
)
from fastctc.crnn.data.tensors import batch_width
from fastctc.text import Alphabet

ALPHABET = Alphabet("abc")


def make_samples(count: int, width: int = 40, widest: int | None = None) -> Samples:
    rng = np.random.default_rng(0)
    widths = rng.integers(width, widest or width, count, endpoint=True)
    images = [rng.integers(0, 255, (32, w), dtype=np.uint8) for w in widths]
    texts = ["".join(rng.choice(list("abc"), 3)) for _ in range(count)]
    return Samples(images, texts, [f"sample {i}" for i in range(count)])


def test_batches_have_few_widths():
    """Memory that torch keeps grows with the number of different shapes."""
    assert [batch_width(width) for width in (1, 16, 17, 64, 65, 128, 129, 160, 192, 193, 1000, 2048)] == [
        16, 16, 32, 64, 80, 128, 160, 160, 192, 224, 1024, 2048,
    ]  # fmt: skip
    widths = {batch_width(width) for width in range(64, 2049)}
    assert len(widths) == 1 + 4 * 5 and all(batch_width(width) == width for width in widths)
    assert all(width <= batch_width(width) < max(width + 16, 1.25 * width) for width in range(1, 2049))


@pytest.mark.parametrize("sizes, full", [([90, 90, 90], 92), ([90, 30], 96), ([90], 92)])
def test_images_of_one_width_are_hardly_padded(sizes, full):
    images = [np.full((32, width), 7, np.uint8) for width in sizes]
    pixels, widths = pad_batch(images)
    assert pixels.shape == (len(sizes), 1, 32, full) and widths.tolist() == sizes
    for n, width in enumerate(sizes):
        assert bool((pixels[n, :, :, :width] == 7).all()) and not bool(pixels[n, :, :, width:].any())


def test_preflight_names_what_cannot_be_learned():
    assert [frames_needed(t) for t in ([], [1], [1, 1], [1, 2, 1, 1, 1])] == [0, 1, 3, 7]
    samples = make_samples(4)
    samples.texts[:] = ["abc", "abx", "aabbcc", "abcab"]
    samples.images[2] = samples.images[2][:, :32]  # 8 frames for 9
    usable, problems = check_samples(samples, ALPHABET, lambda width: width // 4)
    assert usable.names == ["sample 0", "sample 3"]
    assert [str(p) for p in problems] == [
        "sample 1: character 'x' at position 2 of 'abx' is not in the alphabet 'abc'",
        "sample 2: label 'aabbcc' needs 9 frames, an image 32 wide has 8",
    ]
    with pytest.raises(
        LabelError, match="none of 4 samples can be used; the first: sample 0: label 'abc' needs 3"
    ):
        check_samples(samples, ALPHABET, lambda width: 0)


def test_holdout_is_seeded_and_disjoint():
    samples = make_samples(100)
    training, unseen = split_holdout(samples, seed=3)
    assert len(unseen) == 5 and len(training) == 95
    assert sorted(training.names + unseen.names) == sorted(samples.names)
    assert split_holdout(samples, seed=3)[1].names == unseen.names != split_holdout(samples, seed=4)[1].names
    assert len(split_holdout(samples, 0, limit=2)[1]) == 2
    with pytest.raises(LabelError, match="1 samples, expected at least 2"):
        split_holdout(make_samples(1), 0)


def test_a_batch_depends_on_seed_and_step_alone():
    samples = make_samples(10)
    augment = AugmentConfig(rotate=5, blur=1, contrast=0.5, noise=10)
    one, two = (BatchMaker(samples, ALPHABET, 4, seed=5, augment=augment) for _ in range(2))
    forward = [one.batch(step) for step in range(6)]
    for step in reversed(range(6)):
        for a, b in zip(forward[step], two.batch(step), strict=True):
            assert torch.equal(a, b)
    assert BatchMaker(samples, ALPHABET, 4, seed=6).indices(0) != one.indices(0)


@pytest.mark.parametrize("buckets", [1, 2, 32])
@pytest.mark.parametrize("count", [1, 3, 4, 8, 10, 37])
def test_every_sample_comes_once_an_epoch(count, buckets):
    batches = BatchMaker(make_samples(count, 8, 90), ALPHABET, 4, buckets=buckets)
    seen = [i for step in range(count) for i in batches.indices(step)]  # 4 epochs
    for epoch in range(4):
        assert sorted(seen[epoch * count : (epoch + 1) * count]) == list(range(count))


def padding(batches: BatchMaker, steps: int) -> float:
    """Return the share of the columns of the first batches that are padding."""
    made = [batches.batch(step) for step in range(steps)]
    columns = sum(batch.images.shape[0] * batch.images.shape[-1] for batch in made)
    return 1 - sum(int(batch.widths.sum()) for batch in made) / columns


def test_batches_of_similar_width_hold_little_padding():
    samples = make_samples(1000, 32, 256)
    sorted_, drawn = (BatchMaker(samples, ALPHABET, 16, buckets=n) for n in (32, 1))
    assert padding(sorted_, 62) < 0.1 and padding(drawn, 62) > 0.3
    assert padding(sorted_, 250) < 0.1  # four epochs: also where one passes into the next
    # neither short nor long images come first: the order of batches is drawn
    widths = [sorted_.batch(step).widths.float().mean().item() for step in range(32)]
    assert abs(np.corrcoef(widths, range(32))[0, 1]) < 0.5
    assert {tuple(sorted(sorted_.indices(step))) for step in range(62)}.isdisjoint(
        {tuple(sorted(sorted_.indices(step))) for step in range(63, 125)}
    )


def test_batches_of_similar_width_depend_on_seed_and_step_alone():
    samples = make_samples(50, 32, 256)
    one, two, other = (BatchMaker(samples, ALPHABET, 8, seed=seed, buckets=3) for seed in (5, 5, 6))
    forward = [one.indices(step) for step in range(20)]
    assert [two.indices(step) for step in reversed(range(20))] == forward[::-1]
    assert [other.indices(step) for step in range(20)] != forward


def test_equal_widths_leave_the_permutation_as_drawn():
    expected = np.random.default_rng([5, 0, 0]).permutation(100).tolist()
    same, mixed = make_samples(100), make_samples(100, 8, 90)
    for samples, buckets in ((same, 32), (mixed, 1)):
        batches = BatchMaker(samples, ALPHABET, 4, seed=5, buckets=buckets)
        assert [i for step in range(25) for i in batches.indices(step)] == expected
    batches = BatchMaker(mixed, ALPHABET, 4, seed=5)
    assert [i for step in range(25) for i in batches.indices(step)] != expected


def test_batches_hold_padded_images_and_their_targets():
    samples = make_samples(3)
    samples.images[1] = samples.images[1][:, :13]
    batches = BatchMaker(samples, ALPHABET, 3)
    batch = batches.batch(0)
    order = batches.indices(0)
    assert batch.images.shape == (3, 1, 32, 48)
    assert batch.widths.tolist() == [samples.images[i].shape[1] for i in order]
    assert batch.targets.tolist() == [t for i in order for t in ALPHABET.encode(samples.texts[i])]
    assert batch.target_lengths.tolist() == [3, 3, 3]
    assert (batch.images[order.index(1), :, :, 13:] == 0).all()
