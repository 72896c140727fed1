"""Write a 3-gram model of PocketSphinx, a binary "trie" file, as an ARPA file.

The layout is from pocketsphinx 5.1, src/lm/lm_trie.c:
- the 1-grams, each with the place of its first 2-gram,
- tables of quantized logarithms,
- the 2-grams and the 3-grams as records of bits.

N-grams are stored in reverse: the root of the trie holds the ends of n-grams.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAGIC = b"Trie Language Model"
LOG10 = float(np.log10(1.0001))  # of the base of the logarithms
QUANTIZED = 1 << 16  # values in a table
PROBABILITY_BITS = 32  # of a 2-gram: the places of its probability and of its backoff weight
LAST_BITS = 16  # of a 3-gram: the place of its probability

Integers = NDArray[np.int64]


class Reader:
    """The bytes of a file, from first to last."""

    def __init__(self, data: bytes, path: Path) -> None:
        self.data, self.path, self.position = data, path, 0

    def take(self, size: int) -> bytes:
        """Return the next bytes.

        Raises:
            ValueError: the file has fewer.
        """
        start, self.position = self.position, self.position + size
        if self.position > len(self.data):
            raise ValueError(f"{self.path} has {len(self.data)} bytes, expected at least {self.position}")
        return self.data[start : self.position]

    def array(self, dtype: object, count: int) -> NDArray[np.generic]:
        kind = np.dtype(dtype)  # type: ignore[call-overload]
        return np.frombuffer(self.take(kind.itemsize * count), kind)

    def records(self, count: int, *widths: int) -> list[Integers]:
        """Return the fields of `count` + 1 records, whose widths are in bits; the last record is a guard."""
        bits = sum(widths)
        size = ((1 + count) * bits + 7) // 8 + 8
        data = np.frombuffer(self.take(size) + bytes(8), np.uint8)
        starts = np.arange(count + 1, dtype=np.int64) * bits
        fields = []
        for width in widths:
            value = np.zeros(count + 1, np.uint64)
            for byte in range(8):
                value |= data[(starts >> 3) + byte].astype(np.uint64) << np.uint64(8 * byte)
            value >>= (starts & 7).astype(np.uint64)
            fields.append((value & np.uint64((1 << width) - 1)).astype(np.int64))
            starts += width
        return fields


@dataclass(frozen=True)
class Level:
    """The n-grams of one order: numbers of words, log10 probabilities and log10 backoff weights."""

    words: list[Integers]
    probabilities: NDArray[np.float64]
    backoffs: NDArray[np.float64] | None


def read_levels(path: Path) -> tuple[list[str], list[Level]]:
    """Return the words and the n-grams of each order.

    Raises:
        ValueError: the file is no trie of order 3, or it is cut off.
    """
    reader = Reader(path.read_bytes(), path)
    if reader.data[: len(MAGIC)] != MAGIC:
        raise ValueError(f"{path} begins with {reader.data[: len(MAGIC)]!r}, expected {MAGIC!r}")
    reader.take(len(MAGIC))
    (order,) = reader.take(1)
    if order != 3:
        raise ValueError(f"{path} has the order {order}, expected 3")
    vocabulary, pairs, triples = map(int, reader.array("<u4", order))
    reader.take(4)  # the kind of quantization
    tables = reader.array("<f4", 3 * QUANTIZED).astype(np.float64).reshape(3, QUANTIZED) * LOG10
    singles: Any = reader.array([("probability", "<f4"), ("backoff", "<f4"), ("next", "<u4")], vocabulary + 1)
    word_bits = vocabulary.bit_length()
    first, quantized, following = reader.records(pairs, word_bits, PROBABILITY_BITS, triples.bit_length())
    first_of_three, last_quantized = reader.records(triples, word_bits, LAST_BITS)
    (size,) = reader.array("<i4", 1)
    words = [word.decode() for word in reader.take(int(size)).split(b"\0")[:-1]]
    if len(words) != vocabulary:
        raise ValueError(f"{path} has {len(words)} words, expected {vocabulary}")

    # A few records at the end of the 2-grams belong to no word.
    last = np.repeat(np.arange(vocabulary), np.diff(singles["next"].astype(np.int64)))
    pairs = len(last)
    pair = np.repeat(np.arange(pairs), np.diff(following[: pairs + 1]))
    triples, quantized = len(pair), quantized[:pairs]
    return words, [
        Level(
            [np.arange(vocabulary)],
            singles["probability"][:-1].astype(np.float64) * LOG10,
            singles["backoff"][:-1].astype(np.float64) * LOG10,
        ),
        Level([first[:pairs], last], tables[0][quantized >> 16], tables[1][quantized & (QUANTIZED - 1)]),
        Level([first_of_three[:triples], first[pair], last[pair]], tables[2][last_quantized[:triples]], None),
    ]


def lines(words: list[str], level: Level) -> Iterator[str]:
    texts: Iterable[str] = (words[i] for i in level.words[0].tolist())
    for numbers in level.words[1:]:
        texts = (f"{text} {words[i]}" for text, i in zip(texts, numbers.tolist(), strict=True))
    probabilities = level.probabilities.tolist()
    if level.backoffs is None:
        yield from (f"{p:.5f}\t{text}\n" for p, text in zip(probabilities, texts, strict=True))
        return
    for p, text, backoff in zip(probabilities, texts, level.backoffs.tolist(), strict=True):
        yield f"{p:.5f}\t{text}\t{backoff:.5f}\n"


def write_arpa(source: Path, target: Path) -> list[str]:
    """Write the model of `source` to `target`; return its words. A file appears complete or not at all.

    Raises:
        ValueError: the source is no trie of order 3, or it is cut off.
    """
    words, levels = read_levels(source)
    temporary = target.with_name(f"{target.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write("\\data\\\n")
        file.writelines(f"ngram {n}={len(level.probabilities)}\n" for n, level in enumerate(levels, start=1))
        for n, level in enumerate(levels, start=1):
            file.write(f"\n\\{n}-grams:\n")
            file.writelines(lines(words, level))
        file.write("\n\\end\\\n")
    temporary.replace(target)
    return words
