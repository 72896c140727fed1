"""The style that all pictures of the package share. Needs matplotlib."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ParamSpec, TypeVar

from fastctc.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "COLORS", "DPI", "PICTURE_SUFFIXES", "STYLE", "can_draw", "drawing_style", "load_matplotlib", "new_figure",
    "styled", "text_fonts", "write_picture", "write_png",
]  # fmt: skip

COLORS = ("#0072b2", "#d55e00", "#009e73", "#b5569b", "#8a6d00", "#3a9bdc")
"""Colors of neighboring things, distinct also for color-blind people (after Okabe and Ito)."""

INK, FAINT, BLANK = "#333333", "#dddddd", "#9a9a9a"

STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": BLANK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "text.parse_math": False,
    "text.usetex": False,
    "savefig.facecolor": "white",
}
"""Settings of matplotlib. Without math and TeX, ``$`` and ``_`` in a user's text are ordinary characters."""

DPI = 130

# The first of them that is installed and has a character draws it.
_FALLBACKS = (
    "DejaVu Sans", "Noto Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "WenQuanYi Micro Hei",
    "PingFang SC", "Microsoft YaHei", "Noto Sans Hebrew", "Noto Sans Arabic", "Noto Sans Devanagari",
    "Noto Sans Bengali", "Noto Sans Tamil", "Noto Sans Thai", "Noto Sans Symbols", "Noto Sans Math", "Noto Emoji",
    "FreeSans", "Arial Unicode MS", "Unifont",
)  # fmt: skip

_Arguments = ParamSpec("_Arguments")
_Drawn = TypeVar("_Drawn")


def load_matplotlib() -> Any:
    """Import matplotlib, which the package imports only to draw.

    Raises:
        ModuleNotFoundError: it is not installed; the message names the remedy.
    """
    try:
        import matplotlib.figure
        import matplotlib.font_manager
        import matplotlib.ft2font
        import matplotlib.patches
        import matplotlib.ticker
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('pictures need matplotlib: pip install "fastctc[plot]"') from error
    return matplotlib


def new_figure(width: float, height: float, layout: Any = "constrained") -> Figure:
    """Return an empty figure of a size in inches, which is not registered with pyplot."""
    figure: Figure = load_matplotlib().figure.Figure(figsize=(width, height), layout=layout)
    return figure


def drawing_style() -> Any:
    """Return a context manager in which matplotlib draws in :data:`STYLE`, with fonts for texts in any script."""
    return load_matplotlib().rc_context(STYLE | {"font.family": text_fonts(monospace=False)})


def styled(draw: Callable[_Arguments, _Drawn]) -> Callable[_Arguments, _Drawn]:
    """Return a function that draws in :data:`STYLE`."""

    @wraps(draw)
    def in_style(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Drawn:
        with drawing_style():
            return draw(*args, **kwargs)

    return in_style


def write_png(figure: Figure, path: Path | BinaryIO, dpi: int = DPI) -> None:
    """Write a figure as a PNG file, without warnings about characters that no font has."""
    numbers = {"text.parse_math": True}  # for ticks made now, whose numbers may be powers of ten
    with drawing_style(), load_matplotlib().rc_context(numbers), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing", category=UserWarning)
        figure.savefig(path, format="png", dpi=dpi)


PICTURE_SUFFIXES = (".png", ".pdf", ".svg")
"""Kinds of files that :func:`write_picture` writes."""


def write_picture(figure: Figure, path: Path, dpi: int = 200) -> None:
    """Write a figure as the kind of file that its suffix names, whole or not at all, with the same bytes each time.

    Args:
        figure: the picture.
        path: with a suffix of :data:`PICTURE_SUFFIXES`.
        dpi: pixels per inch of a PNG file, and of images inside of the other kinds.

    Raises:
        ValueError: another suffix.
    """
    if path.suffix not in PICTURE_SUFFIXES:
        raise ValueError(f"path is {path}, expected a name that ends in {', '.join(PICTURE_SUFFIXES)}")
    undated = {".png": None, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}[path.suffix]
    content = io.BytesIO()
    with load_matplotlib().rc_context({"svg.hashsalt": "fastctc"}):
        figure.savefig(content, dpi=dpi, format=path.suffix[1:], metadata=undated)
    write_atomically(path, content.getvalue())


@cache
def text_fonts(*, monospace: bool = True) -> list[str]:
    """Return the installed fonts for a text in any script. The first that has a character draws it."""
    installed = set(load_matplotlib().font_manager.get_font_names())
    names = dict.fromkeys(("DejaVu Sans Mono" if monospace else "DejaVu Sans", *_FALLBACKS))
    return [name for name in names if name in installed]


def can_draw(text: str) -> bool:
    """Return True if the installed fonts have all characters of a text."""
    return all(ord(character) in _code_points() for character in text)


@cache
def _code_points() -> frozenset[int]:
    """Return the code points that the fonts for texts have."""
    matplotlib = load_matplotlib()
    paths = [matplotlib.font_manager.findfont(name) for name in text_fonts()]
    return frozenset(code for path in paths for code in matplotlib.ft2font.FT2Font(path).get_charmap())
