"""Files of readings: TSV, JSON lines and Parquet, written from rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from fastctc.crnn.data import finite, parquet_package, to_json
from fastctc.crnn.read.recognize import Reading

Row = dict[str, Any]
COLUMNS = ("path", "text", "score", "confidence", "warning", "error")
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_GROUP = 16_384  # rows of a Parquet file that are in memory


def row_of(name: str, reading: Reading, *, min_confidence: float = 0.0, model_scores: bool = False) -> Row:
    """Return a reading as JSON data; ``text`` is None, and ``error`` has the reason, if it does not count.

    Args:
        name: of the image.
        reading: what was read.
        min_confidence: a text of a lower confidence does not count.
        model_scores: give the weights of scorers too.
    """
    error = why_unread(reading, min_confidence)
    if error is not None:
        return {"path": name, "text": None, "score": None, "nbest": [], "error": error}
    nbest = [
        {"text": each.text, "log_prob": each.log_prob}
        | ({"model_score": each.model_score} if model_scores else {})
        for each in reading.nbest
    ]
    row = {"path": name, "text": reading.text, "score": reading.score, "confidence": reading.confidence}
    return row | {"nbest": nbest} | ({"warning": reading.warning} if reading.warning else {})


def why_unread(reading: Reading, min_confidence: float) -> str | None:
    """Return why a reading does not count; None if it does."""
    if reading.error is not None:
        return reading.error
    if not math.isfinite(reading.score):
        return f"its score is {reading.score}"
    if reading.confidence < min_confidence:
        return f"confidence {reading.confidence:.3g} is below {min_confidence:g}: {reading.text!r}"
    return None


def _write_tsv(path: Path, rows: Iterable[Row]) -> None:
    with path.open("wb") as file:
        file.write("\t".join(COLUMNS).encode() + b"\n")
        for row in rows:
            cells = [_cell(row.get(column)) for column in COLUMNS]
            file.write("\t".join(cells).encode(errors="backslashreplace") + b"\n")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.9g}" if isinstance(value, float) else str(value).translate(_ESCAPES)


def _write_jsonl(path: Path, rows: Iterable[Row]) -> None:
    with path.open("w", encoding="ascii") as file:
        file.writelines(f"{to_json(row)}\n" for row in rows)


def _write_parquet(path: Path, rows: Iterable[Row]) -> None:
    parquet = parquet_package(path)
    import pyarrow

    kinds = {
        name: pyarrow.float64() if name in ("score", "confidence") else pyarrow.string() for name in COLUMNS
    }
    hypothesis = {"text": pyarrow.string(), "log_prob": pyarrow.float64(), "model_score": pyarrow.float64()}
    schema = pyarrow.schema(kinds | {"nbest": pyarrow.list_(pyarrow.struct(list(hypothesis.items())))})
    with parquet.ParquetWriter(path, schema) as writer:
        several = iter(rows)
        for group in iter(lambda: list(islice(several, _GROUP)), []):
            writer.write_table(
                pyarrow.Table.from_pylist([_valid(finite(row)) for row in group], schema=schema)
            )


def _valid(value: Any) -> Any:
    """Return data whose texts are valid Unicode; what is not is escaped."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {key: _valid(each) for key, each in value.items()}
    return [_valid(each) for each in value] if isinstance(value, list) else value


WRITERS: dict[str, Callable[[Path, Iterator[Row]], None]] = {
    ".tsv": _write_tsv, ".jsonl": _write_jsonl, ".parquet": _write_parquet,
}  # fmt: skip
"""Writers of files by the endings of their names."""


def writer_for(path: Path, nbest: int) -> Callable[[Path, Iterator[Row]], None]:
    """Return the writer of a file.

    Raises:
        ValueError: no format has this ending, or the format has no room for several hypotheses.
        ModuleNotFoundError: the package ``pyarrow`` is missing.
    """
    kind = path.suffix.lower()
    if kind not in WRITERS:
        raise ValueError(f"output is {path}, expected a name that ends in {', '.join(WRITERS)}")
    if kind == ".tsv" and nbest > 1:
        raise ValueError(
            f"nbest is {nbest}, but {path} has one text for each image: write .jsonl or .parquet"
        )
    if kind == ".parquet":
        parquet_package(path)
    return WRITERS[kind]
