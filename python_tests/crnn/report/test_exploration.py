"""What is found in a data set, and the report of it."""

import re
from collections import Counter

import numpy as np
import pytest
from pages import Page
from PIL import Image

from fastctc.crnn.data import (
    CHANGES,
    AugmentConfig,
    Drawn,
    PreprocessConfig,
    open_source,
    settings_of,
)
from fastctc.crnn.formulas import FormulaSource
from fastctc.crnn.report import PICTURES, Exploration, explore, write_exploration_report
from fastctc.crnn.report.exploration_figures import augmentation_sheet, filters_sheet, labels_figure
from fastctc.crnn.report.visible import visible

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
    """Write five images that can be read, one of them too narrow for its label, one damaged and one missing."""
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


def test_what_is_found_in_a_folder(folder):
    done = []
    found = explore(open_source(folder), CONFIG, frames, on_progress=done.append)
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
    assert [str(p) for p in found.too_long] == ["long.png: label '11223344' needs 12 frames, the image has 9"]


def numbers(words: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", words)]


def test_a_summary_has_the_figures(folder):
    found = explore(open_source(folder), CONFIG, frames)
    words = found.summary()
    assert list(words) == ["labels", "alphabet", "images", "sizes", "contrast", "copies", "frames"]
    assert numbers(words["labels"]) == [7, 0, 14, 3, 6, 1]  # count, least, greatest, median, different, empty
    assert numbers(words["alphabet"])[0] == len(found.alphabet) and "\\x07␣$&+1234" in words["alphabet"]
    assert numbers(words["images"]) == [5, 7]
    assert numbers(words["sizes"]) == [70, 300, 180, 30, 64, 60]  # each least, greatest, median
    assert numbers(words["contrast"])[:3] == [0, 0.314, 0.078]
    assert numbers(words["frames"]) == [9, 48, 24, 1]
    assert numbers(Exploration().summary()["labels"]) == [0, 0]


def test_of_many_images_some_are_looked_at_but_all_labels_counted():
    data = Drawn(FormulaSource(renderer="glyphs", seed=3), 40, first=100)
    one, two, other = (explore(data, CONFIG, frames, limit=7, seed=seed) for seed in (1, 1, 2))
    assert one.count == sum(one.lengths.values()) == 40 and len(one.measured) == 7
    assert one == two != other and one.lengths == other.lengths
    assert [m.index for m in one.measured] == sorted(m.index for m in one.measured)
    assert one.measured[0].name == f"sample {100 + one.measured[0].index}"
    assert data(3)[1] == FormulaSource(renderer="glyphs", seed=3)(103)[1]


def test_the_report_is_one_whole_page_with_its_pictures(folder, tmp_path):
    data = open_source(folder)
    found = explore(data, CONFIG, frames)
    augment = AugmentConfig(rotate=3)
    done = []
    out = tmp_path / "deep" / "look"
    report = write_exploration_report(
        found, data, out, "<my> & data", CONFIG, augment, on_picture=done.append
    )
    page = Page(report)
    for words in found.summary().values():
        assert words in page.text
    for problem in (*found.unreadable, *found.too_long):
        assert visible(str(problem)) in page.text
    assert "<my> & data" in page.text and "<none>.png: no such file" in page.text
    sizes = page.check_pictures()
    assert sum(done) == len(sizes) == len(page.all("img")) == PICTURES
    assert all(width > 1000 for width, _ in sizes.values())
    before = report.read_bytes()
    write_exploration_report(found, data, str(out), "<my> & data", CONFIG, augment)
    assert report.read_bytes() == before


def test_a_report_of_nothing_that_can_be_read(tmp_path):
    (tmp_path / "labels.tsv").write_text("a.png\tx\n")
    data = open_source(tmp_path)
    found = explore(data, CONFIG, frames)
    page = Page(write_exploration_report(found, data, tmp_path, "none", CONFIG, AugmentConfig()))
    assert "a.png: no such file" in page.text and not page.all("img")


def texts(figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_every_filter_that_is_off_is_shown(folder):
    samples = [(folder / name, LABELS[name]) for name in ("a.png", "b.png")]
    filters = [each.name for each in settings_of(PreprocessConfig, "shown")]
    for config in (PreprocessConfig(), PreprocessConfig(median=3, equalize=True)):
        shown = texts(filters_sheet(samples, config))
        options = [text.split()[0].removeprefix("--") for text in shown if text.startswith("--")]
        assert options == [name for name in filters if not getattr(config, name)]
        assert "as configured" in shown and LABELS["b.png"] in shown


def test_every_change_is_shown():
    image = np.full((32, 100), 255, np.uint8)
    image[8:24, 20:80] = 0
    for config in (AugmentConfig(), AugmentConfig(shift=0, noise=7)):
        shown = texts(augmentation_sheet([image, image // 2 + 127], config, seed=0))
        options = [text for text in shown if text.startswith("--")]
        assert len(options) == len(CHANGES)
        for option, change in zip(options, CHANGES, strict=True):
            value = getattr(config, change.name)
            words = option.removeprefix("--").split()
            assert words[:2] == [change.name, f"{value or change.metadata['shown']:g}"]
            assert words[2:] == ([] if value else ["(off)"])
    assert {"4 px left", "height +8%", "+4.6°", "0.25 px", "power 1.50", "7 levels"} <= set(shown)


def test_a_change_of_gray_levels_is_shown_on_the_last_image():
    sharp, faint = np.full((2, 32, 100), 255, np.uint8)
    sharp[8:24, 20:50], faint[8:24, 20:50] = 0, 140
    (axes,) = augmentation_sheet([sharp, faint], AugmentConfig(), seed=0).axes
    pictures = [np.asarray(image.get_array()) for image in axes.images]
    pictures = pictures[2:-16]  # without the unchanged pictures and the pictures of training
    for change, start in zip(CHANGES, range(0, len(pictures), 4), strict=True):
        strongest = pictures[start + 3]
        assert (strongest.min() > 100) == (change.name == "contrast")


def test_characters_are_literal():
    found = Exploration(characters=Counter("$_中\x07 \U000e0041"), lengths=Counter({1: 6}))
    labels = labels_figure(found).axes[1].get_xticklabels()
    shown = [label.get_text() for label in labels]
    assert shown[:2] == ["$", "_"] and shown[3:5] == ["\\x07", "␣"]
    assert shown[2] in ("中", "U+4E2D") and shown[5] in ("\\U000e0041", "U+E0041")
    assert not any(label.get_parse_math() for label in labels)
