"""The page that both reports are written as."""

import pytest
from pages import Page

from fastctc.crnn.data import Problem
from fastctc.crnn.report.page import Section, Table, write_page
from fastctc.crnn.report.visible import columns, cut, visible, visible_character
from fastctc.figures import new_figure

NASTY = '<b>&amp; "it\'s" $x$ \x07\udc80 中'


def sections(count: int) -> list[Section]:
    return [Section(f"n{i}", NASTY, NASTY, lambda i=i: new_figure(2 + i, 1)) for i in range(count)]


def test_a_page_shows_any_text_as_it_is(tmp_path):
    done = []
    path = write_page(
        tmp_path / "deep" / "page",
        NASTY,
        {NASTY: NASTY},
        sections(2),
        tables=[Table(["a", NASTY], [["1", NASTY], [NASTY, "2"]])],
        problems={NASTY: [Problem(NASTY, NASTY)], "none": []},
        on_picture=done.append,
    )
    page = Page(path)
    # title twice, fact 2, table 3, problems 3, two sections of 2
    assert page.text.count(visible(NASTY)) == 14 and "none" not in page.text
    assert page.check_pictures() == {"n0": (260, 130), "n1": (390, 130)} and done == [1, 1]
    assert {image["alt"] for image in page.all("img")} == {visible(NASTY)}
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>") and text.endswith("</html>\n")
    assert sorted(each.name for each in path.parent.iterdir()) == ["n0.png", "n1.png", "report.html"]


def test_a_page_is_light_or_dark_and_as_wide_as_the_screen(tmp_path):
    path = write_page(tmp_path, "", {}, [])
    text = path.read_text()
    assert "color-scheme: light dark" in text and "prefers-color-scheme: dark" in text
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in Page(path).all("meta")


@pytest.mark.parametrize("count", [1, 20, 21, 3000])
def test_long_lists_are_folded(tmp_path, count):
    page = Page(write_page(tmp_path, "", {}, [], problems={"bad": [Problem("x", "y")] * count}))
    assert len(page.all("li")) == count and f"{count:,}" in page.text
    assert page.all("details") == [{"open": None} if count <= 20 else {}]


def test_a_page_that_fails_leaves_the_earlier_one(tmp_path):
    path = write_page(tmp_path, "first", {}, [])
    before = path.read_bytes()

    def fail():
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        write_page(tmp_path, "second", {}, [*sections(1), Section("x", "", "", fail)])
    assert path.read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["n0.png", "report.html"]


def test_what_cannot_be_seen_is_written_out():
    assert visible("a b\n\x00é中\u202e\udc80") == "a b\\n\\x00é中\\u202e\\udc80"
    assert [visible_character(c) for c in " a\t"] == ["␣", "a", "\\t"]


def test_texts_are_cut_to_columns():
    assert columns("1中2") == 4
    assert [cut("1中文", most) for most in (5, 4, 3, 2, 1)] == ["1中文", "1中…", "1…", "1…", "…"]
    assert cut("", 0) == ""
