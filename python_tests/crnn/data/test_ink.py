"""Pictures whose ink people can see, though gray levels alone do not show it, become dark ink on white."""

import io

import numpy as np
import pytest
from PIL import Image

from fastctc.crnn.data import PreprocessConfig, prepare, steps
from fastctc.crnn.formulas import FormulaSource

HEIGHT, WIDTH = 60, 180
CONFIG = PreprocessConfig(height=HEIGHT)
EQUAL_INK, EQUAL_GROUND = (255, 0, 0), (0, 130, 0)  # of one gray level


def coverage() -> np.ndarray:
    """Return letters of bars: 1 where ink is, 0 elsewhere."""
    ink = np.zeros((HEIGHT, WIDTH))
    for x in range(15, 165, 25):
        ink[15:45, x : x + 4] = 1
        ink[40:45, x : x + 15] = 1
    return ink


INK = coverage()


def gray(levels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8))


def colored(ink, ground) -> Image.Image:
    ink, ground = np.asarray(ink, float), np.asarray(ground, float)
    return Image.fromarray(np.rint(ground + (ink - ground) * INK[..., None]).astype(np.uint8))


def on_transparency(color) -> Image.Image:
    pixels = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    pixels[..., :3] = color
    pixels[..., 3] = 255 * INK
    return Image.fromarray(pixels)


def halves(left, right) -> np.ndarray:
    return np.where((np.arange(WIDTH) < WIDTH // 2)[:, None], [left], [right])[None]


def panel(ground: int, ink: int) -> Image.Image:
    """Return a page with transparent margins."""
    pixels = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    pixels[4:-4, 6:-6, :3] = (ground + (ink - ground) * INK)[4:-4, 6:-6, None]
    pixels[4:-4, 6:-6, 3] = 255
    return Image.fromarray(pixels)


def holes(level: int) -> Image.Image:
    """Return a page with transparent letters."""
    pixels = np.full((HEIGHT, WIDTH, 4), level, np.uint8)
    pixels[..., 3] = 255 * (1 - INK)
    return Image.fromarray(pixels)


def deep(ground: int, ink: int, stray: dict[tuple[int, int], int], dtype=np.uint16) -> Image.Image:
    pixels = (ground + (ink - ground) * INK).astype(dtype)
    for place, value in stray.items():
        pixels[place] = value
    return Image.fromarray(pixels)


def ramp(low: float, high: float, axis: int) -> np.ndarray:
    line = np.linspace(low, high, (HEIGHT, WIDTH)[axis])
    return np.broadcast_to(line if axis else line[:, None], (HEIGHT, WIDTH))


def twice(levels: np.ndarray) -> Image.Image:
    return gray(levels.repeat(2, 0).repeat(2, 1))


def ordered_dither(levels: np.ndarray) -> Image.Image:
    bayer = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]) * 16 + 8
    rows, columns = levels.shape
    return Image.fromarray(levels > np.tile(bayer, (rows // 4, columns // 4)))


def framed(level: int, picture: Image.Image) -> Image.Image:
    pixels = np.asarray(picture).copy()
    pixels[:3] = pixels[-3:] = level
    pixels[:, :5] = pixels[:, -5:] = level
    return Image.fromarray(pixels)


def stray(picture: Image.Image, level: int, count: int) -> Image.Image:
    pixels = np.asarray(picture).copy()
    for n in range(count):
        pixels[3 + n % 5, 20 + 29 * n] = level
    return Image.fromarray(pixels)


def radial() -> np.ndarray:
    y, x = np.linspace(-1, 1, HEIGHT)[:, None], np.linspace(-1, 1, WIDTH)
    return 250 - 80 * (x * x + y * y)


PICTURES = {
    "white ink on transparency": lambda: on_transparency((255, 255, 255)),
    "white ink on transparency, two channels": lambda: on_transparency((255, 255, 255)).convert("LA"),
    "white ink on transparency, palette": lambda: on_transparency((255, 255, 255)).quantize(8),
    "faint white ink on transparency": lambda: Image.fromarray(
        np.asarray(on_transparency((255, 255, 255))) // np.array([1, 1, 1, 3], np.uint8)
    ),
    "black and white ink on transparency": lambda: on_transparency(halves((0, 0, 0), (255, 255, 255))),
    "dark page with transparent margins": lambda: panel(20, 250),
    "light page with transparent margins": lambda: panel(235, 20),
    "transparent letters in a white page": lambda: holes(255),
    "transparent letters in a black page": lambda: holes(0),
    "colored ink on equally bright ground": lambda: colored(EQUAL_INK, EQUAL_GROUND),
    "softly colored ink on equally bright ground": lambda: colored((190, 174, 190), (180, 180, 180)),
    "ink of several equally bright colors": lambda: colored(
        halves((208, 125, 150), (92, 175, 150)), (150,) * 3
    ),
    "16 bits with one hot pixel": lambda: deep(1000, 800, {(5, 5): 65535}),
    "16 bits with hot and dead pixels": lambda: deep(
        30000, 28000, {(5, 5): 65535, (9, 90): 0, (50, 2): 65535}
    ),
    "float with an infinite pixel": lambda: deep(1, 0, {(5, 5): np.inf, (6, 6): np.nan}, np.float32),
    "8 bits with one black and one white pixel": lambda: stray(stray(gray(130 - 12 * INK), 0, 1), 255, 2),
    "dithered ground": lambda: twice(180 - 150 * INK).convert("1"),
    "dithered ground, saved as gray": lambda: twice(180 - 150 * INK).convert("1").convert("L"),
    "dithered ground of ordered dots": lambda: ordered_dither(np.asarray(twice(180 - 150 * INK))),
    "light ink on dithered ground": lambda: twice(80 + 170 * INK).convert("1"),
    "dithered gradient": lambda: twice(ramp(130, 250, 1) * (1 - 0.9 * INK)).convert("1"),
    "gradient along the line": lambda: gray(ramp(80, 255, 1) - 60 * INK),
    "gradient across the line": lambda: gray(ramp(80, 255, 0) - 60 * INK),
    "gradient in both directions": lambda: gray((ramp(80, 255, 0) + ramp(80, 255, 1)) / 2 - 60 * INK),
    "dark corners": lambda: gray(radial() * (1 - 0.5 * INK)),
    "light ink on a gradient": lambda: gray(ramp(20, 150, 1) + 90 * INK),
    "a shadow with a sharp edge": lambda: gray(np.where(np.arange(WIDTH) < 100, 240, 130) * (1 - 0.6 * INK)),
    "faint gradient": lambda: gray(ramp(180, 230, 1) - 14 * INK),
    "inverted": lambda: gray(20 + 220 * INK),
    "inverted, beside black pixels": lambda: stray(gray(150 + 100 * INK), 0, 6),
    "inverted in a white frame": lambda: framed(255, gray(20 + 220 * INK)),
    "page in a black frame": lambda: framed(0, gray(230 - 200 * INK)),
    "ink lighter and darker than the ground": lambda: gray(
        128 + np.where(np.arange(WIDTH) < 90, -110, 120) * INK
    ),
}


def error(kind: str) -> float:
    """Return the mean distance of a prepared picture from black ink on white, 0 to 1; 0.5 tells nothing."""
    pixels = prepare(PICTURES[kind](), CONFIG).pixels / 255
    inside = np.s_[6:-6, 8:-8]
    ink, ground = pixels[inside][INK[inside] == 1].mean(), pixels[inside][INK[inside] == 0].mean()
    return max(float(ink), 1 - float(ground))


@pytest.mark.parametrize("kind", PICTURES)
def test_the_ink_that_people_see_is_dark_on_white(kind):
    assert error(kind) < 0.35


def test_an_equally_bright_jpeg_and_noise_show_their_color():
    picture = colored(EQUAL_INK, EQUAL_GROUND)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    noise = np.random.default_rng(0).normal(0, 6, (HEIGHT, WIDTH, 3))
    noisy = Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8))
    for each in (buffer.getvalue(), noisy):
        pixels = prepare(each, CONFIG).pixels
        assert pixels[INK == 1].mean() < 90 and pixels[INK == 0].mean() > 200


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64, np.float32, np.float64, bool])
def test_arrays_of_any_number_type(dtype):
    pixels = (1 - INK).astype(dtype) if dtype is bool else (1000 - 800 * INK).astype(dtype)
    assert np.array_equal(prepare(pixels, CONFIG).pixels, prepare(gray(255 - 255 * INK), CONFIG).pixels)


ORDINARY = {
    "gray": lambda: gray(230 - 200 * INK),
    "faint": lambda: gray(230 - 10 * INK),
    "color": lambda: colored((10, 20, 160), (250, 245, 240)),
    "noise": lambda: gray(200 - 150 * INK + np.random.default_rng(0).normal(0, 12, INK.shape)),
    "blank": lambda: gray(np.full(INK.shape, 77.0)),
    "only noise": lambda: gray(120 + np.random.default_rng(0).normal(0, 3, INK.shape)),
    "random": lambda: gray(np.random.default_rng(0).integers(0, 255, INK.shape)),
    "one bit": lambda: gray(255 - 255 * INK).convert("1"),
    "16 bits": lambda: deep(50000, 800, {}),
    "black ink on transparency": lambda: on_transparency((0, 0, 0)),
}


@pytest.mark.parametrize("kind", ORDINARY)
def test_ordinary_pictures_keep_their_bits(kind):
    assert [name for name, _ in steps(ORDINARY[kind](), CONFIG)] == [
        "original", "gray", "tone curve", f"height {HEIGHT}",
    ]  # fmt: skip


@pytest.mark.parametrize("gray", [True, False])
def test_drawn_formulas_are_ordinary(gray):
    source = FormulaSource(look="mixed", renderer="glyphs", seed=5, gray=gray)
    assert all(len(steps(source(index)[0], CONFIG)) == 4 for index in range(150))


def test_large_scans_are_reduced():
    small = PreprocessConfig(height=HEIGHT, max_pixels=2 * HEIGHT * WIDTH)
    large = np.asarray(gray(230 - 200 * INK)).repeat(3, 0).repeat(3, 1)
    expected = prepare(gray(230 - 200 * INK), CONFIG).pixels
    kinds = {"png": Image.fromarray(large), "tiff": Image.fromarray(large.astype(np.uint16) * 200)}
    kinds |= {"bmp": Image.fromarray(large > 128), "gif": Image.fromarray(large).quantize(4)}
    for kind, picture in kinds.items():
        buffer = io.BytesIO()
        picture.save(buffer, kind)
        prepared = prepare(buffer.getvalue(), small)
        assert prepared.size == (3 * WIDTH, 3 * HEIGHT), kind
        assert np.abs(prepared.pixels.astype(int) - expected).mean() < 8, kind


def test_a_large_jpeg_keeps_its_size_when_turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    large = gray(230 - 200 * INK).resize((WIDTH * 4, HEIGHT * 4)).transpose(Image.Transpose.ROTATE_90)
    buffer = io.BytesIO()
    large.save(buffer, "JPEG", exif=exif)
    prepared = prepare(buffer.getvalue(), PreprocessConfig(height=HEIGHT, max_pixels=3 * HEIGHT * WIDTH))
    assert prepared.size == (4 * WIDTH, 4 * HEIGHT) and prepared.pixels.shape == (HEIGHT, WIDTH)


def test_pages_that_are_not_read_are_a_warning():
    buffer = io.BytesIO()
    page = gray(230 - 200 * INK)
    page.save(buffer, "TIFF", save_all=True, append_images=[page, page])
    assert prepare(buffer.getvalue(), CONFIG).warning == "only the first of 3 pages was read"
    assert prepare(page, CONFIG).warning is None


@pytest.mark.parametrize("ink, ground", [(200, 110), (60, 150)])
@pytest.mark.parametrize("seed", range(4))
def test_single_pixels_of_a_textured_ground_are_not_taken_for_ink(ink, ground, seed):
    """The ground of a photograph has pixels that differ from it more than the ink, on the other side."""
    noise = np.random.default_rng(seed).normal(0, 22, (HEIGHT, WIDTH))
    noise[3::19, 5::23] = 1.2 * (ground - ink)
    shown = prepare(gray(ground + (ink - ground) * INK + noise * (1 - INK)), CONFIG).pixels
    assert shown[INK == 1].mean() < 100 and shown[INK == 0].mean() > 170
