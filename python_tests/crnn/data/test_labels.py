"""Labels in all spellings of data sets are read, or refused with the line."""

import json
import unicodedata

import pytest
from PIL import Image

from fastctc.crnn.data import LabelConfig, LabelError, PreprocessConfig, collect_all, open_source
from fastctc.crnn.data.labels import read_labels


def pairs_of(path) -> list[tuple[str, str]]:
    return [(label.name, label.text) for label in read_labels(path)]


READ = {
    "csv with a header": ("labels.csv", "image,text\na.png,1+2\nb.png,3\n"),
    "csv without a header": ("labels.csv", "a.png,1+2\nb.png,3\n"),
    "csv with three columns": ("labels.csv", "id,filename,label\n1,a.png,1+2\n2,b.png,3\n"),
    "csv with columns in another order": ("labels.csv", "Text,File_Name\n1+2,a.png\n3,b.png\n"),
    "csv with semicolons": ("labels.csv", "image;text\na.png;1+2\nb.png;3\n"),
    "csv with tabs": ("labels.csv", "image\ttext\na.png\t1+2\nb.png\t3\n"),
    "csv with quotes": ("labels.csv", '"image","text"\n"a.png","1+2"\nb.png,"3"\n'),
    "csv with a byte order mark and CRLF": ("labels.csv", "\ufeffimage,text\r\na.png,1+2\r\n\r\nb.png,3\r\n"),
    "csv with old line ends": ("labels.csv", "image,text\ra.png,1+2\rb.png,3\r"),
    "tsv with a header": ("labels.tsv", "image\ttext\na.png\t1+2\nb.png\t3\n"),
    "tsv with three columns": ("labels.tsv", "image\twidth\ttext\na.png\t180\t1+2\nb.png\t90\t3\n"),
    "tsv with CRLF": ("labels.tsv", "a.png\t1+2\r\nb.png\t3\r\n"),
    "txt with a header": ("labels.txt", "filename, words\na.png, 1+2\nb.png, 3\n"),
    "jsonl": ("labels.jsonl", '{"image": "a.png", "text": "1+2"}\n\n{"file_name": "b.png", "label": "3"}\n'),
    "jsonl with more": (
        "labels.jsonl",
        '{"id": 1, "path": "a.png", "gt": "1+2"}\n{"image":"b.png","text":"3"}',
    ),
    "json with other keys": (
        "labels.json",
        '[{"path": "a.png", "gt": "1+2"}, {"Image": "b.png", "Text": "3"}]',
    ),
}


@pytest.mark.parametrize("kind", READ)
def test_labels_are_read(kind, tmp_path):
    name, content = READ[kind]
    (tmp_path / name).write_bytes(content.encode())
    assert pairs_of(tmp_path / name) == [("a.png", "1+2"), ("b.png", "3")]
    assert len(open_source(tmp_path)) == 2


@pytest.mark.parametrize(
    ("name", "line", "text"),
    [
        ("labels.csv", 'a.png,"1,5"', "1,5"),
        ("labels.csv", 'a.png;"1;5"', "1;5"),
        ("labels.csv", "a.png;1,5", "1,5"),
        ("labels.csv", 'a.png,"say ""a"""', 'say "a"'),
        ("labels.csv", "a.png,", ""),
        ("labels.txt", "a.png,1,5", "1,5"),
        ("labels.tsv", "a.png\t1,5", "1,5"),
        ("labels.tsv", 'a.png\t"1"', '"1"'),
        ("labels.tsv", "image\ttext", "text"),
    ],
)
def test_separators_and_quotes_in_a_text(name, line, text, tmp_path):
    if line.startswith("image"):
        Image.new("L", (9, 9)).save(tmp_path / "image", "PNG")  # a file of that name: the line is no header
    (tmp_path / name).write_text(line + "\n")
    assert pairs_of(tmp_path / name)[0][1] == text


REFUSED = {
    "a third column of a tsv": (
        "labels.tsv",
        "a.png\t1\nb.png\t2\tx\n",
        "line 2: expected .*; there are 3 columns",
    ),
    "a third column of a csv": (
        "labels.csv",
        "a.png,1\nb.png,1,5\n",
        "line 2: expected .* there are 3 columns",
    ),
    "a third column of a txt": ("labels.txt", "a.png\t1\tx\n", "line 1: expected .*; there are 3 columns"),
    "a missing column of a tsv": (
        "labels.tsv",
        "a.png\t1\nb.png\n",
        "line 2: expected a file name, a tab and a t",
    ),
    "a missing column of a csv": (
        "labels.csv",
        "a.png,1\nb.png\n",
        "line 2: expected a file name, a comma and",
    ),
    "fewer columns than the header": (
        "labels.csv",
        "id,image,text\n1,a.png\n",
        "line 2: expected 3 columns as in",
    ),
    "a missing file name": ("labels.csv", "a.png,1\n,2\n", "line 2: expected a file name"),
    "a quote that does not end": ("labels.csv", 'a.png,1\nb.png,"2\n', "line 2: unexpected end of data"),
    "a text of two lines": ("labels.csv", 'a.png,"1\n2"\n', r"line 1: the text '1\\n2' has a line break"),
    "a line of jsonl without text": (
        "labels.jsonl",
        '{"image":"a","text":"1"}\n{"image":"b"}\n',
        "line 2: expected",
    ),
    "a line that is not JSON": ("labels.jsonl", '{"image":"a","text":"1"}\n{"ima\n', "line 2, is not JSON"),
    "a number for a text": ("labels.jsonl", '{"image":"a","text":1}\n', "line 1: expected a file name"),
    "a header alone": ("labels.csv", "image,text\n", "names no image"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_labels_are_refused_with_the_line(kind, tmp_path):
    name, content, message = REFUSED[kind]
    (tmp_path / name).write_text(content)
    with pytest.raises(LabelError, match=f"{name}.*{message}"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a.png\tä\n".encode("utf-16"), "is UTF-16, expected UTF-8: iconv -f UTF-16 -t UTF-8"),
        (b"\xfe\xff" + "a.png\tx\n".encode("utf-16-be"), "is UTF-16"),
        ("a.png\tx\n".encode("utf-16-le"), "seems to be UTF-16"),
        ("a.png\tx\n".encode("utf-16-be"), "seems to be UTF-16"),
        ("a.png\tä\n".encode("utf-32"), "is UTF-32"),
        ("a.png\tx\nb.png\tä\n".encode("latin-1"), "line 2, is not UTF-8: .* at byte 14"),
    ],
)
@pytest.mark.parametrize("name", ["labels.tsv", "labels.csv", "labels.json"])
def test_other_encodings_are_named(content, message, name, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LabelError, match=f"{name}.*{message}"):
        open_source(tmp_path)


def images(folder, *names: str) -> None:
    for name in names:
        Image.new("L", (90, 30), 255).save(folder / name)


@pytest.mark.parametrize(
    ("pattern", "name", "text"),
    [
        (r"([^_]+)_", "2a3f_1.png", "2a3f"),
        (r"\d+_([^_]+)_\d+", "12_HOUSE_345.jpg", "HOUSE"),
        (r"_(?P<label>\w+)$", "x.1_abc.png", "abc"),
        (r"(?P<number>\d+)-(?P<label>.*)", "7-a b.png", "a b"),
    ],
)
def test_labels_in_file_names(pattern, name, text, tmp_path):
    images(tmp_path, name, ".png.png")
    source = open_source(tmp_path, LabelConfig(label_pattern=pattern))
    found = {source.name(i): i for i in range(len(source))}
    assert source(found[name]) == (tmp_path / name, text)
    with pytest.raises(LabelError, match=r"label_pattern .* does not find a text in '.png'"):
        source(found[".png.png"])
    samples, problems = collect_all(source, PreprocessConfig())
    assert samples.texts == [text] and [problem.name for problem in problems] == [".png.png"]
    assert json.dumps(source.key())


@pytest.mark.parametrize("pattern", ["(", "no group", "(a)(b)"])
def test_a_pattern_needs_one_group(pattern):
    with pytest.raises(
        ValueError, match=r"label_pattern is .*, expected a regular expression with one group"
    ):
        LabelConfig(label_pattern=pattern)


def test_texts_beside_images(tmp_path):
    images(tmp_path, "a.png", "b.bin.png", "c.tif", "d.png", "e.png")
    (tmp_path / "a.gt.txt").write_bytes(b"\xef\xbb\xbf1+2\r\n")
    (tmp_path / "b.gt.txt").write_text("x y")
    (tmp_path / "c.gt.txt").write_text("one\ntwo\n")
    (tmp_path / "d.gt.txt").write_bytes("ä".encode("latin-1"))
    (tmp_path / "f.gt.txt").write_text("alone")
    source = open_source(tmp_path)
    samples, problems = collect_all(source, PreprocessConfig())
    assert samples.texts == ["1+2", "x y"]
    reasons = {problem.name: problem.reason for problem in problems}
    assert reasons["c.tif"] == "c.gt.txt, line 2: expected one line"
    assert "d.gt.txt, line 1, is not UTF-8" in reasons["d.png"]
    assert reasons["e.png"] == "no e.gt.txt beside it"
    assert reasons["f.gt.txt"] == "no image beside f.gt.txt"
    before = json.dumps(source.key())
    (tmp_path / "b.gt.txt").write_text("x z")
    assert json.dumps(open_source(tmp_path).key()) != before


@pytest.mark.parametrize("name", ["labels.tsv", "labels.csv", "labels.jsonl", "labels.json"])
def test_one_unreadable_item_does_not_stop_a_run_and_is_named_with_its_line(name, tmp_path):
    images(tmp_path, "a.png", "c.png")
    (tmp_path / "b.png").write_text("junk")
    names = ["a.png", "b.png", "none.png", "c.png"]
    entries = [{"image": each, "text": "1"} for each in names]
    content = {
        "labels.tsv": "".join(f"{each}\t1\n" for each in names),
        "labels.csv": "".join(f"{each},1\n" for each in names),
        "labels.jsonl": "".join(json.dumps(entry) + "\n" for entry in entries),
        "labels.json": json.dumps(entries),
    }[name]
    (tmp_path / name).write_text(content)
    samples, problems = collect_all(open_source(tmp_path), PreprocessConfig())
    assert samples.names == ["a.png", "c.png"]
    assert [problem.name for problem in problems] == ["b.png", "none.png"]
    what = "entry" if name == "labels.json" else "line"
    assert f"({name}, {what} 2)" in str(problems[0]) and f"({name}, {what} 3)" in str(problems[1])


def test_text_is_nfc_by_default(tmp_path):
    apart, whole = unicodedata.normalize("NFD", "é가ﬁ"), unicodedata.normalize("NFC", "é가ﬁ")
    (tmp_path / "labels.tsv").write_text(f"a.png\t{apart}\n", encoding="utf-8")
    source = open_source(tmp_path)
    assert source(0)[1] == whole and source.stored_text(0) == apart and source.entries == [("a.png", whole)]
    for form, text in [("none", apart), ("NFD", apart), ("NFKC", whole.replace("ﬁ", "fi"))]:
        assert open_source(tmp_path, LabelConfig(unicode_form=form))(0)[1] == text
    with pytest.raises(ValueError, match="unicode_form is 'nfc', expected 'NFC', 'NFD'"):
        LabelConfig(unicode_form="nfc")
    (tmp_path / "labels.tsv").unlink()
    images(tmp_path, "a.png")
    (tmp_path / "a.gt.txt").write_text(apart, encoding="utf-8")
    assert open_source(tmp_path)(0)[1] == whole
    images(tmp_path, f"{apart}_1.png")
    pattern = LabelConfig(label_pattern="([^_]+)_")
    found = open_source(tmp_path, pattern)
    assert whole in [found(i)[1] for i in range(len(found)) if "_" in found.name(i)]
