"""The fonts that can draw formulas: found where they are installed, and checked. None is shipped."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import ImageFont

from fastctc.crnn.data import font_files, installed_fonts, is_unseen, package_folder, printed
from fastctc.crnn.formulas.grammar import CHARACTERS

FontSet = Literal["bundled", "packages", "unseen"]


def find_fonts(fonts: FontSet = "bundled", *, system: bool = False) -> tuple[str, ...]:
    """Return the fonts at hand that draw every character of a formula, always in the same order.

    Args:
        fonts: ``"bundled"``: the font of ``captcha``, then the fonts of matplotlib where it is installed: the
            same on every machine with the same versions of both. ``"packages"``: also the fonts of installed
            packages, such as ``pip install fastctc[words]`` brings, except a tenth of their families. ``"unseen"``:
            this tenth alone.
        system: add what lies under /usr/share/fonts, which differs from machine to machine.

    Raises:
        ModuleNotFoundError: no font package is installed.
    """
    folders = [package_folder("captcha") / "data"]
    if importlib.util.find_spec("matplotlib") is not None:
        folders.append(package_folder("matplotlib") / "mpl-data" / "fonts" / "ttf")
    if system:
        folders.append(Path("/usr/share/fonts"))
    found = _by_name(path for folder in folders for path in font_files(folder))
    if fonts == "bundled":
        return tuple(found.values())
    paths = installed_fonts()
    if not paths:
        raise ModuleNotFoundError(
            f"fonts {fonts!r} needs packages of fonts: pip install fastctc[words]", name="fontpkg"
        )
    more = {
        name: path
        for name, path in _by_name(paths).items()
        if name not in found and is_unseen(name[0].split()[0]) == (fonts == "unseen")
    }
    return tuple((more if fonts == "unseen" else found | more).values())


def _by_name(paths: Iterable[Path]) -> dict[tuple[str, str | None], str]:
    """Return the paths of fonts that draw formulas by family and style, the first of each name."""
    found: dict[tuple[str, str | None], str] = {}
    for path in paths:
        if draws_formulas(str(path)):
            family, style = ImageFont.truetype(str(path), 16).getname()
            found.setdefault((family or path.stem, style), str(path))
    return found


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
