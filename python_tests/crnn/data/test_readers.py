"""Labels and images in folders, JSON files and LMDB."""

import json
import multiprocessing
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from fastctc.crnn.data import LabelError, labels, open_source
from fastctc.crnn.data.readers import FolderSource, LmdbSource


def read_labels(path: Path) -> list[tuple[str, str]]:
    return [(label.name, label.text) for label in labels.read_labels(path)]


def write_lmdb(path: Path, pairs: dict[str, bytes]) -> None:
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(path), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for key, value in pairs.items():
            transaction.put(key.encode(), value)


def scene_text(count: int) -> dict[str, bytes]:
    pairs = {"num-samples": str(count).encode()}
    for i in range(1, count + 1):
        pairs |= {f"image-{i:09d}": b"image %d" % i, f"label-{i:09d}": f"{i}ä".encode()}
    return pairs


def test_labels_files(tmp_path):
    path = tmp_path / "labels.tsv"
    path.write_text("\ufeffa.png\tx=1\n\nb c.png\t\nd.png\tä b\n", encoding="utf-8")
    assert read_labels(path) == [("a.png", "x=1"), ("b c.png", ""), ("d.png", "ä b")]
    path.write_bytes(
        b"a.png\tx\x0cy\xe2\x80\xa8z\r\nb.png\ty"
    )  # line breaks of str.splitlines, none of files
    assert read_labels(path) == [("a.png", "x\x0cy\u2028z"), ("b.png", "y")]
    path.write_text("a.png\tx\nb.png y\n")
    with pytest.raises(
        LabelError, match=r"labels.tsv, line 2: expected a file name, a tab and a text, got 'b.png y'"
    ):
        read_labels(path)
    path.write_bytes(b"a.png\t\xff\n")
    with pytest.raises(LabelError, match=r"line 1, is not UTF-8: .* at byte 6"):
        read_labels(path)
    path.write_text("\n")
    with pytest.raises(LabelError, match="names no image"):
        read_labels(path)
    with pytest.raises(LabelError, match=r"cannot read .*none/labels.tsv: No such file"):
        FolderSource(tmp_path / "none")


@pytest.mark.parametrize(
    ("line", "pair"),
    [
        ("a b.png\tx y", ("a b.png", "x y")),
        ("a.png\t x, y ", ("a.png", " x, y ")),
        ("a.png hello world ", ("a.png", "hello world")),
        ("  a.png   1+2", ("a.png", "1+2")),
        ("a.png,1,5", ("a.png", "1,5")),
        ("a.png , x", ("a.png", "x")),
        ("a.png,", ("a.png", "")),
        ("a.png ", ("a.png", "")),
        ('word_1.png, "Genaxis Theatre"', ("word_1.png", "Genaxis Theatre")),
        (r'word_1.png, "\"Proper\\"', ("word_1.png", '"Proper\\')),
        ('a.png, "', ("a.png", '"')),
        ('a.png "x"', ("a.png", '"x"')),
        ("sub/../ä.png x", ("sub/../ä.png", "x")),
    ],
)
def test_scene_text_lines(tmp_path, line, pair):
    (tmp_path / "labels.txt").write_text(f"{line}\nb.png z\n", encoding="utf-8")
    assert read_labels(tmp_path / "labels.txt") == [pair, ("b.png", "z")]


@pytest.mark.parametrize("line", ["a.png", ",x", "\tx"])
def test_lines_that_are_none(tmp_path, line):
    (tmp_path / "labels.txt").write_text(f"b.png z\n{line}\n")
    with pytest.raises(
        LabelError, match=r"line 2: expected a file name, a tab, a comma or a space and a text"
    ):
        read_labels(tmp_path / "labels.txt")


@pytest.mark.parametrize(
    "content",
    [
        '{"a.png": "1", "a.png": "2", "b.png": ""}',
        '[{"image": "a.png", "text": "1"}, {"file": "a.png", "label": "2"}, {"filename": "b.png", "text": "",'
        ' "font": {"size": 3}}]',
    ],
)
def test_json_labels(tmp_path, content):
    (tmp_path / "labels.json").write_text(content)
    assert open_source(tmp_path).entries == [("a.png", "1"), ("a.png", "2"), ("b.png", "")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "labels.json is not JSON: Expecting property name"),
        ("[" * 100_000, "labels.json is not JSON: "),
        ('"a.png"', r'expected an object or a list, got "a.png"'),
        ("[]", "names no image"),
        ("{}", "names no image"),
        ('{"a.png": "1", "b.png": 2}', r"entry 2: expected a file name .* and a text .*, got \('b.png', 2\)"),
        ('["a.png"]', "entry 1: expected a file name"),
        ('[{"image": "a.png"}]', "entry 1: expected a file name"),
        ('[{"image": "a.png", "file": "b.png", "text": "1"}]', "entry 1: expected a file name"),
        ('{"": "1"}', "entry 1: expected a file name"),
        (r'{"a.png": "\ud800"}', "entry 1: expected a file name"),
    ],
)
def test_json_that_holds_no_labels(tmp_path, content, message):
    (tmp_path / "labels.json").write_text(content)
    with pytest.raises(LabelError, match=message):
        open_source(tmp_path)


def test_what_is_there_decides(tmp_path):
    with pytest.raises(LabelError, match=r"none does not exist, expected a folder with one of labels.tsv"):
        open_source(tmp_path / "none")
    with pytest.raises(
        LabelError,
        match=r"has none of labels.tsv, labels.txt, .*, data.mdb, and no \*.gt.txt or \*.xml, expected",
    ):
        open_source(tmp_path)
    (tmp_path / "2a3f_1.png").write_text("")
    with pytest.raises(LabelError, match=r"label_pattern .*: '\(\[\^_\]\+\)' reads 2a3f_1.png as 2a3f$"):
        open_source(tmp_path)
    (tmp_path / "2a3f_1.png").unlink()
    (tmp_path / "labels.txt").write_text("a.png 1\n")
    assert open_source(tmp_path).entries == [("a.png", "1")]
    (tmp_path / "labels.tsv").write_text(f"/data/b.png\t2\n../c.png\t3\n{tmp_path}/d.png\t4\n")
    with pytest.raises(LabelError, match=r"has labels.tsv and labels.txt, expected one of them"):
        open_source(tmp_path)
    source = open_source(tmp_path / "labels.tsv")  # naming the file chooses
    assert [source(i)[0] for i in range(3)] == [
        Path("/data/b.png"),
        tmp_path / "../c.png",
        tmp_path / "d.png",
    ]
    assert [source.name(i) for i in range(3)] == ["/data/b.png", "../c.png", f"{tmp_path}/d.png"]
    (tmp_path / "a.png").write_text("")
    with pytest.raises(
        LabelError, match=r"a.png ends in '.png', expected .tsv, .txt, .csv, .json, .jsonl or .mdb"
    ):
        open_source(tmp_path / "a.png")


def test_a_key_changes_with_labels_and_files(tmp_path):
    labels = tmp_path / "labels.tsv"
    labels.write_text("a.png\t1\nbad\0name\t2\n")
    image = tmp_path / "a.png"
    keys = []

    def changed() -> bool:
        keys.append(json.dumps(open_source(tmp_path).key()))
        return keys[-1] not in keys[:-1] and json.dumps(open_source(tmp_path).key()) == keys[-1]

    assert changed()
    Image.new("L", (9, 9)).save(image)
    assert changed()
    os.utime(image, ns=(0, 12345))
    assert changed()
    image.write_bytes(b"x")
    os.utime(image, ns=(0, 12345))
    assert changed()
    labels.write_text("a.png\t2\nbad\0name\t2\n")
    assert changed()
    labels.touch()
    assert not changed()


def read_in_child(source: LmdbSource, queue) -> None:
    queue.put([source(i) for i in range(len(source))])


def test_lmdb(tmp_path):
    write_lmdb(tmp_path, scene_text(3))
    (tmp_path / "lock.mdb").unlink()
    expected = [(f"image {i}".encode(), f"{i}ä") for i in (1, 2, 3)]
    source, file = open_source(tmp_path), open_source(tmp_path / "data.mdb")
    for each in (source, file, pickle.loads(pickle.dumps(source))):  # side by side in one process
        assert [each(i) for i in range(len(each))] == expected
    assert [source.name(i) for i in range(3)] == ["image-000000001", "image-000000002", "image-000000003"]
    with pytest.raises(IndexError, match="sample 3 of 3"):
        source(3)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=read_in_child, args=(source, queue))
    child.start()
    assert queue.get() == expected
    child.join()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(source, [0, 1, 2] * 20)) == expected * 20
    assert [each.name for each in tmp_path.iterdir()] == ["data.mdb"]  # not even a lock file was written
    before = source.key()
    assert before == file.key() and json.dumps(before)
    write_lmdb(tmp_path, {"label-000000002": b"new"})
    assert source.key() != before and source(1) == (b"image 2", "new")


def test_an_lmdbs_samples_may_be_incomplete(tmp_path):
    pairs = scene_text(4)
    del pairs["image-000000001"], pairs["label-000000002"]
    pairs["label-000000003"] = b"a\xff"
    write_lmdb(tmp_path, pairs)
    source = open_source(tmp_path)
    for i, message in enumerate(
        ["no key image-000000001", "no key label-000000002", "label-000000003 is not UTF-8: .* at byte 1"]
    ):
        with pytest.raises(LabelError, match=message):
            source(i)
    assert source(3) == (b"image 4", "4ä")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num-samples": b"many"}, "num-samples is b'many', expected a whole number"),
        ({"num-samples": b"0"}, "num-samples is 0, but there are 5 keys"),
        ({"num-samples": b"999999999"}, "num-samples is 999999999, but there are 5 keys"),
    ],
)
def test_lmdbs_without_a_usable_count(tmp_path, change, message):
    write_lmdb(tmp_path, scene_text(2) | change)
    with pytest.raises(LabelError, match=message):
        open_source(tmp_path)


def test_what_is_no_lmdb(tmp_path):
    write_lmdb(tmp_path, {"other": b"x" * 50_000})
    with pytest.raises(LabelError, match="has no key num-samples"):
        open_source(tmp_path)
    file = tmp_path / "data.mdb"
    content = file.read_bytes()
    for damaged, message in [
        (content[: len(content) // 2], "is truncated: .* bytes, expected"),
        (b"", "cannot read .*data.mdb as LMDB"),
        (b"text" * 5000, "cannot read .*data.mdb as LMDB: .*not an LMDB file"),
    ]:
        file.write_bytes(damaged)
        with pytest.raises(LabelError, match=message):
            open_source(tmp_path)
        assert file.read_bytes() == damaged
