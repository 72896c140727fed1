"""What a look at a data set finds, and the report of it."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from fastctc.crnn.augment import AugmentConfig
from fastctc.crnn.drawing import FormulaSource
from fastctc.crnn.explore import Drawn, Exploration, explore, visible, visible_character
from fastctc.crnn.explore_report import PICTURES, write_report
from fastctc.crnn.preprocess import PreprocessConfig
from fastctc.crnn.readers import FolderSource

CONFIG = PreprocessConfig(height=64, median=3)
LABELS = {
    "a.png": "1+2",
    "b.png": "<b>&amp; $x^2$",
    "long.png": "11223344",
    "c.png": "1+2",
    "empty.png": "",
    "bad.png": "7",
    "<none>.png": "8\x07 8",
}


def frames(width: int) -> int:
    return -(-width // 8)


@pytest.fixture
def folder(tmp_path):
    """Five images that can be read, one of them too narrow for its label, one damaged and one missing."""
    rng = np.random.default_rng(0)
    for name, size, contrast in (
        ("a.png", (180, 60), 40),
        ("b.png", (300, 50), 5),
        ("long.png", (70, 64), 20),
        ("c.png", (180, 60), 80),
        ("empty.png", (90, 30), 0),
    ):
        steps = rng.choice([-1, 1], (size[1], size[0])) if contrast else np.zeros((size[1], size[0]))
        Image.fromarray((150 + contrast * steps).astype(np.uint8)).convert("RGB").save(tmp_path / name)
    (tmp_path / "bad.png").write_bytes((tmp_path / "a.png").read_bytes()[:200])
    lines = [f"{name}\t{text}\n" for name, text in LABELS.items()]
    (tmp_path / "labels.tsv").write_text("".join(lines), encoding="utf-8")
    return tmp_path


def numbers(text: str) -> list[float]:
    """Return the numbers in a text, whatever the words around them are."""
    return [float(each) for each in re.findall(r"\d+(?:\.\d+)?", text)]


def test_what_is_found_in_a_folder(folder):
    done = []
    found = explore(FolderSource(folder), CONFIG, frames, on_progress=done.append)
    assert found.count == 7 and sum(done) == 7
    assert found.lengths == {3: 2, 14: 1, 8: 1, 0: 1, 1: 1, 4: 1}
    assert found.characters["1"] == 4 and found.characters["8"] == 2 and found.different == 6
    assert found.alphabet == "".join(sorted(set("".join(LABELS.values()))))
    assert [m.name for m in found.measured] == ["a.png", "b.png", "long.png", "c.png", "empty.png"]
    assert [(m.width, m.height) for m in found.measured[:3]] == [(180, 60), (300, 50), (70, 64)]
    assert [m.contrast for m in found.measured] == pytest.approx(
        [each / 255 for each in (40, 5, 20, 80, 0)], rel=0.01
    )
    assert [m.frames for m in found.measured] == [24, 48, 9, 24, 24]
    assert [m.frames_needed for m in found.measured] == [3, 14, 12, 3, 0]
    assert [m.name for m in found.lowest_contrasts(2)] == ["empty.png", "b.png"]
    assert [p.name for p in found.unreadable] == ["bad.png", "<none>.png"]
    assert [p.name for p in found.too_long] == ["long.png"]
    assert numbers(found.too_long[0].reason) == [11223344, 12, 9]  # label, frames needed, frames there
    words = found.summary()
    assert list(words) == ["labels", "alphabet", "images", "sizes", "contrast", "frames"]
    assert numbers(words["labels"]) == [7, 0, 14, 3, 6, 1]  # all, shortest, longest, median, different, empty
    assert numbers(words["alphabet"])[0] == len(found.alphabet) and "\\x07␣$&+1234" in words["alphabet"]
    assert numbers(words["images"]) == [5, 7]
    assert numbers(words["sizes"]) == [70, 300, 180, 30, 64, 60]
    assert numbers(words["contrast"])[:3] == [0, 0.314, 0.078]
    assert numbers(words["frames"]) == [9, 48, 24, 1]


def test_of_many_images_some_are_looked_at_but_all_labels_counted():
    data = Drawn(FormulaSource(renderer="glyphs", seed=3), 40, first=100)
    one, two, other = (explore(data, CONFIG, frames, limit=7, seed=seed) for seed in (1, 1, 2))
    assert one.count == sum(one.lengths.values()) == 40 and len(one.measured) == 7
    assert one == two != other and one.lengths == other.lengths
    assert [m.index for m in one.measured] == sorted(m.index for m in one.measured)
    assert one.measured[0].name == f"sample {100 + one.measured[0].index}"
    assert data(3)[1] == FormulaSource(renderer="glyphs", seed=3)(103)[1]


class Page(HTMLParser):
    """What a page holds; fails on tags that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, str]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        assert tag in {
            "html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "table", "tr", "th", "td",
            "section", "details", "summary", "ul", "li", "img",
        }  # fmt: skip
        if tag == "img":
            self.images.append(dict(attributes))
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_report_is_one_whole_page_with_its_pictures(folder, tmp_path):
    data = FolderSource(folder)
    found = explore(data, CONFIG, frames)
    augment = AugmentConfig(rotate=3)
    done = []
    out = tmp_path / "deep" / "look"
    report = write_report(found, data, out, "<my> & data", CONFIG, augment, on_picture=done.append)
    text = report.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>") and text.endswith("</html>\n")
    assert not re.search(r'(src|href)="(?!data:image/png;base64,)', text)
    page = Page(text)
    for words in found.summary().values():
        assert words in page.text
    for problem in (*found.unreadable, *found.too_long):
        assert visible(str(problem)) in page.text
    assert "<my> & data" in page.text and "<none>.png" in page.text
    assert sum(done) == len(page.images) == PICTURES
    files = sorted(path.name for path in out.iterdir())
    assert len(files) == PICTURES + 1 and all(name.endswith(".png") for name in files if name != report.name)
    for image in page.images:
        png = base64.b64decode(image["src"].partition(",")[2], validate=True)
        assert image["alt"] and Image.open(io.BytesIO(png)).size[0] > 1000
        assert png in [path.read_bytes() for path in out.glob("*.png")]
    before = report.read_bytes()
    write_report(found, data, out, "<my> & data", CONFIG, augment)
    assert report.read_bytes() == before


def test_a_report_of_nothing_that_can_be_read(tmp_path):
    (tmp_path / "labels.tsv").write_text("a.png\tx\n")
    data = FolderSource(tmp_path)
    found = explore(data, CONFIG, frames)
    report = write_report(found, data, tmp_path, "none", CONFIG, AugmentConfig())
    page = Page(report.read_text(encoding="utf-8"))
    assert "a.png" in page.text and not page.images
    assert numbers(Exploration().summary()["labels"]) == [0, 0]


def test_what_cannot_be_seen_is_written_out():
    assert visible("a b\n\x00é中\u202e\udc80") == "a b\\n\\x00é中\\u202e\\udc80"
    assert [visible_character(c) for c in " a\t"] == ["␣", "a", "\\t"]
