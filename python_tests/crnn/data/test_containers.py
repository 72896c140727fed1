"""Images in tar files, Parquet files and LMDBs: to read, and with their labels."""

from __future__ import annotations

import io
import json
import multiprocessing
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from fastctc.crnn.data import (
    ImageError,
    Inputs,
    LabeledSource,
    LabelError,
    PreprocessConfig,
    collect_all,
    images,
    inputs,
    open_source,
)
from fastctc.crnn.data.containers import container_entries

EVERY, NONE = (lambda number: True), (lambda number: False)


def png(width: int = 8) -> bytes:
    content = io.BytesIO()
    Image.new("L", (width, 8), 255).save(content, "PNG")
    return content.getvalue()


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def samples(count: int) -> dict[str, bytes]:
    """Return the members of a shard; the texts stand before and behind the images."""
    members: dict[str, bytes] = {}
    for i in range(count):
        members |= {f"a/{i:04d}.png": png(8 + i), f"a/{i:04d}.txt": f"text {i}ä\n".encode()}
    return members


def write_parquet(path: Path, columns: dict[str, list[object]], **options: object) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table(columns), path, **options)
    return path


@pytest.mark.parametrize(
    ("suffix", "mode"), [(".tar", "w"), (".tar.gz", "w:gz"), (".TGZ", "w:gz"), (".tar.xz", "w:xz")]
)
def test_a_tar_file_is_read_in_order_and_what_is_not_wanted_has_a_name_alone(suffix, mode, tmp_path):
    path = write_tar(tmp_path / f"a{suffix}", samples(5), mode)
    found = list(container_entries(path, lambda number: number % 2 == 0))
    assert [entry.name for entry in found] == [f"{path}/a/{i:04d}.png" for i in range(5)]
    assert [entry.image for entry in found] == [png(8 + i) if i % 2 == 0 else None for i in range(5)]
    assert {entry.text for entry in found} == {None}
    labeled = list(container_entries(path, EVERY, labels=True))
    assert [(entry.image, entry.text) for entry in labeled] == [(png(8 + i), f"text {i}ä") for i in range(5)]


def test_the_texts_of_a_tar_file_are_members_of_the_images_key(tmp_path):
    members = {
        "a.gt.txt": b"one\r\n", "a.png": png(),
        "b.JPG": png(), "b.json": b'{"text": "two"}',
        "c.json": b'{"text": "json"}', "c.label": b"three", "c.left.png": png(), "c.right.webp": png(),
        "d.png": png(), "._e.png": b"of a Mac", "e.png": png(), "e.txt": b"\xff",
        "folder/a.png": png(), "f.json": b"[1]", "f.png": png(), "f.cls": b"7",
    }  # fmt: skip
    path = write_tar(tmp_path / "a.tar", members)
    found = {
        entry.name.removeprefix(f"{path}/"): entry for entry in container_entries(path, EVERY, labels=True)
    }
    texts = {name: entry.text for name, entry in found.items() if entry.text is not None}
    assert texts == {"a.png": "one", "b.JPG": "two", "c.left.png": "three", "c.right.webp": "three"}
    reasons = {name: str(entry.image) for name, entry in found.items() if entry.text is None}
    missing = "no text beside it: none of txt, gt.txt, text, label, json"
    assert reasons == {
        "d.png": missing, "e.png": "its .txt is not UTF-8: invalid start byte at byte 0",
        "folder/a.png": missing, "f.png": missing,
    }  # fmt: skip


@pytest.mark.parametrize(
    "kind", ["cut in an image", "cut in a header", "garbage", "gzip cut", "not a tar", "missing"]
)
def test_a_damaged_tar_file_gives_the_images_before_and_one_error(kind, tmp_path):
    """Whichever images are wanted, so that numbers mean the same in every pass."""
    path = write_tar(
        tmp_path / ("a.tar.gz" if "gzip" in kind else "a.tar"), samples(6), "w:gz" if "gzip" in kind else "w"
    )
    content = path.read_bytes()
    with tarfile.open(path) as archive:
        third = archive.getmembers()[6]
    cut = {
        "cut in an image": content[: third.offset_data + 9], "cut in a header": content[: third.offset + 99],
        "garbage": content[: third.offset] + b"x" * 4096, "gzip cut": content[: len(content) // 2],
        "not a tar": b"not a tar" * 999,
    }  # fmt: skip
    path.unlink() if kind == "missing" else path.write_bytes(cut[kind])
    found = list(container_entries(path, EVERY))
    passes = [
        list(container_entries(path, lambda number, which=which: number == which)) for which in (-1, 0, 3)
    ]
    assert all([entry.name for entry in each] == [entry.name for entry in found] for each in passes)
    assert found[-1].name == str(path) and isinstance(found[-1].image, ImageError)
    reason = "no such file" if kind == "missing" else "not a whole tar file: "
    assert str(found[-1].image).startswith(reason)
    good = [entry for entry in found if isinstance(entry.image, bytes)]
    assert [entry.image for entry in good] == [png(8 + i) for i in range(len(good))]
    if kind in ("cut in an image", "cut in a header", "garbage"):
        assert len(good) == 3


def test_a_tar_file_without_its_end_is_whole(tmp_path):
    path = write_tar(tmp_path / "a.tar", samples(2))
    with tarfile.open(path) as archive:
        end = archive.getmembers()[-1].offset + 1024
    path.write_bytes(path.read_bytes()[:end])
    assert [type(entry.image) for entry in container_entries(path, EVERY)] == [bytes, bytes]


@pytest.mark.parametrize("structures", [False, True])
@pytest.mark.parametrize("group", [3, 100])
def test_parquet(structures, group, tmp_path):
    (tmp_path / "9.png").write_bytes(png(9))
    column: list[object] = [png(8 + i) for i in range(8)]
    expected = [*column, ImageError("column image has no value, expected encoded bytes")]
    if structures:
        column = [{"bytes": each, "path": None} for each in column]
        column[1], expected[1] = {"bytes": None, "path": "9.png"}, tmp_path / "9.png"
    path = write_parquet(
        tmp_path / "a.parquet", {"image": [*column, None], "label": list("abcdefghi")}, row_group_size=group
    )
    found = list(container_entries(path, EVERY))
    assert [entry.name for entry in found] == [f"{path}/{i}" for i in range(9)]
    assert [str(entry.image) for entry in found] == list(map(str, expected))
    some = list(container_entries(path, lambda number: number in (4, 5)))
    assert [n for n, entry in enumerate(some) if entry.image is not None] == [4, 5]
    assert [entry.name for entry in some] == [entry.name for entry in found]
    labeled = list(container_entries(path, EVERY, labels=True))
    assert [entry.text for entry in labeled] == [*"abcdefgh", None]


def test_parquet_files_that_cannot_be_read(tmp_path):
    numbers = write_parquet(tmp_path / "a.parquet", {"image": [1], "text": ["a"]})
    other = write_parquet(tmp_path / "b.parquet", {"picture": [png()], "text": ["a"]})
    no_text = write_parquet(tmp_path / "c.parquet", {"image": [png()], "label": [3]})
    (tmp_path / "d.parquet").write_bytes(b"PAR1")
    damaged = write_parquet(
        tmp_path / "e.parquet",
        {"image": [png(i) for i in range(1, 9)]},
        compression="none",
        row_group_size=4,
        use_dictionary=False,
    )
    content = bytearray(damaged.read_bytes())
    content[4:40] = b"\xff" * 36  # the header of the first page
    damaged.write_bytes(content)
    for path, labels, reason in [
        (numbers, False, "column image has a int, expected encoded bytes"),
        (other, False, "not a readable Parquet file: its columns are picture, text, expected image"),
        (no_text, True, "column label has 3, expected a text"),
        (tmp_path / "d.parquet", False, "not a readable Parquet file: "),
        (tmp_path / "none.parquet", False, "no such file"),
    ]:
        (entry,) = container_entries(path, EVERY, labels=labels)
        assert str(entry.image).startswith(reason), entry
    found = list(container_entries(damaged, EVERY))
    assert [isinstance(entry.image, bytes) for entry in found] == [False] * 4 + [True] * 4
    assert str(found[0].image).startswith("damaged Parquet file: ")
    assert [entry.name for entry in container_entries(damaged, NONE)] == [entry.name for entry in found]


def test_inputs_are_files_folders_containers_and_patterns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b/2.png", "b/a/1.png", "one.png", "[x].png", "empty/notes.txt"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(png())
    for i in range(9, 12):
        write_tar(tmp_path / f"s-{i:03d}.tar", samples(2))
    Path("shards/below").mkdir(parents=True)
    write_tar(tmp_path / "shards" / "below" / "x.tar", samples(1))

    def names(*patterns: str) -> list[str]:
        found = list(Inputs(patterns).entries(NONE))
        assert {entry.image for entry in found if not isinstance(entry.image, ValueError)} <= {None}
        return [entry.name for entry in found]

    assert names("one.png", "b", "[x].png") == ["one.png", "b/2.png", "b/a/1.png", "[x].png"]
    assert names("s-{009..010}.tar") == [f"s-{i:03d}.tar/a/{k:04d}.png" for i in (9, 10) for k in (0, 1)]
    assert (
        names("s-*.tar")
        == names("s-{009..011}.tar")
        == names("{s-009,s-010,s-011}.tar")
        == names("s-0[01]?.tar")
    )
    assert names("shards") == ["shards/below/x.tar/a/0000.png"]
    assert names("none-*.png", "empty", "{none,one}.png") == ["none-*.png", "empty", "none.png", "one.png"]
    (entry,) = Inputs(["empty"]).entries()
    assert str(entry.image) == "no image in this folder"
    assert Inputs(["one.png", "none.png"]).count() == 2 and Inputs(["b"]).count() is None
    everything = ["one.png", "b", "s-*.tar", "empty"]
    assert [entry.name for entry in Inputs(everything).entries()] == names(*everything)
    for which in range(9):
        found = list(Inputs(everything).entries(lambda number, which=which: number == which))
        assert [isinstance(entry.image, bytes | Path) for entry in found[:9]] == [
            n == which for n in range(9)
        ]


def test_the_fingerprint_of_inputs_changes_with_names_and_files(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(png())
    tar = write_tar(tmp_path / "a.tar", samples(1))
    first = Inputs([tmp_path / "a", tar]).fingerprint()
    assert Inputs([tmp_path / "a", tar]).fingerprint() == first
    (tmp_path / "a" / "2.png").write_bytes(png())
    second = Inputs([tmp_path / "a", tar]).fingerprint()
    write_tar(tar, samples(2))
    assert (
        len({json.dumps(each) for each in (first, second, Inputs([tmp_path / "a", tar]).fingerprint())}) == 3
    )


def test_files_of_a_folder_come_in_the_order_of_their_paths(tmp_path):
    for name in ("a-b/1.png", "a/2.png", "a.png", "a/b.png", "A/c.png", "a b/d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = images.images_in(tmp_path, recursive=True)
    assert found == sorted(found) and len(found) == 6


@pytest.mark.parametrize(("suffix", "package"), [(".parquet", "pyarrow"), (".mdb", "lmdb")])
def test_a_missing_package_is_named_before_anything_is_read(suffix, package, tmp_path, monkeypatch):
    (tmp_path / f"a{suffix}").write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, package, None)
    extra = {"pyarrow": "parquet"}.get(package, package)
    with pytest.raises(
        ModuleNotFoundError, match=rf"needs the package {package}: pip install fastctc\[{extra}\]"
    ):
        Inputs([tmp_path / f"a{suffix}"])


def test_an_lmdb_is_read_without_labels(tmp_path):
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(tmp_path), map_size=1 << 24) as environment, environment.begin(write=True) as writing:
        for key, value in {
            "num-samples": b"3",
            "image-000000001": png(),
            "image-000000003": png(9),
            "x": b"",
        }.items():
            writing.put(key.encode(), value)
    found = list(Inputs([tmp_path]).entries())
    place = tmp_path / "data.mdb"
    assert [entry.name for entry in found] == [f"{place}/image-{i:09d}" for i in (1, 2, 3)]
    assert found[0].image == png() and str(found[1].image) == "no key image-000000002"
    place.write_bytes(b"junk")
    (entry,) = Inputs([place]).entries()
    assert isinstance(entry.image, ImageError) and "LMDB" in str(entry.image)


_inherited: list[LabeledSource] = []


def _read_inherited(index: int) -> object:
    return _inherited[0](index)


@pytest.fixture(params=["tar", "tar.gz", "parquet"])
def shards(request, tmp_path) -> Path:
    """Write three containers of labeled images into a folder."""
    for k in range(3):
        path = tmp_path / f"{k}.{request.param}"
        if request.param == "parquet":
            write_parquet(
                path, {"image": [png(8 + i) for i in range(5)], "text": [f"text {i}ä" for i in range(5)]}
            )
        else:
            write_tar(path, samples(5), "w:gz" if request.param == "tar.gz" else "w")
    return tmp_path


def test_containers_are_a_data_set(shards):
    source = open_source(shards)
    assert len(source) == 15
    expected = [(png(8 + i), f"text {i}ä") for _ in range(3) for i in range(5)]
    assert [source(i) for i in range(15)] == expected
    for i in (14, 3, 3, 4, 7, 0, 14):  # in any order
        assert source(i) == expected[i] and source.stored_text(i) == expected[i][1]
    assert source.name(5).startswith(str(shards / "1."))
    copy = pickle.loads(pickle.dumps(source))
    assert copy(2) == expected[2] and copy.key() == source.key()
    with pytest.raises(IndexError, match="sample 15 of 15"):
        source(15)
    one = open_source(sorted(shards.iterdir())[1])
    assert len(one) == 5 and one.key() != source.key()
    prepared, problems = collect_all(source, PreprocessConfig(), workers=0)
    assert not problems and prepared.texts == [text for _, text in expected]


def test_containers_are_read_by_threads_and_forks_at_once(shards):
    source = open_source(shards)
    expected = [source(i) for i in range(15)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(source, [*range(15)] * 3)) == expected * 3
    source(3)
    _inherited[:] = [source]
    with multiprocessing.get_context("fork").Pool(2) as forks:
        assert forks.map(_read_inherited, range(15)) == expected
    assert source(4) == expected[4]


def test_samples_without_a_text_are_problems_and_no_image_at_all_is_an_error(tmp_path):
    path = write_tar(tmp_path / "a.tar", samples(2) | {"z.png": png()})
    source = open_source(path)
    assert len(source) == 3
    with pytest.raises(LabelError, match="no text beside it"):
        source(2)
    with pytest.raises(LabelError, match=r"b.tar: not a whole tar file"):
        (tmp_path / "b.tar").write_bytes(b"junk" * 999)
        open_source(tmp_path / "b.tar")
    with pytest.raises(LabelError, match="has no image"):
        open_source(write_tar(tmp_path / "c.tar", {"a.txt": b"a"}))


def test_two_images_of_one_key_are_two_samples(tmp_path):
    members = {"a.txt": b"a", "a.l.png": png(1), "a.r.png": png(2), "b.png": png(3), "b.txt": b"b"}
    source = open_source(write_tar(tmp_path / "a.tar", members))
    assert [source(i) for i in (0, 1, 2, 1)] == [(png(1), "a"), (png(2), "a"), (png(3), "b"), (png(2), "a")]


def test_braces_expand_as_in_a_shell():
    def names(pattern: str) -> list[str]:
        return [str(path) for path in inputs.expanded(pattern)]

    assert names("x{8..11}") == ["x8", "x9", "x10", "x11"]
    assert names("{a,b}-{01..02}") == ["a-01", "a-02", "b-01", "b-02"]
    assert names("{one}.png") == ["{one}.png"] and names("a{,b}") == ["a", "ab"]
