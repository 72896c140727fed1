"""Samples kept in a cache file: mapped, checked, and made again where the file is damaged."""

import copy
import logging
import multiprocessing
import pickle
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fastctc.crnn.data import FolderInUseError, Problem, Samples, cached, claimed

KEY = {"count": 5, "preprocess": {"height": 32}}


def made_samples(seed: int = 0) -> tuple[Samples, list[Problem]]:
    rng = np.random.default_rng(seed)
    images = [rng.integers(0, 255, (32, 10 + 7 * i), dtype=np.uint8) for i in range(5)]
    images[3] = images[3][:, ::2]  # not contiguous
    texts = ["1+2", "", "ä\n\t", "=", "x" * 300]
    return Samples(images, texts, [f"{i}.png" for i in range(5)]), [Problem("bad.png", "no such file")]


def never() -> tuple[Samples, list[Problem]]:
    raise AssertionError("made again")


def assert_same(a, b):
    assert a[0].texts == b[0].texts and a[0].names == b[0].names and a[1] == b[1]
    assert all((x == y).all() and x.shape == y.shape for x, y in zip(a[0].images, b[0].images, strict=True))


def test_the_second_call_maps_what_the_first_one_made(tmp_path):
    folder = tmp_path / "new" / "cache"
    assert_same(cached(folder, KEY, made_samples), made_samples())
    again = cached(folder, dict(reversed(KEY.items())), never)
    assert_same(again, made_samples())
    (file,) = folder.iterdir()
    samples = again[0]
    assert all(image.dtype == np.uint8 and not image.flags.owndata for image in samples.images)
    with pytest.raises(ValueError, match="read-only"):
        samples.images[0][0, 0] = 1
    other = cached(folder, KEY | {"count": 6}, lambda: made_samples(1))
    assert_same(other, made_samples(1))
    assert_same(cached(folder, KEY, never), made_samples())
    file.unlink()
    assert_same(again, made_samples())  # a mapping outlives the file's name


def test_mapped_samples_are_samples(tmp_path):
    fresh = made_samples()[0]
    mapped = cached(tmp_path, KEY, made_samples)[0]
    assert mapped.fingerprint() == fresh.fingerprint()
    assert mapped.subset([4, 1]).fingerprint() == fresh.subset([4, 1]).fingerprint()
    content = pickle.dumps(mapped.subset([0]))
    assert len(content) < 1000  # one image, not the file
    for copied in (pickle.loads(pickle.dumps(mapped)), copy.deepcopy(mapped)):
        assert copied.fingerprint() == fresh.fingerprint()


def test_no_samples_can_be_kept(tmp_path):
    problems = [Problem("a.png", "no such file")]
    assert cached(tmp_path, {}, lambda: (Samples(), problems)) == (Samples(), problems)
    assert cached(tmp_path, {}, never) == (Samples(), problems)


DAMAGES = {
    "empty": lambda content: b"",
    "header alone": lambda content: content[:20],
    "index cut": lambda content: content[:100],
    "pixels cut": lambda content: content[:-1],
    "longer": lambda content: content + b"x",
    "index changed": lambda content: content[:60] + bytes([content[60] ^ 1]) + content[61:],
    "index without end": lambda content: content[:16] + b"\xff" * 8 + content[24:],
    "foreign": lambda content: b"PNG" + content,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_made_anew(tmp_path, damage, caplog):
    cached(tmp_path, KEY, made_samples)
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    file.write_bytes(damage(content))
    with caplog.at_level(logging.WARNING):
        assert_same(cached(tmp_path, KEY, made_samples), made_samples())
    (record,) = caplog.records
    assert str(file) in record.getMessage() and "making it anew" in record.getMessage()
    assert file.read_bytes() == content
    assert_same(cached(tmp_path, KEY, never), made_samples())


def test_a_file_of_another_key_is_not_trusted(tmp_path, caplog):
    cached(tmp_path, KEY, made_samples)
    (file,) = tmp_path.iterdir()
    cached(tmp_path, {"other": 1}, lambda: made_samples(1))
    (other,) = set(tmp_path.iterdir()) - {file}
    file.replace(other)
    assert_same(cached(tmp_path, {"other": 1}, lambda: made_samples(1)), made_samples(1))
    assert "it holds other samples" in caplog.text


def test_a_cache_that_cannot_be_written_stops_nothing(tmp_path, caplog):
    (tmp_path / "file").write_text("not a folder")
    assert_same(cached(tmp_path / "file", KEY, made_samples), made_samples())
    assert "cannot be written" in caplog.text


def test_a_failure_to_make_leaves_no_file(tmp_path):
    with pytest.raises(AssertionError, match="made again"):
        cached(tmp_path, KEY, never)
    assert not list(tmp_path.iterdir())
    with pytest.raises(TypeError, match="not JSON serializable"):
        cached(tmp_path, {"path": object()}, made_samples)


def test_a_process_that_writes_into_the_cache_refuses_others_that_have_to(tmp_path):
    other = multiprocessing.get_context("spawn").Process(target=_hold, args=(tmp_path, tmp_path / "held"))
    cached(tmp_path, {"kept": 1}, made_samples)
    other.start()
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    try:
        with pytest.raises(FolderInUseError, match="expected one that no other process writes into"):
            cached(tmp_path, KEY, never)
        assert_same(cached(tmp_path, {"kept": 1}, never), made_samples())  # the file can be read
    finally:
        other.kill()
        other.join()
    assert_same(
        cached(tmp_path, KEY, made_samples), made_samples()
    )  # the claim of a killed process is taken over


def _hold(folder, sign):
    with claimed(folder):
        sign.touch()
        time.sleep(600)


def test_several_may_make_it_at_once(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: cached(tmp_path, KEY, made_samples), range(16)))
    for result in results:
        assert_same(result, made_samples())
    assert len(list(tmp_path.iterdir())) == 1


def test_many_images_open_fast(tmp_path):
    count = 20_000
    image = np.zeros((64, 19), np.uint8)
    names = [f"{i:06d}.png" for i in range(count)]
    cached(tmp_path, KEY, lambda: (Samples([image] * count, ["(6*8)+3=51"] * count, names), []))
    best = float("inf")
    for _ in range(3):
        began = time.process_time()  # other processes do not count
        assert len(cached(tmp_path, KEY, never)[0]) == count
        best = min(best, time.process_time() - began)
    assert best < 0.5
