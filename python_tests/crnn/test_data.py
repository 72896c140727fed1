import numpy as np
import pytest
import torch
from PIL import Image

from fastctc.crnn.data import (
    BatchMaker,
    FolderSource,
    LabelError,
    Samples,
    check_samples,
    collect,
    default_workers,
    frames_needed,
    moved,
    read_labels,
    split_holdout,
    write_folder,
)
from fastctc.crnn.preprocess import PreprocessConfig
from fastctc.text import Alphabet

ALPHABET = Alphabet("abc")


def make_samples(count: int, width: int = 40) -> Samples:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (32, width), dtype=np.uint8) for _ in range(count)]
    texts = ["".join(rng.choice(list("abc"), 3)) for _ in range(count)]
    return Samples(images, texts, [f"sample {i}" for i in range(count)])


def numbered_picture(index: int) -> tuple[Image.Image, str]:
    image = np.full((32, 40 + index % 5), 255, np.uint8)
    image[:, index % 40] = 0
    return Image.fromarray(image), "abc"[index % 3] * (index % 4)


def test_a_folder_is_written_and_read_back(tmp_path):
    done = []
    write_folder(numbered_picture, tmp_path, 70, on_progress=done.append)
    assert sum(done) == 70 and len(list(tmp_path.glob("*.png"))) == 70
    source = FolderSource(tmp_path)
    assert len(source) == 70 and source.name(1) == "000001.png"
    samples, problems = collect(source, range(70), PreprocessConfig(), name=source.name)
    assert not problems
    assert samples.texts == [numbered_picture(i)[1] for i in range(70)]
    assert [image.shape[1] for image in samples.images] == [40 + i % 5 for i in range(70)]
    with pytest.raises(LabelError, match=r"has a labels.tsv already"):
        write_folder(numbered_picture, tmp_path, 1)


def test_workers_keep_the_order(tmp_path):
    write_folder(numbered_picture, tmp_path, 150)
    (tmp_path / "000100.png").write_bytes(b"broken")
    source = FolderSource(tmp_path)
    one, problems = collect(source, range(150), PreprocessConfig(), workers=0, name=source.name)
    two, same_problems = collect(source, range(150), PreprocessConfig(), workers=2, name=source.name)
    assert one.names == two.names and one.texts == two.texts and one.fingerprint() == two.fingerprint()
    assert problems == same_problems and len(one) == 149
    assert str(problems[0]).startswith("000100.png: not a readable image")
    assert default_workers() >= 0


def test_collecting_stops_in_time():
    samples, _ = collect(numbered_picture, range(10_000_000), PreprocessConfig(), seconds=0.05)
    assert 0 < len(samples) < 100_000


def test_labels_files(tmp_path):
    path = tmp_path / "labels.tsv"
    path.write_text("\ufeffa.png\tx=1\n\nb c.png\t\nd.png\tä\tb\n", encoding="utf-8")
    assert read_labels(path) == [("a.png", "x=1"), ("b c.png", ""), ("d.png", "ä\tb")]
    path.write_text("a.png\tx\nb.png y\n")
    with pytest.raises(
        LabelError, match=r"labels.tsv, line 2: expected a file name, a tab and a text, got 'b.png y'"
    ):
        read_labels(path)
    path.write_bytes(b"a.png\t\xff\n")
    with pytest.raises(LabelError, match=r"is not UTF-8: .* at byte 6"):
        read_labels(path)
    path.write_text("\n")
    with pytest.raises(LabelError, match="names no image"):
        read_labels(path)
    with pytest.raises(LabelError, match=r"cannot read .*none/labels.tsv: No such file"):
        FolderSource(tmp_path / "none")


def test_preflight_names_what_cannot_be_learnt():
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
    one, two = (BatchMaker(samples, ALPHABET, 4, seed=5) for _ in range(2))
    forward = [one.batch(step) for step in range(6)]
    for step in reversed(range(6)):
        for a, b in zip(forward[step], two.batch(step), strict=True):
            assert torch.equal(a, b)
    assert BatchMaker(samples, ALPHABET, 4, seed=6).indices(0) != one.indices(0)


@pytest.mark.parametrize("count", [3, 8, 10])
def test_every_sample_comes_once_an_epoch(count):
    batches = BatchMaker(make_samples(count), ALPHABET, 4)
    seen = [i for step in range(count) for i in batches.indices(step)]  # 4 epochs
    for epoch in range(4):
        assert sorted(seen[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_batches_hold_padded_images_and_their_targets():
    samples = make_samples(3)
    samples.images[1] = samples.images[1][:, :13]
    batches = BatchMaker(samples, ALPHABET, 3, shift=0)
    batch = batches.batch(0)
    order = batches.indices(0)
    assert batch.images.shape == (3, 1, 32, 40)
    assert batch.widths.tolist() == [samples.images[i].shape[1] for i in order]
    assert batch.targets.tolist() == [t for i in order for t in ALPHABET.encode(samples.texts[i])]
    assert batch.target_lengths.tolist() == [3, 3, 3]
    assert (batch.images[order.index(1), :, :, 13:] == 0).all()


def test_images_are_moved_by_nearest_pixels():
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert (moved(image, (0, 0), (1, 1)) == image).all()
    assert moved(image, (1, 0), (1, 1)).tolist() == [[0, 0, 1, 2], [4, 4, 5, 6], [8, 8, 9, 10]]
    assert moved(image, (-2, 1), (1, 1)).tolist() == [[2, 3, 3, 3], [2, 3, 3, 3], [6, 7, 7, 7]]
    line = np.arange(9, dtype=np.uint8)[None]
    assert moved(line, (0, 0), (2, 1)).tolist() == [[2, 2, 3, 4, 4, 4, 5, 6, 6]]
    assert moved(line, (0, 0), (0.5, 1)).tolist() == [[0, 0, 0, 2, 4, 6, 8, 8, 8]]
