"""Images that are there twice, in two data sets, and labels that a model does not believe."""

import io

import numpy as np
import pytest
from PIL import Image

from fastctc import cli
from fastctc.crnn import Recognizer
from fastctc.crnn.data import PreprocessConfig, open_source, prepare, write_folder
from fastctc.crnn.formulas import FormulaSource
from fastctc.crnn.report import suspects
from fastctc.crnn.report.duplicates import look_of, pairs_between, pairs_within

CONFIG = PreprocessConfig(height=64)
SOURCE = FormulaSource(look="contest", renderer="captcha", seed=5)


def picture(index: int) -> Image.Image:
    image = SOURCE(index)[0]
    return (Image.fromarray(image) if isinstance(image, np.ndarray) else image).convert("L")


def look(image: Image.Image):
    return look_of(prepare(image, CONFIG).pixels)


def as_jpeg(image: Image.Image) -> Image.Image:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=60)
    return Image.open(content)


COPIES = {
    "the same": lambda image: image,
    "JPEG": as_jpeg,
    "smaller": lambda image: image.resize((image.width * 2 // 3, image.height * 2 // 3)),
    "darker": lambda image: image.point([int(0.7 * level) for level in range(256)]),
}


@pytest.mark.parametrize("kind", COPIES)
def test_copies_are_found(kind):
    originals = [look(picture(i)) for i in range(30)]
    copies = [look(COPIES[kind](picture(i))) for i in (3, 17, 29)]
    assert pairs_within(originals) == []
    found = pairs_within([*originals, *copies])
    assert [pair[:2] for pair in found] == [(3, 30), (17, 31), (29, 32)]
    assert [pair[:2] for pair in pairs_between(copies, originals)] == [(0, 3), (1, 17), (2, 29)]
    if kind == "the same":
        assert all(equal for _, _, equal in found)


def test_more_images_than_one_block(monkeypatch):
    monkeypatch.setattr("fastctc.crnn.report.duplicates._BLOCK", 4)
    looks = [look(picture(i % 9)) for i in range(13)]
    assert pairs_within(looks) == [(i, 9 + i, True) for i in range(4)]


def test_empty_images_are_no_copies():
    empty = look(Image.new("L", (180, 60), 255))
    assert pairs_within([empty, empty]) == [] and pairs_within([]) == [] and pairs_between([empty], []) == []


@pytest.fixture
def folder(tmp_path):
    write_folder(FormulaSource(look="contest", renderer="captcha", seed=77), tmp_path / "data", 20)
    return tmp_path / "data"


def relabel(folder, **labels):
    path = folder / "labels.tsv"
    lines = dict(line.split("\t") for line in path.read_text().splitlines())
    lines |= {f"{name.removeprefix('n')}.png": label for name, label in labels.items()}
    path.write_text("".join(f"{name}\t{label}\n" for name, label in lines.items()))


def test_wrong_labels_are_ranked_first(folder):
    relabel(folder, n000004="1+1=2", n000011="x", n000013="")
    (folder / "000002.png").write_bytes(b"junk")
    found = suspects(Recognizer.load("formula"), open_source(folder), range(20))
    assert [one.name for one in found[:3]] == ["000011.png", "000013.png", "000004.png"]
    assert found[0].doubt == np.inf and found[2].doubt > 10 and len(found) < 7


def test_explore_names_copies_and_suspects(folder, tmp_path, capsys):
    relabel(folder, n000004="1+1=2")
    test = tmp_path / "test"
    test.mkdir()
    picture(3).save(test / "own.png")
    (test / "copy.png").write_bytes((folder / "000007.png").read_bytes())
    (folder / "twice.png").write_bytes((folder / "000009.png").read_bytes())
    relabel(folder, twice="7")
    (test / "labels.tsv").write_text("own.png\t1\ncopy.png\t1\n")
    command = ["explore", str(folder), "--against", str(test), "--checkpoint", "formula", "--out"]
    assert cli.main([*command, str(tmp_path / "look"), "--height", "64"]) == 0
    out, err = capsys.readouterr()
    assert "copies    1 here before, 1 in the other data" in out
    assert "twice.png: the same image as 000009.png; but its label is '7', the other's" in err
    assert "000007.png: the same image as copy.png; but its label is" in err
    assert "000004.png: its label is '1+1=2', the model reads" in err
    page = (tmp_path / "look" / "report.html").read_text()
    assert "Images that are there twice" in page and "Labels that the model does not believe" in page
