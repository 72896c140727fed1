"""Drawn formulas: repeatable, of the right kind, faithful to the captcha package, which is left as it was."""

import importlib.util
import pickle
import random
import secrets
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

pytest.importorskip("captcha.image")

import captcha.image

from fastctc.crnn.data import package_folder
from fastctc.crnn.formulas import (
    CHARACTERS,
    FormulaDraw,
    FormulaSource,
    drawing,
    find_fonts,
    fonts,
    holds,
    is_formula,
    random_formula,
)
from fastctc.crnn.formulas import source as source_module
from fastctc.crnn.formulas.drawing import CaptchaRenderer, GlyphRenderer, make_renderer
from fastctc.crnn.formulas.fonts import draws_formulas
from fastctc.crnn.formulas.glyphs import GlyphPress, captcha_draws_from, captcha_image, glyph_bank

LOOKS = ("contest", "default")
RENDERERS = ("captcha", "glyphs")


def gray_pictures(renderer, count=60):
    texts = [random_formula(random.Random(f"text {i}")) for i in range(count)]
    return np.stack([renderer.render_gray(text, random.Random(i)) for i, text in enumerate(texts)]).astype(
        float
    )


def checksum(source, numbers):
    return [zlib.crc32(np.asarray(source(i)[0]).tobytes()) for i in numbers]


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("name", RENDERERS)
def test_a_picture_is_rgb_and_depends_on_text_and_random_numbers_alone(name, look):
    renderer = make_renderer(name, look, variants=20)
    picture = renderer.render("(1+2)*3=9", random.Random(7))
    assert (picture.mode, picture.size) == ("RGB", (180, 60))
    random.seed(99)
    renderer.render("4-5*6", random.Random(8))
    again = pickle.loads(pickle.dumps(renderer)).render("(1+2)*3=9", random.Random(7))
    assert again.tobytes() == picture.tobytes()
    assert renderer.render("(1+2)*3=9", random.Random(8)).tobytes() != picture.tobytes()
    assert renderer.render("(1+2)*3=8", random.Random(7)).tobytes() != picture.tobytes()


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("name", RENDERERS)
def test_gray_is_the_gray_of_the_coloured_picture(name, look):
    renderer = make_renderer(name, look)
    for i in range(20):
        gray = renderer.render_gray("0-(7*8)=-56", random.Random(i))
        assert (gray.dtype, gray.shape, gray.flags.writeable) == (np.uint8, (60, 180), True)
        colored = np.asarray(renderer.render("0-(7*8)=-56", random.Random(i)).convert("L"))
        assert np.abs(gray.astype(int) - colored).max() <= 4


@pytest.mark.parametrize("renderer", [*RENDERERS, pytest.param("mixed", marks=pytest.mark.slow)])
def test_number_i_of_a_source_is_the_same_in_any_order_and_process(renderer):
    source = FormulaSource("mixed", renderer, seed=3, variants=20)
    program = (
        "import numpy as np, zlib; from fastctc.crnn import FormulaSource; "
        f"source = FormulaSource('mixed', {renderer!r}, seed=3, variants=20); "
        "print([zlib.crc32(np.asarray(source(i)[0]).tobytes()) for i in range(8)])"
    )
    expected = checksum(source, range(8))
    assert checksum(pickle.loads(pickle.dumps(source)), reversed(range(8))) == expected[::-1]
    if renderer == "mixed":
        result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert result.stdout.strip() == str(expected)


def test_threads_draw_the_same_pictures():
    source = FormulaSource("mixed", "mixed", seed=5)
    with ThreadPoolExecutor(4) as pool:
        crowd = list(pool.map(lambda i: checksum(source, [i])[0], range(24)))
    assert crowd == checksum(source, range(24))


def test_a_mixed_series_has_its_share_of_both_renderers():
    drawn = FormulaSource(renderer="mixed", captcha_share=0.25, seed=2, gray=True)
    captcha, glyphs = replace(drawn, renderer="captcha"), replace(drawn, renderer="glyphs")
    by_captcha = [(drawn(i)[0] == captcha(i)[0]).all() for i in range(100)]
    assert sum(by_captcha) == pytest.approx(25, abs=2)
    for i, whether in enumerate(by_captcha):
        assert whether or (drawn(i)[0] == glyphs(i)[0]).all()
        assert drawn(i)[1] == captcha(i)[1] == glyphs(i)[1]


def test_a_recipe_draws_as_its_source_does():
    draw = FormulaDraw(look="mixed", captcha_share=0.3, glyph_variants=50)
    source = FormulaSource("mixed", "mixed", 4, gray=True, captcha_share=0.3, variants=50)
    assert draw.source(4) == source and draw.characters == CHARACTERS
    assert draw.unseen().source(4, color=True) == replace(source, renderer="captcha", gray=False)


def test_sources_give_formulas_of_the_value_asked_for():
    assert all(is_formula(FormulaSource(renderer="glyphs")(i)[1]) for i in range(30))
    assert all(holds(FormulaSource(renderer="glyphs", value="right")(i)[1]) for i in range(30))
    assert not any(holds(FormulaSource(renderer="glyphs", value="wrong")(i)[1]) for i in range(30))


def test_seeds_and_looks_give_other_series_and_renderers_the_same_texts():
    texts = {
        key: [FormulaSource(key[0], key[1], seed=key[2])(i)[1] for i in range(12)]
        for key in (
            ("contest", "glyphs", 0),
            ("contest", "captcha", 0),
            ("default", "glyphs", 0),
            ("contest", "glyphs", 1),
        )
    }
    first, by_captcha, default, seeded = texts.values()
    assert first == by_captcha
    assert first != default
    assert first != seeded


def test_a_gray_source_gives_arrays():
    for renderer in RENDERERS:
        picture, text = FormulaSource("default", renderer, gray=True)(0)
        assert isinstance(picture, np.ndarray)
        assert picture.shape == (60, 180)
        assert is_formula(text)


@pytest.mark.slow
@pytest.mark.parametrize("look", LOOKS)
def test_glyph_pictures_resemble_those_of_the_package(look):
    by_captcha, by_glyphs = (gray_pictures(make_renderer(name, look), 150) for name in RENDERERS)
    for measure in (np.mean, np.std, lambda a, axis: np.abs(np.diff(a, axis=2)).mean(axis)):
        ours, theirs = (measure(pictures, axis=(1, 2)) for pictures in (by_glyphs, by_captcha))
        spread = np.hypot(ours.std(), theirs.std()) / np.sqrt(len(ours))
        assert abs(ours.mean() - theirs.mean()) < 4 * spread


def test_looks_differ():
    minus = {look: make_renderer("captcha", look)._press for look in LOOKS}
    heights = {
        look: np.mean([press.draw("-", 0, 0.0, random.Random(i)).height for i in range(20)])
        for look, press in minus.items()
    }
    assert heights["contest"] < 8 < heights["default"]


def test_default_captchas_are_those_of_the_package(monkeypatch):
    """With the same random numbers behind `secrets`, the package itself draws the very same picture."""
    ours = CaptchaRenderer("default").render("1+2*3=7", random.Random(4))
    monkeypatch.setattr(captcha.image, "secrets", captcha_image().secrets)
    with captcha_draws_from(random.Random(4)):
        theirs = captcha.image.ImageCaptcha(180, 60).generate_image("1+2*3=7")
    assert ours.tobytes() == theirs.tobytes()


def test_the_captcha_package_of_others_stays_unpredictable():
    for name in RENDERERS:
        make_renderer(name, "default").render("1+2*3", random.Random(0))
    assert captcha.image.secrets is secrets
    assert captcha_image() is not captcha.image
    pictures = {captcha.image.ImageCaptcha(180, 60).generate_image("1+2*3").tobytes() for _ in range(3)}
    assert len(pictures) == 3


@pytest.mark.parametrize("size", [(180, 60), (30, 20)])
@pytest.mark.parametrize(("mode", "ink"), [("RGB", (10, 90, 30)), ("L", 70)])
def test_noise_and_smoothing_are_those_of_the_package(size, mode, ink):
    package = captcha_image()
    for i in range(20):
        page = Image.new(mode, size, "white")
        style = drawing._Style((255, 255, 255), (0, 0, 0), (0,), arc=True)
        ours = drawing._smoothed(drawing._with_noise(page.copy(), style, ink, random.Random(i)))
        with captcha_draws_from(random.Random(i)):
            theirs = package.ImageCaptcha.create_noise_dots(page, ink)
            theirs = package.ImageCaptcha.create_noise_curve(theirs, ink).filter(ImageFilter.SMOOTH)
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("name", RENDERERS)
def test_other_sizes(name):
    renderer = {"captcha": CaptchaRenderer, "glyphs": GlyphRenderer}[name]
    options = {"variants": 2} if name == "glyphs" else {}
    own = find_fonts()[:2]
    for look in LOOKS:
        picture = renderer(look, size=(96, 32), fonts=own, **options).render("1+2*3=7", random.Random(0))
        assert picture.size == (96, 32)


def test_varied_glyphs_are_reshaped_and_visible():
    font = find_fonts()[:1]
    plain, some, all_ = (glyph_bank("contest", 60, font, 20, 0, share) for share in (0.0, 0.5, 1.0))
    for character in "0123456789+-*()=":
        before, mixed, after = (
            {glyph.coverage for glyph in bank[character][0]} for bank in (plain, some, all_)
        )
        assert len(after) == 20 and not before & after and before != mixed != after
        assert all(max(glyph.coverage) > 160 for glyph in all_[character][0])
    assert all(not glyph.coverage for glyph in all_[" "][0])


def test_varied_glyphs_have_the_shapes_of_other_fonts():
    press = GlyphPress("contest", 60, find_fonts()[:1])

    def ink(character, varied):
        boxes = [press.draw(character, 0, 0.0, random.Random(seed), varied=varied) for seed in range(60)]
        return np.array([sum(box.coverage) / 255 / (box.width * box.height) for box in boxes])

    for character in "0123456789()":
        plain, varied = ink(character, False), ink(character, True)
        assert varied.max() > 1.3 * plain.max() and varied.min() < 1.1 * plain.min()
    assert np.ptp(ink("1", True)) > 0.4  # from a hairline to a block


def test_fonts_found_are_checked_and_in_a_fixed_order():
    found = find_fonts()
    assert found == find_fonts()
    assert found[0].endswith("DroidSansMono.ttf")
    assert all(draws_formulas(path) for path in found)
    assert set(found) <= set(find_fonts(system=True))


def test_fonts_of_packages_are_added_and_a_tenth_of_their_families_is_kept_apart(monkeypatch, tmp_path):
    bundled = package_folder("matplotlib") / "mpl-data" / "fonts" / "ttf"
    folder = tmp_path / "font_of_test" / "files"
    folder.mkdir(parents=True)
    names = ("DejaVuSerif-BoldItalic.ttf", "DejaVuSans.ttf", "cmex10.ttf")
    for name in names:
        (folder / name).write_bytes((bundled / name).read_bytes())
    paths = [folder / name for name in names]
    monkeypatch.setattr(fonts, "installed_fonts", lambda: paths)
    assert find_fonts("packages") == find_fonts()  # the same fonts, found before
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda module: None if module == "matplotlib" else find_spec(module)
    )
    monkeypatch.setattr(fonts, "is_unseen", lambda family: False)
    assert [Path(font).name for font in find_fonts("packages")] == ["DroidSansMono.ttf", *names[:2]]
    assert find_fonts("unseen") == ()
    monkeypatch.setattr(fonts, "is_unseen", lambda family: True)
    assert [Path(font).name for font in find_fonts("packages")] == ["DroidSansMono.ttf"]
    assert [Path(font).name for font in find_fonts("unseen")] == [*names[:2]]
    paths.clear()
    with pytest.raises(
        ModuleNotFoundError, match=r"'unseen' needs packages of fonts: pip install fastctc\[words\]"
    ):
        find_fonts("unseen")


def test_a_recipe_chooses_the_fonts_of_each_renderer(monkeypatch):
    sets = {"bundled": ("a.ttf",), "packages": ("b.ttf",), "unseen": ("c.ttf",)}
    monkeypatch.setattr(source_module, "find_fonts", lambda name="bundled": sets[name])
    source_module._fonts.cache_clear()
    assert FormulaDraw().source(0).fonts is FormulaDraw().source(0).glyph_fonts is None
    drawn = FormulaDraw(captcha_fonts="unseen").source(0)
    assert (drawn.fonts, drawn.glyph_fonts) == (("c.ttf",), ("a.ttf",))
    drawn = FormulaDraw(glyph_fonts="packages").unseen().source(0)
    assert (drawn.fonts, drawn.glyph_fonts, drawn.renderer) == (None, ("b.ttf",), "captcha")
    source_module._fonts.cache_clear()


def test_fonts_without_digits_or_with_other_shapes_are_rejected(tmp_path):
    pytest.importorskip("matplotlib")
    bundled = package_folder("matplotlib") / "mpl-data" / "fonts" / "ttf"
    for name in ("STIXSizOneSymReg", "STIXNonUni", "cmex10", "cmsy10", "cmmi10", "DejaVuSansDisplay"):
        assert not draws_formulas(str(bundled / f"{name}.ttf")), name
    assert draws_formulas(str(bundled / "DejaVuSerif-BoldItalic.ttf"))
    no_font = tmp_path / "no.ttf"
    no_font.write_bytes(b"not a font")
    assert not draws_formulas(str(no_font))
    with pytest.raises(ValueError, match=r"fonts must have all of the characters .*cmex10\.ttf"):
        CaptchaRenderer("contest", fonts=[str(bundled / "cmex10.ttf")])


def test_a_source_draws_the_contest_look_with_the_fonts_given():
    one = find_fonts()[:1]
    pictures = [FormulaSource("contest", "captcha", fonts=fonts)(0)[0] for fonts in (None, one)]
    assert pictures[0].tobytes() != pictures[1].tobytes()
    pictures = [FormulaSource("default", "captcha", fonts=fonts)(0)[0] for fonts in (None, one)]
    assert pictures[0].tobytes() == pictures[1].tobytes()


def test_a_single_font_for_the_contest_look_is_warned_about(monkeypatch):
    monkeypatch.setattr(drawing, "find_fonts", lambda: find_fonts()[:1])
    with pytest.warns(UserWarning, match="look='contest' wants several fonts"):
        CaptchaRenderer("contest")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CaptchaRenderer("plain"), "look must be one of 'contest', 'default', got 'plain'"),
        (lambda: GlyphRenderer("plain"), "look must be one of 'contest', 'default', got 'plain'"),
        (lambda: make_renderer("pen", "default"), "renderer must be one of 'captcha', 'glyphs', got 'pen'"),
        (lambda: FormulaSource("plain"), "look must be one of 'contest', 'default', 'mixed', got 'plain'"),
        (lambda: FormulaSource(renderer="pen"), "renderer must be one of .* got 'pen'"),
        (lambda: FormulaSource(value="some"), "value must be one of .* got 'some'"),
        (lambda: GlyphRenderer(variants=0), "variants must be at least 1, got 0"),
        (lambda: GlyphRenderer(varied=1.5), "varied must be a share from 0 to 1, got 1.5"),
        (lambda: CaptchaRenderer(size=(180, 2)), r"size must be .* got \(180, 2\)"),
        (lambda: CaptchaRenderer(fonts=[]), "fonts must name at least one font file"),
    ],
)
def test_errors_name_argument_expectation_and_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name", RENDERERS)
@pytest.mark.parametrize("text", ["", "1/2", "1 + 2", "x"])
def test_text_outside_the_charset_is_an_error(name, text):
    with pytest.raises(ValueError, match="text must be one or more of the characters"):
        make_renderer(name, "default").render(text, random.Random(0))


@pytest.mark.parametrize("look", LOOKS)
def test_every_character_leaves_ink(look):
    renderer = make_renderer("glyphs", look)
    for character in CHARACTERS:
        assert all(box.coverage for boxes in renderer._bank[character] for box in boxes)
        assert renderer.render_gray(character, random.Random(1)).shape == (60, 180)
