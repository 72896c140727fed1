"""The fonts that can draw formulas: found where they are installed, and checked. None is shipped."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
from PIL import ImageFont

from fastctc.crnn.data import font_files, package_folder, printed
from fastctc.crnn.formulas.grammar import CHARACTERS

FONT_PACKAGES = (
    "font_caladea", "font_fjallaone", "font_fredoka_one", "font_hanken_grotesk", "font_intuitive", "font_lato",
    "font_manrope", "font_roboto", "font_source_sans_pro", "font_source_serif_pro", "fontpkg_noto_sans",
    "fontpkg_noto_serif", "fontpkg_open_sans", "fontpkg_roboto_condensed", "fontpkg_roboto_mono",
    "fontpkg_roboto_slab",
)  # fmt: skip
"""The packages of ``pip install fastctc[fonts]``: free fonts in a folder ``files``."""


def find_fonts(*, system: bool = False, packages: bool = False) -> tuple[str, ...]:
    """Return the fonts at hand that draw every character of a formula, always in the same order.

    The ``captcha`` package's font comes first, then those bundled with matplotlib where it is installed: the
    same fonts on every machine with the same versions of both.

    Args:
        system: add what lies under /usr/share/fonts, which differs from machine to machine.
        packages: add the fonts of :data:`FONT_PACKAGES`.

    Raises:
        ModuleNotFoundError: one of the packages is missing.
    """
    folders = [package_folder("captcha") / "data"]
    if importlib.util.find_spec("matplotlib") is not None:
        folders.append(package_folder("matplotlib") / "mpl-data" / "fonts" / "ttf")
    if packages:
        folders += [package_folder(name, extra="fonts") / "files" for name in FONT_PACKAGES]
    if system:
        folders.append(Path("/usr/share/fonts"))
    found: dict[tuple[str | None, str | None], str] = {}
    for folder in folders:
        for path in font_files(folder):
            if draws_formulas(str(path)):
                found.setdefault(ImageFont.truetype(str(path), 16).getname(), str(path))
    return tuple(found.values())


@cache
def draws_formulas(path: str) -> bool:
    """Return True if the font file at ``path`` has all the characters of a formula, and in their usual shapes.

    Fonts of mathematical symbols put arrows or fragments of braces at these codes, so besides being there
    each glyph must differ from the others, the minus be wide, the brackets tall, and the equals sign fall
    into two bars.
    """
    try:
        font = ImageFont.truetype(path, 40)
        glyphs = {c: printed(c, font) for c in CHARACTERS + "\U0010ffff"}
    except (OSError, ValueError):
        return False
    missing = glyphs.pop("\U0010ffff").tobytes()
    if len({glyph.tobytes() for glyph in glyphs.values()} - {missing, b""}) < len(CHARACTERS):
        return False
    equals_rows = np.asarray(glyphs["="]).max(1)
    return (
        glyphs["-"].width > glyphs["-"].height
        and all(glyphs[c].height > 1.5 * glyphs[c].width for c in "()")
        and equals_rows[len(equals_rows) // 2] == 0
    )
