"""Drawn words: what is written, the faces, the pictures and their series."""

from __future__ import annotations

import pickle
import random
import string
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastctc.crnn import WordDraw, WordSource
from fastctc.crnn.data import PreprocessConfig, package_folder, prepare
from fastctc.crnn.words import KINDS, Face, draw_text, find_faces, kind, word_list
from fastctc.crnn.words.faces import can_draw, font_of, has_one_case, pen_of
from fastctc.crnn.words.lettering import Bend, bent, cropped, spaced, straight
from fastctc.crnn.words.picture import _BOLDEST, _calmed, _margins, _stroke
from fastctc.crnn.words.texts import SIGNS, TextDraw, is_unseen, letters_of

pytest.importorskip("matplotlib")

FONTS = package_folder("matplotlib") / "mpl-data" / "fonts" / "ttf"
SANS = Face(str(FONTS / "DejaVuSans.ttf"))
WORDS = ["apple", "Bridge", "cloud", "dust", "eleven", "forest", "glass", "house", "island", "jacket"]


@pytest.fixture
def draw(tmp_path: Path) -> WordDraw:
    (tmp_path / "words.txt").write_text("\n".join(WORDS) + "\n\n apple \n", encoding="utf-8")
    (tmp_path / "fonts").mkdir()
    for name in ("DejaVuSans.ttf", "DejaVuSerif-Italic.ttf"):
        (tmp_path / "fonts" / name).write_bytes((FONTS / name).read_bytes())
    (tmp_path / "photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photos" / "a.png")
    return WordDraw(
        words=str(tmp_path / "words.txt"), fonts=str(tmp_path / "fonts"), grounds=str(tmp_path / "photos")
    )


def test_kinds_of_texts():
    for text, expected in {
        "Wörter": "letters",
        "3,50": "digits",
        "-": "mixed",
        "A1": "mixed",
        "a b": "line",
    }.items():
        assert kind(text) == expected and expected in KINDS
    assert kind(" ") is None and kind("a\tb") is None


def test_seen_and_unseen_words_share_none(draw):
    seen, unseen = word_list(draw.words, "seen"), word_list(draw.words, "unseen")
    assert sorted({*seen, *unseen}) == sorted(WORDS)
    many = [f"word{i}" for i in range(3000)]
    assert 200 < sum(map(is_unseen, many)) < 400
    assert is_unseen("Apple") == is_unseen("aPPLE")


@pytest.mark.parametrize("texts", ["mixed", "words", "numbers", "codes", "lines"])
def test_texts_are_in_the_alphabet_and_no_longer_than_asked(texts):
    letters = "".join(sorted(set("".join(WORDS)) | set(string.ascii_letters)))
    write = TextDraw(WORDS, letters, texts, 12)
    drawn = [write(random.Random(i)) for i in range(600)]
    assert all(1 <= len(text) <= 12 and text == text.strip() for text in drawn)
    assert set("".join(drawn)) <= set(letters + SIGNS)
    assert len(set(drawn)) > (30 if texts == "words" else 300)
    if texts == "lines":
        assert sum(" " in text for text in drawn) > 200
    if texts == "numbers":
        assert all(any(c.isdigit() for c in text) for text in drawn)


def test_an_alphabet_has_both_cases_of_the_letters_of_its_words(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("Straße\nδω\n", encoding="utf-8")
    assert letters_of(str(path)) == "".join(sorted("StraßeδωsTRAEΔΩ"))
    characters = WordDraw(words=str(path)).characters
    assert set("0123456789 -") <= set(characters) and characters == "".join(sorted(characters))
    assert len(WordDraw().characters) == 95


def test_word_files_without_a_word_are_refused(tmp_path):
    (tmp_path / "none.txt").write_text("\n  \n")
    with pytest.raises(ValueError, match="expected a file with one word a line, got none"):
        word_list(str(tmp_path / "none.txt"), "seen")
    for setting in ("fonts", "grounds"):
        (tmp_path / "words.txt").write_text("word\n")
        (tmp_path / "empty").mkdir(exist_ok=True)
        source = WordDraw(words=str(tmp_path / "words.txt"), **{setting: str(tmp_path / "empty")}).source(0)
        with pytest.raises(ValueError, match=f"{setting} is .*empty'"):
            source(0)


def test_faces_are_checked(draw):
    faces = find_faces(draw.fonts, "seen")
    assert {Path(face.path).name for face in faces} == {"DejaVuSans.ttf", "DejaVuSerif-Italic.ttf"}
    assert faces == find_faces(draw.fonts, "unseen")  # one family: too few for two parts
    assert can_draw(SANS.path, "A") and can_draw(SANS.path, " ") and can_draw(SANS.path, "я")
    assert not can_draw(SANS.path, "\ue000") and not can_draw(SANS.path, "漢")
    assert not has_one_case(SANS.path) and has_one_case(str(FONTS / "DejaVuSansDisplay.ttf"))
    symbols = str(FONTS / "cmsy10.ttf")
    assert symbols not in [face.path for face in find_faces(None, "seen")]


@pytest.mark.parametrize("name", ["DejaVuSans.ttf", "DejaVuSans-Bold.ttf"])
def test_the_pen_of_a_face_is_as_wide_as_its_stems(name):
    face = Face(str(FONTS / name))
    left, _, right, _ = font_of(face, 400).getmask("l", mode="L").getbbox()
    assert pen_of(face) == pytest.approx((right - left) / 400, rel=0.12)


def test_no_letter_is_made_bolder_than_a_marker_writes():
    rng = random.Random(0)
    strokes = [_stroke(SANS, 50, rng) for _ in range(100)]
    assert 0 in strokes and 0.9 * _BOLDEST < pen_of(SANS) + 2 * max(strokes) / 50 < _BOLDEST + 0.02
    assert not any(_stroke(Face(str(FONTS / "DejaVuSans-Bold.ttf")), 50, rng) for _ in range(100))


def test_a_character_that_no_font_has_is_an_error(draw, tmp_path):
    (tmp_path / "words.txt").write_text("漢字\n", encoding="utf-8")
    with pytest.raises(ValueError, match="fonts lack characters of the texts, such as"):
        WordDraw(words=str(tmp_path / "words.txt"), fonts=draw.fonts, texts="words").source(0)(0)


def test_the_lines_of_a_list_are_drawn_as_they_are_on_a_canvas(draw, tmp_path):
    numbers = [str(10**19 + 7**k) for k in range(40)]
    (tmp_path / "numbers.txt").write_text("\n".join(numbers))
    plain = WordDraw(words=str(tmp_path / "numbers.txt"), fonts=draw.fonts, look="clean", texts="list")
    fitted = replace(plain, canvas="256x64")
    for number in range(5):
        image, text = fitted.source(3, color=True)(number)
        as_drawn, same = plain.source(3, color=True)(number)
        assert image.size == (256, 64) and text == same and text in numbers
        assert image.getpixel((0, 0)) == pytest.approx(as_drawn.getpixel((0, 0)), abs=60)
    for wrong in ("256", "0x64", "64x", "256X64", "20000x64"):
        with pytest.raises(ValueError, match=f"canvas is {wrong}, expected WIDTHxHEIGHT, such as 256x64"):
            replace(plain, canvas=wrong)


def test_a_straight_line_is_what_pillow_writes():
    font = font_of(SANS, 40)
    ink = cropped(straight("Ag|j", font, 0, 0)).fill
    mask = font.getmask("Ag|j", mode="L")
    left, top, right, bottom = mask.getbbox()
    assert ink.size == (right - left, bottom - top)
    assert sum(ink.tobytes()) == sum(bytes(mask))


def test_letters_with_no_extra_space_are_about_the_line():
    font = font_of(SANS, 40)
    line, letters = (
        cropped(straight("fort", font, 1, 2)),
        cropped(spaced("fort", font, 1, 2, 0.0, 0.0, random.Random(0))),
    )
    assert abs(line.fill.width - letters.fill.width) <= 3 and abs(line.fill.height - letters.fill.height) <= 1
    assert line.outline is not None and line.outline.size == line.fill.size
    assert np.all(np.asarray(line.outline) >= np.asarray(line.fill))
    wide = cropped(spaced("fort", font, 0, 0, 10.0, 0.0, random.Random(0))).fill
    assert wide.width >= letters.fill.width + 24


@pytest.mark.parametrize(
    "bend",
    [
        Bend(),
        Bend(turn=0.3),
        Bend(turn=-0.3, slant=0.4),
        Bend(tilt=(0.5, 0.3)),
        Bend(arc=0.6),
        Bend(arc=-0.6, wave=0.2),
        Bend(stretch=1.4),
        Bend(circle=1.5),
        Bend(circle=-2.5, turn=0.2),
        Bend(wobble=0.05),
        Bend(turn=0.2, wobble=0.03),
    ],
    ids=str,
)
def test_bending_loses_no_ink(bend):
    line = straight("Bending", font_of(SANS, 40), 0, 0)
    ink = bent(line, bend, random.Random(0)).fill
    before, after = np.asarray(line.fill, float).sum(), np.asarray(ink, float).sum()
    assert 0.55 * before < after / bend.stretch < 1.6 * before
    assert np.asarray(ink)[:, :1].any() and np.asarray(ink)[-1:].any()  # cropped to the ink, and not beyond


def test_an_upward_turn_raises_the_right_end():
    line = straight("--------", font_of(SANS, 40), 0, 0)
    ink = np.asarray(bent(line, Bend(turn=0.3), random.Random(0)).fill, float)
    rows = np.arange(len(ink)) @ ink / np.maximum(1, ink.sum(0))
    assert rows[5] > rows[-6] + 10


@pytest.mark.parametrize("circle", [1.5, -1.5])
def test_letters_on_a_circle_turn(circle):
    line = straight("|   |   |", font_of(SANS, 40), 0, 0)
    ink = np.asarray(bent(line, Bend(circle=circle), random.Random(0)).fill, float)
    columns = np.arange(ink.shape[1])
    means = [[part @ columns / part.sum() for part in half] for half in _thirds(ink)]
    left, middle, right = (upper - lower for upper, lower in means)
    assert abs(middle) < 3 and left * circle < -5 and right * circle > 5  # a fan


def _thirds(ink):
    """Return for each stroke the ink of its upper and of its lower half, over the columns."""
    for part in np.array_split(np.arange(ink.shape[1]), 3):
        stroke = np.zeros_like(ink)
        stroke[:, part] = ink[:, part]
        rows = np.flatnonzero(stroke.any(1))
        middle = (rows[0] + rows[-1] + 1) // 2
        yield stroke[:middle].sum(0), stroke[middle:].sum(0)


def test_a_wobble_gives_equal_letters_different_shapes():
    line = straight("oooo", font_of(SANS, 40), 0, 0)
    assert bent(line, Bend(), random.Random(0)) == bent(line, Bend(), random.Random(1))
    images = [np.asarray(bent(line, Bend(wobble=0.05), random.Random(seed)).fill, float) for seed in (0, 1)]
    assert images[0].shape != images[1].shape or np.abs(images[0] - images[1]).max() > 64


def test_pictures_depend_on_the_numbers_alone(draw):
    source = draw.source(3, color=True)
    again = pickle.loads(pickle.dumps(source))
    for i in (0, 7, 10**9):
        (image, text), (same, also) = source(i), again(i)
        assert text == also and np.array_equal(image, same)
        gray, _ = draw.source(3)(i)
        assert gray.dtype == np.uint8 and np.array_equal(gray, np.asarray(image.convert("L")))
    assert source(1)[1] != draw.source(4)(1)[1] or not np.array_equal(source(1)[0], draw.source(4)(1)[0])


def test_every_look_can_be_prepared_and_shows_ink(draw):
    config = PreprocessConfig(height=64, ink="gray", tone=0.0)
    for look in ("clean", "scene", "mixed"):
        source = WordSource(replace(draw, look=look), 5)
        for i in range(60):
            prepared = prepare(source(i)[0], config)
            assert prepared.pixels.shape[0] == 64 and prepared.pixels.std() > 2, (look, i)


def test_ink_differs_from_its_ground():
    rng = random.Random(0)
    for _ in range(200):
        image = np.asarray(draw_text("HHHH", SANS, "clean", (), rng).convert("L"), float)
        assert image.max() - image.min() > 60


def test_the_key_changes_with_what_pictures_depend_on(draw, tmp_path):
    key = draw.source(0).key()
    assert key == draw.source(0).key() and key != draw.source(1).key()
    (tmp_path / "fonts" / "DejaVuSans.ttf").unlink()
    find_faces.cache_clear()
    assert key != draw.source(0).key()
    find_faces.cache_clear()


@pytest.mark.parametrize("level", [0, 255])
def test_a_ground_is_calmer_than_the_ink_on_it(level):
    busy = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 32, 3), dtype=np.uint8)).resize(
        (320, 80), 0
    )
    ink, around = (level,) * 3, (128,) * 3
    calm = np.asarray(_calmed(busy, around, ink).convert("L"), dtype=float)
    assert np.asarray(busy.convert("L"), dtype=float).std() > 50 and calm.std() < 1.2 * 128 / 2
    plain = Image.new("RGB", (320, 80), around)
    assert _calmed(plain, around, ink) is plain
    assert _calmed(busy, around, around).getextrema() == ((128, 128),) * 3


def test_some_pictures_have_a_shape_of_their_own():
    rng = random.Random(0)
    boxes = [_margins((400, 40), 0.0, 0.1, rng) for _ in range(400)]
    assert all(x + 400 <= width and y + 40 <= height for width, height, x, y in boxes)
    assert 40 < sum(width / height < 5 for width, height, _, _ in boxes) < 90
