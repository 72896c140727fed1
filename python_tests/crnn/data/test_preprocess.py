"""Images of any kind become gray pixels of one height, or an error that names the reason."""

import io
import os
import struct
import zlib

import numpy as np
import PIL
import pytest
import torch
from PIL import Image, PngImagePlugin

from fastctc.crnn.data import (
    ImageError,
    PreprocessConfig,
    normalize,
    normalized_batch,
    pad_batch,
    prepare,
    steps,
)

CONFIG = PreprocessConfig()


def load_gray(image, config):
    return prepare(image, config).pixels


def picture(width: int = 180, height: int = 60) -> Image.Image:
    """Return dark vertical bars on a light ground."""
    gray = np.full((height, width), 200, np.uint8)
    gray[:, :: max(4, width // 6)] = 20
    gray[:, 1 :: max(4, width // 6)] = 20
    return Image.fromarray(gray)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(("size", "width"), [((180, 60), 96), ((96, 32), 96), ((50, 100), 16), ((3, 600), 1)])
def test_height_is_fixed_and_the_aspect_ratio_kept(size, width):
    gray = load_gray(picture(*size), CONFIG)
    assert gray.dtype == np.uint8 and gray.shape == (32, width)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F", "I;16"]
)
def test_every_mode_gives_the_same_picture(mode):
    expected = load_gray(picture(), CONFIG).astype(int)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(picture()).astype(np.uint16) * 200)
    elif mode in ("1", "I", "F"):
        image = picture().convert(mode, dither=Image.Dither.NONE)
    elif mode == "P":
        image = picture().quantize(8)
    else:
        image = picture().convert("RGB").convert(mode)
    assert image.mode == mode
    assert np.abs(load_gray(image, CONFIG).astype(int) - expected).max() <= 4


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "bmp", "tiff", "webp"])
def test_files_and_bytes(kind, tmp_path):
    data = encoded(picture(), kind)
    path = tmp_path / f"a.{kind}"
    path.write_bytes(data)
    from_file, from_bytes = load_gray(path, CONFIG), load_gray(data, CONFIG)
    assert (from_file == from_bytes).all()
    assert (load_gray(str(path), CONFIG) == from_file).all()
    assert np.abs(from_file.astype(int) - load_gray(picture(), CONFIG).astype(int)).max() < 60


def test_arrays():
    gray = np.asarray(picture())
    expected = load_gray(picture(), CONFIG)
    assert (load_gray(gray, CONFIG) == expected).all()
    assert (load_gray(np.repeat(gray[:, :, None], 3, axis=2), CONFIG) == expected).all()
    view = np.asarray(picture(70))[::-1, ::-1]  # negative strides
    assert (load_gray(view, CONFIG) == load_gray(np.ascontiguousarray(view), CONFIG)).all()


def test_the_same_bits_as_ever():
    """What checkpoints were trained on: a change here makes every stored model read worse.

    Pillow 10.1 to 13.0 resize to the same bits. A later version may round differently, by less than one level.
    """
    rng = np.random.default_rng(1)
    photo = np.clip(np.asarray(picture(70, 25)) + rng.normal(0, 20, (25, 70)), 0, 255).astype(np.uint8)
    gray = load_gray(photo, PreprocessConfig(height=20))
    blocks = [
        [195.3, 189.6, 189.1, 193.3, 192.9, 183.2, 183.1],
        [183.1, 184.2, 183.0, 186.6, 191.5, 190.4, 187.4],
        [189.8, 191.8, 187.0, 187.3, 193.2, 190.5, 185.4],
        [181.2, 189.5, 182.1, 185.6, 192.6, 188.6, 184.9],
    ]
    assert gray.shape == (20, 56)
    assert np.abs(gray.reshape(4, 5, 7, 8).mean((1, 3)) - blocks).max() < 1
    assert gray.std() == pytest.approx(74.4, abs=1)
    if int(PIL.__version__.partition(".")[0]) <= 13:
        assert zlib.crc32(gray.tobytes()) == 811558218


def noisy(seed: int = 0) -> np.ndarray:
    """Return faint gray bars on white with fine noise, and black specks of one pixel."""
    rng = np.random.default_rng(seed)
    image = np.asarray(picture()).astype(float) * 0.2 + 200
    image[:, 60:75] = 195  # a broad bar
    image += rng.normal(0, 2, image.shape)
    image[rng.integers(0, 60, 15), rng.integers(80, 180, 15)] = 0
    return image.astype(np.uint8)


def test_steps_are_named_and_end_in_what_the_model_sees():
    config = PreprocessConfig(
        height=30, median=3, gaussian=0.5, equalize=True, binarize=True, opening=3, closing=5
    )
    image = Image.fromarray(noisy()).convert("RGB")
    taken = steps(image, config)
    assert [name for name, _ in taken] == [
        "original", "gray", "median 3", "gaussian 0.5", "tone curve", "equalize", "binarize",
        "opening 3", "closing 5", "height 30",
    ]  # fmt: skip
    pictures = dict(taken)
    assert pictures["original"].shape == (60, 180, 3) and pictures["gray"].shape == (60, 180)
    assert all(pixels.dtype == np.uint8 for pixels in pictures.values())
    assert (pictures["height 30"] == load_gray(image, config)).all()
    prepared = prepare(image, config)
    assert (prepared.pixels == pictures["height 30"]).all()
    assert prepared.size == (180, 60)
    assert prepared.contrast == pytest.approx(pictures["gray"].std() / 255, abs=1e-9)
    assert [name for name, _ in steps(image, CONFIG)] == ["original", "gray", "tone curve", "height 32"]
    assert steps(Image.fromarray(noisy()).convert("1"), CONFIG)[0][1].max() == 255


def test_median_and_opening_remove_specks():
    image = np.full((32, 96), 240, np.uint8)
    image[8:24, 20:40] = 200
    image[5, 60] = image[20, 80] = 0
    plain = load_gray(image, CONFIG)
    assert plain[5, 60] == plain[20, 80] == 0 and plain[16, 30] > 100
    for settings in ({"median": 3}, {"opening": 3}):
        filtered = load_gray(image, PreprocessConfig(**settings))
        assert filtered[5, 60] == filtered[20, 80] == 255, settings
    # The median comes before the tone curve: without specks, faint ink is the strongest there is.
    assert load_gray(image, PreprocessConfig(median=3))[16, 30] == 0
    light_on_dark = load_gray(255 - image, PreprocessConfig(opening=3))
    assert light_on_dark[5, 60] == 255 and light_on_dark[16, 30] < 200


def test_closing_fills_gaps_of_ink_whatever_its_polarity():
    image = np.full((32, 96), 255, np.uint8)
    image[14:18, 10:80] = 0
    image[14:18, 40:42] = 255
    for each in (image, 255 - image):
        assert load_gray(each, CONFIG)[15, 41] == 255
        closed = load_gray(each, PreprocessConfig(closing=3))
        assert (closed[14:18, 10:80] == 0).all() and closed[5].min() == 255


def test_gaussian_smooths_noise():
    pictures = dict(steps(noisy(), PreprocessConfig(gaussian=1.5)))
    bar = np.s_[4:-4, 66:70]
    assert pictures["gaussian 1.5"][bar].std() < 0.5 * pictures["gray"][bar].std()


def test_equalised_ink_has_levels_equally_often():
    gray = np.full((32, 300), 255, np.uint8)
    gray[:, :100] = np.repeat(np.arange(200, 250, dtype=np.uint8), 2)  # faint ink of 50 levels
    ink = load_gray(gray, PreprocessConfig(equalize=True))[:, :100]
    counts, _ = np.histogram(ink, bins=5, range=(0, 255))
    assert counts.max() <= 1.25 * counts.min() and ink.min() == 0
    assert load_gray(gray, PreprocessConfig(equalize=True))[:, 100:].min() == 255
    faint = load_gray((250 + gray / 255 * 5).astype(np.uint8), PreprocessConfig(equalize=True))
    assert faint.min() == 0


def test_binarised_by_otsus_threshold():
    config = PreprocessConfig(height=60, binarize=True)
    image = noisy()
    black_and_white = load_gray(image, config)
    assert set(np.unique(black_and_white)) == {0, 255}
    gray = dict(steps(image, config))["tone curve"]
    best = max(range(255), key=lambda t: _between(gray, t))
    assert (black_and_white == np.where(gray <= best, 0, 255)).all()
    empty = np.full((60, 180), 77, np.uint8)
    assert load_gray(empty, config).min() == 255
    assert load_gray(empty, PreprocessConfig(equalize=True)).min() == 255


def _between(gray: np.ndarray, threshold: int) -> float:
    """Return the between-class variance of Otsu, by its definition."""
    low, high = gray[gray <= threshold], gray[gray > threshold]
    if not low.size or not high.size:
        return -1
    return low.size * high.size * (low.mean() - high.mean()) ** 2


@pytest.mark.parametrize(
    "settings", [{"median": 31}, {"gaussian": 31}, {"opening": 31}, {"closing": 31}, {"binarize": True}]
)
def test_filters_larger_than_the_image(settings):
    for size in ((1, 1), (3, 2), (1, 40)):
        image = np.random.default_rng(0).integers(0, 255, size, dtype=np.uint8)
        assert load_gray(image, PreprocessConfig(**settings)).shape[0] == 32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"height": 0}, "height is 0, expected at least 1"),
        ({"tone": -0.5}, "tone is -0.5, expected at least 0"),
        ({"ink": "gray"}, "tone is 0.5, expected 0 with ink 'gray'"),
        ({"ink": "blue"}, "ink is 'blue', expected 'found' or 'gray'"),
        ({"tone_floor": 0}, "tone_floor is 0"),
        ({"contrast_floor": float("nan")}, "contrast_floor is nan"),
        ({"median": 4}, "median is 4, expected 0 or an odd number from 3 to 31"),
        ({"opening": 1}, "opening is 1"),
        ({"closing": 33}, "closing is 33"),
        ({"gaussian": -0.5}, "gaussian is -0.5, expected 0 to 31 pixels"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        PreprocessConfig(**settings)
    with pytest.raises(TypeError, match="binarize is 'no', expected true or false"):
        PreprocessConfig(binarize="no")
    with pytest.raises(TypeError, match=r"median is 3.5, expected a whole number"):
        PreprocessConfig(median=3.5)


def test_transparent_is_white():
    ink = Image.new("RGBA", (60, 30), (0, 0, 0, 0))
    ink.paste((0, 0, 0, 255), (20, 5, 40, 25))
    gray = load_gray(ink, CONFIG)
    assert gray[0, 0] == 255 and gray[16, 32] == 0


def test_of_an_animation_the_first_frame_counts():
    frames = [picture(), Image.new("L", (180, 60), 255)]
    data = encoded(frames[0].convert("P"), "gif", save_all=True, append_images=[frames[1].convert("P")])
    image = Image.open(io.BytesIO(data))
    image.seek(1)
    assert (load_gray(image, CONFIG) == load_gray(picture(), CONFIG)).all()


def test_contrast_and_brightness_do_not_matter():
    gray = np.asarray(picture()).astype(float)
    faint = (230 + gray * 0.1).astype(np.uint8)
    assert np.abs(load_gray(faint, CONFIG).astype(int) - load_gray(picture(), CONFIG)).max() <= 20
    inverted = (255 - gray).astype(np.uint8)
    assert np.abs(load_gray(inverted, CONFIG).astype(int) - load_gray(picture(), CONFIG)).max() <= 1
    blank = load_gray(np.full((60, 180), 77, np.uint8), CONFIG)
    pixels, widths = pad_batch([blank])
    assert normalize(pixels, widths, CONFIG).abs().max() < 1e-5


def test_specks_do_not_hide_faint_ink():
    gray = np.full((60, 180), 240, np.uint8)
    gray[20:40, 30:60] = 230  # ink
    gray[3:6, 3:6] = 0  # a speck
    assert load_gray(gray, CONFIG)[16, 24] < 210
    noise = np.random.default_rng(0).integers(119, 122, (60, 180)).astype(np.uint8)
    assert load_gray(noise, CONFIG).min() > 150


def test_unreadable_images_are_named(tmp_path):
    png = encoded(picture(), "png")
    for data in (b"", b"some text", png[:100], png[: len(png) // 2], b"\x89PNG\r\n\x1a\n" + bytes(50)):
        with pytest.raises(ImageError, match="not a readable image"):
            load_gray(data, CONFIG)
    with pytest.raises(ImageError, match="no such file"):
        load_gray(tmp_path / "none.png", CONFIG)
    with pytest.raises(ImageError, match="not a readable image"):
        load_gray(tmp_path, CONFIG)


def test_what_is_no_image_is_named(tmp_path):
    with pytest.raises(ImageError, match=r"null byte|no such file"):
        load_gray("a\0b.png", CONFIG)
    with pytest.raises(ImageError, match="a folder"):
        load_gray(str(tmp_path), CONFIG)
    with pytest.raises(ImageError, match="not a readable image"):
        load_gray("x" * 5000, CONFIG)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.png")
        with pytest.raises(ImageError, match="not a regular file"):
            load_gray(tmp_path / "pipe.png", CONFIG)
    with pytest.raises(ImageError, match="NoneType is not an image: expected a path"):
        load_gray(None, CONFIG)
    with pytest.raises(ImageError, match="not a readable image"):
        load_gray(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 180 60\n", CONFIG)
    for shape in ((60,), (60, 180, 2), (60, 180, 1), (1, 60, 180, 3)):
        with pytest.raises(
            ImageError, match=r"array of uint8 and shape .*, expected \(H, W\) numbers or uint8 \(H, W, 3"
        ):
            load_gray(np.zeros(shape, np.uint8), CONFIG)
    for dtype in (complex, object, "U3"):
        with pytest.raises(ImageError, match=r"array of .* and shape"):
            load_gray(np.zeros((60, 180), dtype), CONFIG)
    for shape in ((0, 5), (5, 0), (0, 5, 3)):
        with pytest.raises(ImageError, match="is empty"):
            load_gray(np.zeros(shape, np.uint8), CONFIG)


def test_the_cameras_rotation_counts_for_the_size_too():
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise
    lying = load_gray(encoded(picture().transpose(Image.Transpose.ROTATE_90), "png", exif=exif), CONFIG)
    assert (lying == load_gray(picture(), CONFIG)).all()
    with pytest.raises(ImageError, match="9000x60 pixels would be 4800 wide"):
        load_gray(encoded(Image.new("L", (60, 9000)), "png", exif=exif), CONFIG)


def test_an_animation_counts_by_its_first_frame_though_the_others_be_damaged():
    frames = [picture().convert("P"), Image.new("P", (180, 60), 255)]
    data = encoded(frames[0], "gif", save_all=True, append_images=frames[1:])
    assert (load_gray(data[:-20], CONFIG) == load_gray(picture(), CONFIG)).all()


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Return an encoded image cut off, with flipped bits, with a changed header, or with a piece replaced."""
    harm = bytearray(data)
    kind, at = rng.integers(4), rng.integers(len(data))
    if kind == 0:
        del harm[at:]
    elif kind == 1:
        for place in rng.integers(len(data), size=rng.integers(1, 30)):
            harm[place] ^= 1 << int(rng.integers(8))
    elif kind == 2:
        for place in rng.integers(min(200, len(data)), size=rng.integers(1, 8)):
            harm[place] = int(rng.integers(256))
    else:
        harm[at : at + rng.integers(1, 50)] = rng.bytes(rng.integers(60))
    return bytes(harm)


TURNED = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0" + bytes(4)
FORMATS = {
    "png": ("RGB", "png", {}),
    "png of 1 bit": ("1", "png", {}),
    "png with a palette": ("P", "png", {"transparency": 3}),
    "png with transparency": ("LA", "png", {}),
    "png of 16 bits": ("I;16", "png", {}),
    "jpeg": ("RGB", "jpeg", {"exif": TURNED}),
    "progressive jpeg": ("L", "jpeg", {"progressive": True}),
    "cmyk jpeg": ("CMYK", "jpeg", {}),
    "animated gif": ("P", "gif", {"save_all": True, "append_images": [Image.new("P", (90, 30), 7)]}),
    "webp": ("RGBA", "webp", {"lossless": True}),
    "tiff": ("RGB", "tiff", {"compression": "tiff_lzw"}),
    "float tiff": ("F", "tiff", {}),
    "bmp": ("P", "bmp", {}),
}  # fmt: skip


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_files_are_named_or_read(kind):
    mode, extension, options = FORMATS[kind]
    small = picture(90, 30)
    if mode == "I;16":
        whole = encoded(Image.fromarray(np.asarray(small).astype(np.uint16) * 200), extension)
    else:
        whole = encoded(small.convert("RGB").convert("L").convert(mode), extension, **options)
    load_gray(whole, CONFIG)
    rng = np.random.default_rng(zlib.crc32(kind.encode()))
    refused = 0
    for _ in range(120):
        try:
            gray = load_gray(damaged(whole, rng), CONFIG)
        except ImageError as error:
            refused += 1
            assert str(error) and not str(error).endswith(": ")
        else:
            assert gray.dtype == np.uint8 and gray.shape[0] == 32 and 1 <= gray.shape[1] <= 2048
    assert refused > 10


@pytest.mark.parametrize(
    "error", [struct.error("x"), zlib.error("x"), OverflowError(), IndexError(), KeyError("x"), MemoryError()]
)
def test_whatever_a_decoder_raises_is_an_image_error(error, monkeypatch):
    def fail(self):
        raise error

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", fail)
    with pytest.raises(ImageError, match=rf"not a readable image: ('?x'?|{type(error).__name__})$"):
        load_gray(encoded(picture(), "png"), CONFIG)


def test_absurd_sizes_are_refused():
    with pytest.raises(
        ImageError, match="20000x60 pixels would be 10667 wide at height 32, the limit is max_width, 2048"
    ):
        load_gray(encoded(Image.new("L", (20_000, 60)), "png"), CONFIG)
    small = PreprocessConfig(max_pixels=1_000_000)
    with pytest.raises(
        ImageError, match="3000x3000 pixels is over the limit of 7000000 pixels, 7 times max_pix"
    ):
        load_gray(encoded(Image.new("1", (3000, 3000)), "png"), small)
    with pytest.raises(ImageError, match=r"over the limit of Pillow, where PIL.Image.MAX_IMAGE_PIXELS is"):
        load_gray(encoded(Image.new("1", (20_000, 20_000)), "png"), CONFIG)
    with pytest.raises(ImageError, match="0x5 pixels is empty"):
        load_gray(Image.new("L", (0, 5)), CONFIG)


def test_normalising_does_not_see_the_padding():
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (32, w), dtype=np.uint8) for w in (40, 17, 1)]
    pixels, widths = pad_batch(images)
    assert pixels.shape == (3, 1, 32, 48) and pixels.dtype == torch.uint8 and widths.tolist() == [40, 17, 1]
    together = normalize(pixels, widths, CONFIG)
    for n, image in enumerate(images):
        w = image.shape[1]
        alone = normalize(torch.from_numpy(image)[None, None], torch.tensor([w]), CONFIG)
        torch.testing.assert_close(together[n, :, :, :w], alone[0], rtol=1e-5, atol=1e-5)
        assert (together[n, :, :, w:] == 0).all()
    assert abs(together[0].mean()) < 1e-5 and 0.8 < together[0].std() < 1


def test_normalising_for_reading_is_the_same_up_to_rounding():
    rng = np.random.default_rng(0)
    for sizes in ((40, 17, 1), (96,), (96, 96)):
        images = [rng.integers(0, 255, (32, w), dtype=np.uint8) for w in sizes]
        images[0][:] = 255  # a page without ink: no contrast
        pixels, widths = pad_batch(images)
        together, same = normalized_batch(images, CONFIG)
        assert torch.equal(widths, same) and together.dtype == torch.float32
        torch.testing.assert_close(together, normalize(pixels, widths, CONFIG), rtol=1e-5, atol=1e-5)
        for n, image in enumerate(images):
            alone, _ = normalized_batch([image], CONFIG)
            assert torch.equal(alone[0, :, :, : sizes[n]], together[n, :, :, : sizes[n]])


def test_gray_levels_stay_as_they_are_where_no_ink_is_looked_for():
    rng = np.random.default_rng(0)
    ground = np.add.outer(np.arange(32), np.arange(90)).astype(np.uint8) + rng.integers(
        0, 20, (32, 90), np.uint8
    )
    prepared = prepare(ground, PreprocessConfig(height=32, ink="gray", tone=0.0))
    assert np.array_equal(prepared.pixels, ground)
    assert not np.array_equal(prepare(ground, PreprocessConfig(height=32)).pixels, ground)
    colors = np.full((32, 90, 3), (200, 60, 60), np.uint8)
    colors[8:24, 20:70] = (60, 122, 80)  # about as light
    shown = prepare(colors, PreprocessConfig(height=32, ink="gray", tone=0.0)).pixels
    assert int(shown.max()) - int(shown.min()) > 100
