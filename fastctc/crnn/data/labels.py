"""Labels files: which text each image shows, in any of the spellings that data sets have.

================ ==========================================================================================
file             a line, or an entry
================ ==========================================================================================
``labels.tsv``   file name, tab, text
``labels.csv``   file name and text, parted by commas, semicolons or tabs; double quotes as in spreadsheets
``labels.txt``   as scene-text sets come: file name and text, parted by a tab; in a line without a tab, by a
                 comma or by spaces. Such a text has no spaces around it, and behind a comma no double quotes
``labels.jsonl`` ``{"image": "a.png", "text": "1+2"}``
``labels.json``  ``{"a.png": "1+2"}`` or ``[{"image": "a.png", "text": "1+2"}]``
================ ==========================================================================================

The first line of a ``.tsv``, ``.csv`` or ``.txt`` file may name the columns. Then there may be more columns than
two, in any order. The names of columns, and of keys in JSON, are :data:`NAMES` and :data:`TEXTS`.
Files are UTF-8, with or without a byte order mark, with any line ends.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fastctc.crnn.data.samples import LabelError

NAMES = ("image", "file", "filename", "file_name", "path", "image_path", "img", "img_path", "image_name")
"""Names of the column or the key of a file name; case does not matter."""

TEXTS = ("text", "label", "transcription", "transcript", "word", "words", "gt", "ground_truth")
"""Names of the column or the key of a text; case does not matter."""


class Label(NamedTuple):
    """A label.

    Attributes:
        name: file name of the image, relative to the folder or absolute.
        text: the text that the image shows.
        number: its line, or its entry in JSON, counted from 1.
    """

    name: str
    text: str
    number: int


def read_labels(path: Path) -> list[Label]:
    """Return the labels of a file, by its ending; empty lines do not count.

    Raises:
        LabelError: the file cannot be read; the message names the line.
    """
    parse = PARSERS.get(path.suffix)
    if parse is None:
        raise LabelError(f"{path} ends in {path.suffix!r}, expected {', '.join(PARSERS)} or .mdb")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LabelError(f"cannot read {path}: {error.strerror}") from error
    labels = list(parse(path, decoded(path, content)))
    if not labels:
        raise LabelError(f"{path} names no image")
    return labels


def decoded(path: Path, content: bytes) -> str:
    """Return the text of a UTF-8 file, with ``\\n`` at the ends of lines.

    Raises:
        LabelError: another encoding; the message names it, or the line that is not UTF-8.
    """
    for mark, name in _MARKS.items():
        if content.startswith(mark):
            raise LabelError(f"{path} is {name}, expected UTF-8: iconv -f {name} -t UTF-8")
    start = content[:1000]
    zeros = max(start[0::2].count(0), start[1::2].count(0))
    if len(start) > 3 and zeros > 0.3 * len(start) / 2:
        raise LabelError(f"{path} seems to be UTF-16 (every other byte is 0), expected UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise LabelError(
            f"{path}, line {line}, is not UTF-8: {error.reason} at byte {error.start}"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


_MARKS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}

_Row = tuple[int, list[str]]  # the line's number, and its columns


def _labels_of(path: Path, rows: Iterator[_Row], parted: str) -> Iterator[Label]:
    """Yield the labels of rows of columns, the first of which may name the columns."""
    place: tuple[int, int] | None = None
    width = 2
    for first, (number, cells) in enumerate(rows):
        if first == 0 and (found := _header(cells)) and not (path.parent / cells[found[0]]).is_file():
            place, width = found, len(cells)
            continue
        name, text = cells if place is None and len(cells) == 2 else _cells(cells, place)
        if len(cells) != width or not name:
            expected = f"{width} columns as in the header" if place else f"a file name, {parted} and a text"
            hint = ""
            if place is None and len(cells) > 2:
                hint = f"; there are {len(cells)} columns, so a first line must name them, as in: image, text"
            raise LabelError(f"{path}, line {number}: expected {expected}, got {_shown(path, cells)!r}{hint}")
        if "\n" in text:
            raise LabelError(f"{path}, line {number}: the text {text!r} has a line break, expected one line")
        yield Label(name, text, number)


def _header(cells: list[str]) -> tuple[int, int] | None:
    """Return which columns a first line calls a file name and a text; None if it is no header."""
    lowered = [cell.strip().lower().lstrip("#").strip() for cell in cells]
    names = [n for n, cell in enumerate(lowered) if cell in NAMES]
    texts = [n for n, cell in enumerate(lowered) if cell in TEXTS]
    return (names[0], texts[0]) if len(names) == len(texts) == 1 else None


def _cells(cells: list[str], place: tuple[int, int] | None) -> tuple[str, str]:
    """Return the file name and the text of a row; empty where the row is too short."""
    name, text = place or (0, 1)
    return (cells[name], cells[text]) if len(cells) > max(name, text) else ("", "")


def _shown(path: Path, cells: list[str]) -> str:
    return ("," if path.suffix == ".csv" else "\t").join(cells)[:200]


def _lines(content: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not empty, with their numbers."""
    return ((n, line) for n, line in enumerate(content.split("\n"), start=1) if line.strip())


def _tsv(path: Path, content: str) -> Iterator[Label]:
    rows = ((number, line.split("\t")) for number, line in _lines(content))
    return _labels_of(path, rows, "a tab")


def _txt(path: Path, content: str) -> Iterator[Label]:
    rows = ((number, _split_anywhere(line)) for number, line in _lines(content))
    return _labels_of(path, rows, "a tab, a comma or a space")


def _split_anywhere(line: str) -> list[str]:
    """Return the columns of a line of ``labels.txt``, as the module describes."""
    if "\t" in line:
        return line.split("\t")
    match = re.fullmatch(r" *([^ ,]+)(?: *(,) *| +)(.*?) *", line)
    if match is None:
        return [line]
    name, comma, text = match.groups()
    if comma and len(text) > 1 and text[0] == text[-1] == '"':
        text = re.sub(r'\\(["\\])', r"\1", text[1:-1])  # as ICDAR's sets have it
    return [name, text]


def _csv(path: Path, content: str) -> Iterator[Label]:
    first = next((line for _, line in _lines(content)), "")
    outside = re.sub(r'"(?:[^"]|"")*"', "", first)
    delimiter = min(
        ",;\t", key=lambda each: outside.find(each) % (len(outside) + 1)
    )  # the first one there is
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)

    def rows() -> Iterator[_Row]:
        before = 0
        try:
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield before + 1, cells
                before = reader.line_num
        except csv.Error as error:
            raise LabelError(f"{path}, line {before + 1}: {error}") from error

    return _labels_of(path, rows(), {",": "a comma", ";": "a semicolon", "\t": "a tab"}[delimiter])


def _json(path: Path, content: str) -> Iterator[Label]:
    found = _parsed(str(path), content)
    if not isinstance(found, (tuple, list)):
        raise LabelError(f"{path}: expected an object or a list, got {json.dumps(found)[:80]}")
    for number, entry in enumerate(found, start=1):
        yield _entry(f"{path}, entry {number}", entry, isinstance(found, tuple), number)


def _jsonl(path: Path, content: str) -> Iterator[Label]:
    for number, line in _lines(content):
        place = f"{path}, line {number}"
        yield _entry(place, _parsed(f"{place},", line), False, number)


def _parsed(place: str, content: str) -> Any:
    """Return JSON, whose objects become tuples of pairs, since names may repeat."""
    try:
        return json.loads(content, object_pairs_hook=tuple)
    except (ValueError, RecursionError) as error:
        raise LabelError(f"{place} is not JSON: {error}") from error


def _entry(place: str, entry: Any, is_pair: bool, number: int) -> Label:
    """Return the label of an entry: a (file name, text) pair, or an object that has one of each."""
    pair = entry if is_pair else _named_pair(entry)
    if pair is None or not all(isinstance(each, str) and _is_unicode(each) for each in pair) or not pair[0]:
        expected = f"a file name ({', '.join(NAMES)}) and a text ({', '.join(TEXTS)})"
        raise LabelError(f"{place}: expected {expected}, got {str(entry)[:80]}")
    name, text = pair
    return Label(name, text, number)


def _named_pair(entry: Any) -> tuple[Any, Any] | None:
    """Return the file name and the text of a JSON object, if it has exactly one of each."""
    if not isinstance(entry, tuple):
        return None
    names = [value for key, value in entry if key.lower() in NAMES]
    texts = [value for key, value in entry if key.lower() in TEXTS]
    return (names[0], texts[0]) if len(names) == len(texts) == 1 else None


def _is_unicode(text: str) -> bool:
    """Return False for half a surrogate pair, which JSON can spell."""
    return not re.search("[\ud800-\udfff]", text)


PARSERS: dict[str, Callable[[Path, str], Iterator[Label]]] = {
    ".tsv": _tsv,
    ".txt": _txt,
    ".csv": _csv,
    ".json": _json,
    ".jsonl": _jsonl,
}
