import io

import numpy as np
import pytest
import torch
from PIL import Image

from fastctc.crnn.preprocess import ImageError, PreprocessConfig, load_grey, normalize, pad_batch

CONFIG = PreprocessConfig()


def picture(width: int = 180, height: int = 60) -> Image.Image:
    """Dark vertical bars on a light ground."""
    grey = np.full((height, width), 200, np.uint8)
    grey[:, :: max(4, width // 6)] = 20
    grey[:, 1 :: max(4, width // 6)] = 20
    return Image.fromarray(grey)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(("size", "width"), [((180, 60), 96), ((96, 32), 96), ((50, 100), 16), ((3, 600), 1)])
def test_height_is_fixed_and_the_aspect_ratio_kept(size, width):
    grey = load_grey(picture(*size), CONFIG)
    assert grey.dtype == np.uint8 and grey.shape == (32, width)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F", "I;16"]
)
def test_every_mode_gives_the_same_picture(mode):
    expected = load_grey(picture(), CONFIG).astype(int)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(picture()).astype(np.uint16) * 200)
    elif mode in ("1", "I", "F"):
        image = picture().convert(mode, dither=Image.Dither.NONE)
    elif mode == "P":
        image = picture().quantize(8)
    else:
        image = picture().convert("RGB").convert(mode)
    assert image.mode == mode
    assert np.abs(load_grey(image, CONFIG).astype(int) - expected).max() <= 4


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "bmp", "tiff", "webp"])
def test_files_and_bytes(kind, tmp_path):
    data = encoded(picture(), kind)
    path = tmp_path / f"a.{kind}"
    path.write_bytes(data)
    from_file, from_bytes = load_grey(path, CONFIG), load_grey(data, CONFIG)
    assert (from_file == from_bytes).all()
    assert (load_grey(str(path), CONFIG) == from_file).all()
    assert np.abs(from_file.astype(int) - load_grey(picture(), CONFIG).astype(int)).max() < 60


def test_arrays():
    grey = np.asarray(picture())
    expected = load_grey(picture(), CONFIG)
    assert (load_grey(grey, CONFIG) == expected).all()
    assert (load_grey(np.repeat(grey[:, :, None], 3, axis=2), CONFIG) == expected).all()


def test_transparent_is_white():
    ink = Image.new("RGBA", (60, 30), (0, 0, 0, 0))
    ink.paste((0, 0, 0, 255), (20, 5, 40, 25))
    grey = load_grey(ink, CONFIG)
    assert grey[0, 0] == 255 and grey[16, 32] == 0


def test_of_an_animation_the_first_frame_counts():
    frames = [picture(), Image.new("L", (180, 60), 255)]
    data = encoded(frames[0].convert("P"), "gif", save_all=True, append_images=[frames[1].convert("P")])
    image = Image.open(io.BytesIO(data))
    image.seek(1)
    assert (load_grey(image, CONFIG) == load_grey(picture(), CONFIG)).all()


def test_contrast_and_brightness_do_not_matter():
    grey = np.asarray(picture()).astype(float)
    faint = (230 + grey * 0.1).astype(np.uint8)
    assert np.abs(load_grey(faint, CONFIG).astype(int) - load_grey(picture(), CONFIG)).max() <= 20
    inverted = (255 - grey).astype(np.uint8)
    assert np.abs(load_grey(inverted, CONFIG).astype(int) - load_grey(picture(), CONFIG)).max() <= 1
    blank = load_grey(np.full((60, 180), 77, np.uint8), CONFIG)
    pixels, widths = pad_batch([blank])
    assert normalize(pixels, widths, CONFIG).abs().max() < 1e-5


def test_specks_do_not_hide_faint_ink():
    grey = np.full((60, 180), 240, np.uint8)
    grey[20:40, 30:60] = 230  # ink
    grey[3:6, 3:6] = 0  # a speck
    assert load_grey(grey, CONFIG)[16, 24] < 210
    noise = np.random.default_rng(0).integers(119, 122, (60, 180)).astype(np.uint8)
    assert load_grey(noise, CONFIG).min() > 150


def test_unreadable_images_are_named(tmp_path):
    png = encoded(picture(), "png")
    for data in (b"", b"some text", png[:100], png[: len(png) // 2], b"\x89PNG\r\n\x1a\n" + bytes(50)):
        with pytest.raises(ImageError, match="not a readable image"):
            load_grey(data, CONFIG)
    with pytest.raises(ImageError, match="no such file"):
        load_grey(tmp_path / "none.png", CONFIG)
    with pytest.raises(ImageError, match="not a readable image"):
        load_grey(tmp_path, CONFIG)


def test_absurd_sizes_are_refused():
    with pytest.raises(
        ImageError, match="20000x60 pixels would be 10667 wide at height 32, the limit is 2048"
    ):
        load_grey(encoded(Image.new("L", (20_000, 60)), "png"), CONFIG)
    with pytest.raises(ImageError, match="6000x6000 pixels is over the limit of 25000000 pixels"):
        load_grey(encoded(Image.new("1", (6000, 6000)), "png"), CONFIG)
    with pytest.raises(ImageError, match=r"not a readable image.*decompression bomb"):
        load_grey(encoded(Image.new("1", (20_000, 20_000)), "png"), CONFIG)
    with pytest.raises(ImageError, match=r"array of float64 and shape \(60, 180\)"):
        load_grey(np.zeros((60, 180)), CONFIG)
    with pytest.raises(ImageError, match="0x5 pixels is empty"):
        load_grey(Image.new("L", (0, 5)), CONFIG)


def test_normalising_does_not_see_the_padding():
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (32, w), dtype=np.uint8) for w in (40, 17, 1)]
    pixels, widths = pad_batch(images)
    assert pixels.shape == (3, 1, 32, 40) and pixels.dtype == torch.uint8 and widths.tolist() == [40, 17, 1]
    together = normalize(pixels, widths, CONFIG)
    for n, image in enumerate(images):
        w = image.shape[1]
        alone = normalize(torch.from_numpy(image)[None, None], torch.tensor([w]), CONFIG)
        torch.testing.assert_close(together[n, :, :, :w], alone[0], rtol=1e-5, atol=1e-5)
        assert (together[n, :, :, w:] == 0).all()
    assert abs(together[0].mean()) < 1e-5 and 0.8 < together[0].std() < 1
