"""Fonts at hand: in folders, in installed packages, and their glyphs."""

from __future__ import annotations

import importlib.util
import pkgutil
import zlib
from math import ceil
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

_PREFIXES = ("font_", "fontpkg_")


def font_files(folder: Path) -> list[Path]:
    """Return the TrueType and OpenType files in a folder and the folders in it, sorted."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".ttf", ".otf"))


def installed_fonts() -> list[Path]:
    """Return the fonts of the installed packages that hold fonts in a folder ``files``, sorted by package.

    The names of such packages begin with ``font-`` or ``fontpkg-``.
    """
    names = sorted({each.name for each in pkgutil.iter_modules() if each.name.startswith(_PREFIXES)})
    return [path for name in names for path in font_files(package_folder(name) / "files")]


def package_folder(name: str, extra: str | None = None) -> Path:
    """Return where a package is installed, without importing it; name the extra of a missing one."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        install = name if extra is None else f"fastctc[{extra}]"
        raise ModuleNotFoundError(
            f"drawing these images needs the {name} package: pip install {install}", name=name
        )
    return Path(spec.submodule_search_locations[0])


def printed(character: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """Return one character, upright: the tightest box of its coverage (0-255), or an empty one for no ink."""
    left, top, right, bottom = font.getbbox(character)
    image = Image.new("L", (ceil(right - left) + 4, ceil(bottom - top) + 4))
    ImageDraw.Draw(image).text((2 - left, 2 - top), character, font=font, fill=255)
    return image.crop(image.getbbox() or (0, 0, 0, 0))


def is_unseen(name: str) -> bool:
    """Return True for the tenth of all names, of words or of fonts, that no training image shows."""
    return zlib.crc32(name.casefold().encode()) % 10 == 0
