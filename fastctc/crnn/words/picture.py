"""Pictures of a text: lettering in an ink on a ground, and what printing, light and cameras do to it.

======= ================================================================================================
look    what it shows
======= ================================================================================================
clean   print on an even ground, as scanners and screens show it
scene   any inks and grounds, outlines, shadows, curves, perspective, blur, noise: signs, covers, labels
mixed   a third of the first, the rest of the second
======= ================================================================================================
"""

from __future__ import annotations

import io
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageStat

from fastctc.crnn.words.faces import Face, font_of, pen_of
from fastctc.crnn.words.grounds import Color, lightness, random_color, random_ground
from fastctc.crnn.words.lettering import Bend, Lettering, bent, cropped, spaced, straight

Look = Literal["mixed", "clean", "scene"]
SIZES = (32, 40, 52)
_CLEAN_SHARE = 1 / 3
_LEAST_CONTRAST = 28  # gray levels between ink and ground
_BOLDEST = 0.17  # width of the strokes of letters that are made bolder, as a share of the size


def draw_text(text: str, face: Face, look: Look, photos: Sequence[Path], rng: random.Random) -> Image.Image:
    """Return a picture of a text in RGB.

    Args:
        text: of one line, of characters that the face has.
        face: the font.
        look: ``"clean"``, ``"scene"`` or ``"mixed"``.
        photos: photographs for grounds.
        rng: decides everything else.
    """
    if look == "mixed":
        look = "clean" if rng.random() < _CLEAN_SHARE else "scene"
    if look == "clean":
        return _degraded(*_printed(text, face, rng), 0.5, rng)
    return _degraded(*_painted(text, face, photos, rng), 1.0, rng)


def _printed(text: str, face: Face, rng: random.Random) -> tuple[Image.Image, int]:
    """Return a picture of print, and the height of its letters in pixels."""
    size = rng.choice(SIZES)
    font = font_of(face, size)
    stroke = _stroke(face, size, rng) if rng.random() < 0.25 else 0
    if stroke > 1 or rng.random() < 0.15:
        spacing = stroke + size * rng.uniform(-0.07, 0.12)
        on_page = spaced(text, font, stroke, 0, spacing, size * rng.uniform(0, 0.04), rng)
    else:
        on_page = straight(text, font, stroke, 0)
    lettering = flat = cropped(on_page)
    if rng.random() < 0.4:
        lettering = bent(
            on_page,
            Bend(
                turn=rng.gauss(0, 0.012),
                slant=rng.gauss(0, 0.25 if rng.random() < 0.3 else 0.05),
                stretch=_stretch(0.45, 1.25, rng),
                wobble=_wobble(rng),
            ),
            rng,
        )
    box = _margins(lettering.fill.size, -0.02, 0.5, rng)
    paper, ink = rng.randint(200, 255), rng.randint(0, 90)
    if rng.random() < 0.15:
        paper, ink = ink, paper
    tint = [rng.randint(-12, 12) if rng.random() < 0.3 else 0 for _ in range(3)]
    colors = [tuple(max(0, min(255, level + t)) for t in tint) for level in (paper, ink)]
    image = Image.new("RGB", box[:2], colors[0])
    image.paste(colors[1], box[2:], lettering.fill)
    return image, min(flat.fill.height, lettering.fill.height)


def _painted(text: str, face: Face, photos: Sequence[Path], rng: random.Random) -> tuple[Image.Image, int]:
    """Return a picture of a sign, a cover or a label, and the height of its letters in pixels."""
    size = rng.choice(SIZES)
    font = font_of(face, size)
    stroke = _stroke(face, size, rng) if rng.random() < 0.33 else 0
    outline = rng.choice((1, 2, 3)) if rng.random() < 0.15 else 0
    if stroke > 1 or rng.random() < 0.35:
        spacing = size * (rng.uniform(-0.06, 0.0) if rng.random() < 0.3 else rng.uniform(0.0, 0.35)) + stroke
        jitter = size * (rng.uniform(0, 0.08) if rng.random() < 0.4 else 0.0)
        on_page = spaced(text, font, stroke, outline, spacing, jitter, rng)
    else:
        on_page = straight(text, font, stroke, outline)
    lettering = flat = cropped(on_page)
    if rng.random() < 0.85:
        lettering = bent(on_page, _random_bend(on_page, rng), rng)
    width, height, x, y = _margins(lettering.fill.size, -0.05, 0.6, rng)
    ground = random_ground((width, height), photos, rng)
    around = _mean(ground)
    ink = _ink(around, rng)
    if rng.random() < 0.9:
        ground = _calmed(ground, around, ink)
    draw = rng.random()
    if draw < 0.15:
        _cast_shadow(ground, lettering, (x, y), rng)
    elif draw < 0.22:
        _deepen(ground, lettering, (x, y), rng)
    if lettering.outline is not None:
        edge = _ink(ink if rng.random() < 0.7 else around, rng)
        ground.paste(edge, (x, y), lettering.outline)
        if rng.random() < 0.4:  # hollow letters: their inside is the ground's
            ink = _near(around, rng) if abs(lightness(edge) - lightness(around)) > 60 else ink
        if abs(lightness(edge) - lightness(ink)) < _LEAST_CONTRAST:
            ink = (255, 255, 255) if lightness(edge) < 128 else (0, 0, 0)
    mask = lettering.fill
    if rng.random() < 0.15:
        fade = rng.randint(150, 240)
        mask = mask.point([level * fade // 255 for level in range(256)])
    if rng.random() < 0.1:
        ground.paste(_two_tone(mask.size, ink, rng), (x, y), mask)
    else:
        ground.paste(ink, (x, y), mask)
    _add_lines(ground, ink, rng)
    if rng.random() < 0.05:
        _add_neighbor(ground, font, ink, rng)
    return ground, min(flat.fill.height, lettering.fill.height)


def _random_bend(lettering: Lettering, rng: random.Random) -> Bend:
    width, height = lettering.fill.size
    # The ends of a long line may not rise more than the ends of a short one.
    most = min(0.45, 1.5 * height / width)
    turn = max(-most, min(most, rng.gauss(0, most / 2))) if rng.random() < 0.7 else 0.0
    # On a wall that is seen from the side, the stems stay upright.
    upright = math.tan(turn) if rng.random() < 0.4 else 0.0
    circle = _circle(width / height, rng) if rng.random() < 0.15 else 0.0
    arc = 0.0
    if not circle and rng.random() < 0.25:
        arc = rng.gauss(0, 0.35) * min(1.0, width / height / 3)
    return Bend(
        turn=turn,
        slant=upright + (rng.gauss(0, 0.2) if rng.random() < 0.4 else 0.0),
        tilt=(rng.gauss(0, 0.25), rng.gauss(0, 0.12)) if rng.random() < 0.5 else (0.0, 0.0),
        circle=circle,
        arc=max(-0.8, min(0.8, arc)),
        wave=rng.gauss(0, 0.06) if rng.random() < 0.1 else 0.0,
        stretch=_stretch(0.5, 1.4, rng) if rng.random() < 0.5 else 1.0,
        wobble=_wobble(rng),
    )


def _stroke(face: Face, size: int, rng: random.Random) -> int:
    """Return pixels by which letters are made bolder, up to the width of a marker's strokes."""
    return round(rng.uniform(0, max(0.0, _BOLDEST - pen_of(face)) * size / 2))


def _circle(length: float, rng: random.Random) -> float:
    """Return the radians of a line on a circle; ``length`` is its width as a multiple of its height.

    The radius is at least 5/4 of the height, and the text is at most four lines high.
    """
    angle = min(rng.uniform(0.4, 2.8), 0.8 * length)
    while angle > 0.4 and length / angle * (1 - math.cos(angle / 2)) > 3:
        angle *= 0.9
    return angle if rng.random() < 0.75 else -angle


def _wobble(rng: random.Random) -> float:
    return rng.uniform(0.01, 0.05) if rng.random() < 0.2 else 0.0


def _stretch(least: float, most: float, rng: random.Random) -> float:
    """Return a stretch of the width; to half and to double are as likely."""
    return math.exp(rng.uniform(math.log(least), math.log(most)))


def _margins(
    size: tuple[int, int], least: float, most: float, rng: random.Random
) -> tuple[int, int, int, int]:
    """Return the width and height of a picture, and where the ink begins in it; a margin below 0 cuts ink off.

    Some pictures have a shape of their own, such as 256 x 64, whatever the length of the text.
    """
    height = size[1]
    if rng.random() < 0.2:
        shape = rng.uniform(2.0, 6.0)
        tall = round(max(height, min(3 * height, size[0] / shape)) * rng.uniform(1.0, 1.3))
        wide = max(size[0], round(tall * shape))
        left, top = (
            round((room - ink) * rng.choice((0.5, rng.random())))
            for room, ink in ((wide, size[0]), (tall, height))
        )
        return max(4, wide), max(4, tall), left, top
    high = most if rng.random() < 0.25 else most / 3
    far = 1.1 if rng.random() < 0.08 else high
    left, right = (round(height * rng.uniform(least, high)) for _ in range(2))
    top, bottom = (round(height * rng.uniform(least, far)) for _ in range(2))
    return max(4, size[0] + left + right), max(4, height + top + bottom), left, top


def _mean(image: Image.Image) -> Color:
    red, green, blue = image.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))  # type: ignore[misc]
    return red, green, blue


def _ink(ground: Color, rng: random.Random) -> Color:
    """Return a color that can be told from a ground."""
    contrast = _LEAST_CONTRAST if rng.random() < 0.1 else rng.choice((50, 80, 110))
    for _ in range(6):
        color = random_color(rng)
        if abs(lightness(color) - lightness(ground)) >= contrast:
            return color
    level = rng.randint(0, 30) if lightness(ground) > 128 else rng.randint(225, 255)
    return level, level, level


def _calmed(ground: Image.Image, around: Color, ink: Color) -> Image.Image:
    """Return a ground with less contrast in itself than the ink has to it, so that a person can read the text."""
    cells = ground.convert("L").resize((24, 6), Image.Resampling.BOX)
    contrast, own = abs(lightness(ink) - lightness(around)), ImageStat.Stat(cells).stddev[0]
    if 2 * own <= contrast:
        return ground
    return Image.blend(Image.new("RGB", ground.size, around), ground, contrast / (2 * own))


def _near(color: Color, rng: random.Random) -> Color:
    red, green, blue = (max(0, min(255, c + rng.randint(-12, 12))) for c in color)
    return red, green, blue


def _two_tone(size: tuple[int, int], ink: Color, rng: random.Random) -> Image.Image:
    change = rng.randint(-60, 60)
    other = tuple(max(0, min(255, c + change)) for c in ink)
    return Image.frombytes("RGB", (1, 2), bytes((*ink, *other))).resize(size, Image.Resampling.BILINEAR)


def _cast_shadow(
    ground: Image.Image, lettering: Lettering, place: tuple[int, int], rng: random.Random
) -> None:
    reach = max(1, lettering.fill.height // 12)
    strength = rng.uniform(0.3, 0.9)
    mask = lettering.outline or lettering.fill
    mask = mask.filter(ImageFilter.GaussianBlur(rng.uniform(0, 2.0))).point(
        [round(i * strength) for i in range(256)]
    )
    dx, dy = rng.randint(-reach, reach), rng.randint(0, reach)
    ground.paste((0, 0, 0) if rng.random() < 0.85 else (255, 255, 255), (place[0] + dx, place[1] + dy), mask)


def _deepen(ground: Image.Image, lettering: Lettering, place: tuple[int, int], rng: random.Random) -> None:
    """Draw the sides of letters that stand out from the ground."""
    depth = rng.randint(2, max(2, lettering.fill.height // 8))
    dx, dy = rng.uniform(-1, 1), rng.uniform(-0.3, 1)
    color = random_color(rng) if rng.random() < 0.5 else (0, 0, 0)
    for step in range(depth, 0, -1):
        ground.paste(
            color,
            (place[0] + round(step * dx), place[1] + round(step * dy)),
            lettering.outline or lettering.fill,
        )


def _add_lines(image: Image.Image, ink: Color, rng: random.Random) -> None:
    """Draw a frame, a line under the text, or a stroke through it on some pictures."""
    choice = rng.random()
    if choice > 0.12:
        return
    draw = ImageDraw.Draw(image)
    color = ink if rng.random() < 0.5 else random_color(rng)
    thickness = rng.randint(1, 3)
    width, height = image.size
    if choice < 0.05:
        inset = rng.randint(0, 2)
        draw.rectangle((inset, inset, width - 1 - inset, height - 1 - inset), outline=color, width=thickness)
    elif choice < 0.09:
        y = rng.choice((rng.randint(0, 2), height - 1 - rng.randint(0, 2)))
        draw.line((0, y, width, y + rng.randint(-2, 2)), color, thickness)
    else:
        draw.line((0, rng.randrange(height), width, rng.randrange(height)), color, rng.randint(1, 2))


def _add_neighbor(image: Image.Image, font: Any, ink: Color, rng: random.Random) -> None:
    """Let a line above or below reach into the picture."""
    text = "".join(rng.choice("adeginorstu gpyl") for _ in range(max(2, image.width // font.size)))
    left, top, _, bottom = font.getbbox(text)
    reach = rng.uniform(0.05, 0.14) * (bottom - top)
    y = image.height - reach - top if rng.random() < 0.5 else reach - bottom
    ImageDraw.Draw(image).text((-left, y), text, font=font, fill=ink)


def _degraded(image: Image.Image, letter_height: int, strength: float, rng: random.Random) -> Image.Image:
    """Return a picture after light, optics, a sensor and compression.

    Args:
        image: in RGB.
        letter_height: pixels from the top of the letters to their bottom, were they on a straight line.
        strength: how likely each is, as a share.
        rng: decides which.
    """
    if rng.random() < 0.15 * strength:
        levels = bytes(rng.randint(110, 255) for _ in range(4))
        light = Image.frombytes("L", (2, 2), levels).resize(image.size, Image.Resampling.BILINEAR)
        image = ImageChops.multiply(image, Image.merge("RGB", (light, light, light)))
    if rng.random() < 0.55:
        small = _smaller(image, letter_height, rng)
        letter_height = round(letter_height * small.height / image.height)
        image = small
    if rng.random() < 0.45 * strength:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, max(0.3, 0.035 * letter_height))))
    elif rng.random() < 0.06 * strength:
        image = image.filter(_moving(rng))
    if rng.random() < 0.4 * strength:
        numbers = np.random.default_rng(rng.getrandbits(64))
        noise = numbers.standard_normal((image.height, image.width, rng.choice((1, 3))), dtype=np.float32)
        pixels = np.asarray(image) + noise * np.float32(rng.uniform(1, 16))
        image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if rng.random() < 0.4:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=rng.randint(25, 92))
        image = Image.open(buffer)
        image.load()
    return image


def _smaller(image: Image.Image, letter_height: int, rng: random.Random) -> Image.Image:
    """Return a picture with fewer pixels, unless its ink is small already."""
    height = round(math.exp(rng.uniform(math.log(13), math.log(52))) / letter_height * image.height)
    if height >= image.height:
        return image
    width = max(4, round(image.width * height / image.height))
    kind = rng.choice((Image.Resampling.BILINEAR, Image.Resampling.BOX, Image.Resampling.BICUBIC))
    return image.resize((width, height), kind)


def _moving(rng: random.Random) -> ImageFilter.Kernel:
    """Return the blur of a movement."""
    kernel = np.zeros((5, 5))
    dx, dy = rng.choice(((1, 0), (0, 1), (1, 1), (1, -1)))
    for step in range(-2, 3):
        kernel[2 + dy * step, 2 + dx * step] = 1
    return ImageFilter.Kernel((5, 5), kernel.ravel().tolist(), kernel.sum())
