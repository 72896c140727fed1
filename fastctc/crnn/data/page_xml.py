"""Lines of text on pages, as PAGE-XML and ALTO describe them: the outline and the text of each line."""

from __future__ import annotations

import hashlib
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from fastctc.crnn.data.images import ImageError, decode
from fastctc.crnn.data.samples import LabelError
from fastctc.files import stamp

Points = tuple[tuple[int, int], ...]

_MAX_PIXELS = 200_000_000  # of a page
_SUBFOLDER = "page"  # where some programs put the files about the images beside it


class _Line(NamedTuple):
    """A line of a page: its page, its name, its outline, and its text or why there is none."""

    file: Path
    image: str
    name: str
    outline: Points
    text: str | None


def page_files(folder: Path) -> list[Path]:
    """Return the PAGE-XML and ALTO files of a folder, or else of its subfolder ``page``, by name."""
    return sorted(folder.glob("*.xml")) or sorted((folder / _SUBFOLDER).glob("*.xml"))


class PageSource:
    """Lines of pages.

    A line is cut out of its page by the bounding box of its outline. What of the box is outside of the outline gets
    the median color inside, so that neighboring lines disappear.

    Args:
        files: the XML files. The image of each is beside it, or in the folder above.
        normalized: returns a text in the form that it is trained in.

    Raises:
        LabelError: a file is neither PAGE-XML nor ALTO, or no file has a line.
    """

    def __init__(self, files: list[Path], normalized: Callable[[str], str]) -> None:
        self._normalized = normalized
        self._lines = [line for file in files for line in _lines_of(file)]
        if not self._lines:
            raise LabelError(f"{files[0].parent} has no line of text in {len(files)} files")
        self._page: tuple[Path, Image.Image] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the page that was read last."""
        return self.__dict__ | {"_page": None}

    def __len__(self) -> int:
        return len(self._lines)

    def __call__(self, index: int) -> tuple[Image.Image, str]:
        """Return the picture of a line and its text; LabelError or ImageError if there is none."""
        text = self._normalized(self.stored_text(index))
        return self._cut(self._lines[index]), text

    def name(self, index: int) -> str:
        """Return the file and the name of a line."""
        return f"{self._lines[index].file.name}#{self._lines[index].name}"

    def stored_text(self, index: int) -> str:
        """Return the text of a line as the file has it; LabelError if there is none."""
        text = self._lines[index].text
        if text is None:
            raise LabelError(f"{self.name(index)} has no text")
        return text

    def key(self) -> dict[str, Any]:
        """Return JSON that changes with the lines and the images."""
        content = hashlib.sha256()
        for line in self._lines:
            text = None if line.text is None else self._normalized(line.text)
            about = [line.name, line.outline, text, str(line.file), stamp(_image_of(line))]
            content.update(json.dumps(about).encode())
        return {"pages": str(self._lines[0].file.parent.resolve()), "content": content.hexdigest()}

    def _cut(self, line: _Line) -> Image.Image:
        path = _image_of(line)
        if self._page is None or self._page[0] != path:
            self._page = (path, decode(path, _MAX_PIXELS).picture)
        page = self._page[1]
        xs, ys = zip(*line.outline, strict=True)
        box = max(0, min(xs)), max(0, min(ys)), min(page.width, max(xs) + 1), min(page.height, max(ys) + 1)
        mask = Image.new("L", (max(0, box[2] - box[0]), max(0, box[3] - box[1])))
        corners = [(x - box[0], y - box[1]) for x, y in line.outline]
        ImageDraw.Draw(mask).polygon(corners, fill=255, outline=255)
        inside = np.asarray(mask) > 0
        if not inside.any():
            raise ImageError(f"line {line.name} is outside of its page of {page.width}x{page.height} pixels")
        pixels = np.asarray(page.crop(box).convert("RGB")).copy()
        pixels[~inside] = np.median(pixels[inside], axis=0)
        return Image.fromarray(pixels)


def _image_of(line: _Line) -> Path:
    beside = line.file.parent / line.image
    above = line.file.parent.parent / line.image
    return above if not beside.exists() and above.exists() else beside


def _lines_of(file: Path) -> Iterator[_Line]:
    """Yield the lines of a file that have an outline."""
    try:
        root = ElementTree.parse(file).getroot()
    except (ElementTree.ParseError, OSError, ValueError) as error:
        raise LabelError(f"{file} is not readable XML: {error}") from error
    kind = _tag(root)
    if kind not in _READERS:
        raise LabelError(f"{file} has the root {kind}, expected PcGts (PAGE-XML) or alto")
    try:
        yield from _READERS[kind](file, root)
    except (KeyError, ValueError) as error:
        raise LabelError(f"{file} is not {kind} as expected: {error}") from error


def _page_lines(file: Path, root: ElementTree.Element) -> Iterator[_Line]:
    for page in _all(root, "Page"):
        image = page.attrib["imageFilename"]
        for number, line in enumerate(_all(page, "TextLine"), start=1):
            coords = next((each for each in line if _tag(each) == "Coords"), None)
            texts = [each for each in line if _tag(each) == "TextEquiv"]
            best = min(texts, key=lambda each: int(each.get("index", "0")), default=None)
            found = None if best is None else next(_all(best, "Unicode"), None)
            text = None if found is None else (found.text or "")
            if coords is not None:
                yield _Line(file, image, line.get("id", str(number)), _points(coords.attrib["points"]), text)


def _alto_lines(file: Path, root: ElementTree.Element) -> Iterator[_Line]:
    named = next(_all(root, "fileName"), None)
    image = named.text.strip() if named is not None and named.text else f"{file.stem}.png"
    for number, line in enumerate(_all(root, "TextLine"), start=1):
        shape = next((each for each in line if _tag(each) == "Shape"), None)
        polygon = None if shape is None else next(_all(shape, "Polygon"), None)
        if polygon is not None:
            outline = _points(polygon.attrib["POINTS"])
        else:
            x, y, width, height = (float(line.attrib[side]) for side in ("HPOS", "VPOS", "WIDTH", "HEIGHT"))
            left, top, right, bottom = round(x), round(y), round(x + width) - 1, round(y + height) - 1
            outline = ((left, top), (right, top), (right, bottom), (left, bottom))
        words = [each for each in line if _tag(each) in ("String", "SP", "HYP")]
        text = "".join(" " if _tag(each) == "SP" else each.get("CONTENT", "") for each in words)
        yield _Line(file, image, line.get("ID", str(number)), outline, text if words else None)


_READERS = {"PcGts": _page_lines, "alto": _alto_lines}


def _all(element: ElementTree.Element, tag: str) -> Iterator[ElementTree.Element]:
    """Yield the elements of a tag below an element, in whatever namespace."""
    return (each for each in element.iter() if _tag(each) == tag)


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _points(text: str) -> Points:
    """Return the corners of an outline, written as ``x,y x,y`` or ``x y x y``."""
    numbers = [round(float(number)) for number in text.replace(",", " ").split()]
    if len(numbers) < 4 or len(numbers) % 2:
        raise ValueError(f"{text[:60]!r} are no corners")
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))
