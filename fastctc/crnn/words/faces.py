"""The faces that words are drawn in: fonts of installed packages, or of a folder."""

from __future__ import annotations

from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFont

from fastctc.crnn.data import font_files, installed_fonts, is_unseen, package_folder, printed
from fastctc.crnn.words.texts import Part

Floats = npt.NDArray[np.float64]

_ALIKE = (
    0.7  # median correlation of small letters with their capitals: 0.78 where drawn by hand, else below 0.62
)
_OF_TEXT = ("DejaVuSans", "DejaVuSerif", "STIXGeneral")
_TEST_SIZE = 24
_PEN_SIZE = 64
_TESTED = "abdeghnqrt"  # letters whose two cases differ in shape
_MISSING = ("\U0010ffff", "\ue83f")  # no font of text has these


class Face(NamedTuple):
    """A font: a file, and the number of a named instance if the file is a variable font.

    Attributes:
        path: of the file.
        instance: number among the named instances; -1: the font as it is.
    """

    path: str
    instance: int = -1


@cache
def find_faces(folder: str | None, part: Part) -> tuple[Face, ...]:
    """Return the faces of a part, always in the same order.

    A tenth of all families, chosen by the first word of their names, is ``"unseen"``. A part that would be empty,
    as with few fonts, has all faces.

    Args:
        folder: searched for fonts, with the folders in it; None: the installed font packages and matplotlib.
        part: ``"seen"`` or ``"unseen"``.

    Raises:
        ValueError: the folder has no font.
        ModuleNotFoundError: no package with fonts is installed.
    """
    if folder is None:
        paths = [*installed_fonts(), *_of_matplotlib()]
        if not paths:
            raise ModuleNotFoundError(
                "drawing words needs packages of fonts: pip install fastctc[words], or name a folder of fonts",
                name="matplotlib",
            )
    else:
        paths = font_files(Path(folder))
        if not paths:
            raise ValueError(f"fonts is {folder!r}, expected a folder with .ttf or .otf files, got none")
    faces: dict[tuple[str | None, str | None, int], tuple[str, Face]] = {}
    for path in paths:
        for family, style, face in _faces_of(path):
            faces.setdefault((family, style, face.instance), (family, face))
    chosen = [face for family, face in faces.values() if is_unseen(family.split()[0]) == (part == "unseen")]
    return tuple(chosen or (face for _, face in faces.values()))


def _of_matplotlib() -> list[Path]:
    """Return matplotlib's fonts of text; its others have mathematical symbols in place of letters."""
    if find_spec("matplotlib") is None:
        return []
    folder = package_folder("matplotlib") / "mpl-data" / "fonts" / "ttf"
    return [path for path in font_files(folder) if path.name.startswith(_OF_TEXT)]


def _faces_of(path: Path) -> list[tuple[str, str, Face]]:
    """Return (family, style, face) of each face of a file; none of one that cannot be used."""
    try:
        font = ImageFont.truetype(str(path), 32)
        family, style = font.getname()
        try:
            instances = range(len(font.get_variation_names()))
        except OSError:  # not a variable font
            instances = range(-1, 0)
        drawable = bool(font.getbbox("0")[2])
    except (OSError, ValueError):
        return []
    if not family or not drawable:
        return []
    return [(family, style or "", Face(str(path), number)) for number in instances]


@lru_cache(maxsize=4096)
def font_of(face: Face, size: int) -> ImageFont.FreeTypeFont:
    """Return the font of a face at a size in pixels."""
    font = ImageFont.truetype(face.path, size, layout_engine=ImageFont.Layout.BASIC)
    if face.instance >= 0:
        font.set_variation_by_name(font.get_variation_names()[face.instance])
    return font


@cache
def pen_of(face: Face) -> float:
    """Return how thick the strokes of a face are, as a share of its size: 0.05 to 0.15 in most."""
    ink = np.pad(np.asarray(printed("no038", font_of(face, _PEN_SIZE))) > 127, 1)
    edges = (ink[1:] != ink[:-1]).sum() + (ink[:, 1:] != ink[:, :-1]).sum()
    # A stroke has two edges. Steps of pixels are 4 / pi times as long as the edges in all directions are.
    return float(2 * ink.sum() / max(1, edges) * 4 / np.pi / _PEN_SIZE)


@cache
def has_one_case(path: str) -> bool:
    """Return True if small letters of a font look like its capitals, so that nobody can tell their case."""
    return median(_correlation(_shape(path, c), _shape(path, c.upper())) for c in _TESTED) > _ALIKE


@cache
def _glyph(path: str, character: str) -> tuple[tuple[int, int], bytes]:
    image = printed(character, font_of(Face(path), _TEST_SIZE))
    return image.size, image.tobytes()


@cache
def can_draw(path: str, character: str) -> bool:
    """Return True if a font has a character."""
    if character == " ":
        return True
    glyph = _glyph(path, character)
    return any(glyph[1]) and glyph not in [_glyph(path, missing) for missing in _MISSING]


@cache
def _shape(path: str, character: str) -> Floats:
    image = printed(character, font_of(Face(path), _TEST_SIZE)).resize((24, 24), Image.Resampling.BILINEAR)
    pixels = np.asarray(image, dtype=np.float64)
    centered: Floats = pixels - pixels.mean()
    return centered


def _correlation(a: Floats, b: Floats) -> float:
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm else 1.0
