"""The file of an automaton, in the safetensors format: a JSON header, then the tensors as they lie in memory."""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastctc.files import write_atomically
from fastctc.scoring.automaton_checks import INTEGERS, WEIGHTS, check_bounds

__all__ = ["read_tensors", "write_tensors"]

FORMAT = "fastctc.Automaton 1"
DTYPES = {"I32": torch.int32, "F32": torch.float32, "U8": torch.uint8}
ALIGNMENT = 64  # of the tensors in the file
LONGEST_HEADER = 1 << 16


def write_tensors(
    path: str | os.PathLike[str], tensors: dict[str, Tensor], start: int, symbols: tuple[str, ...] | None
) -> None:
    """Write the tensors (on the CPU, contiguous) and the rest; equal values give equal bytes."""
    _check_byte_order()
    named = dict(tensors)
    if symbols is not None:  # last, because its length is no multiple of 4
        text = bytearray("".join(f"{name}\0" for name in symbols).encode())
        named["symbols"] = (
            torch.frombuffer(text, dtype=torch.uint8) if text else torch.zeros(0, dtype=torch.uint8)
        )
    codes = {dtype: code for code, dtype in DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": {"format": FORMAT, "start": str(start)}}
    end = 0
    for name, each in named.items():
        begin, end = end, end + each.nbytes
        header[name] = {"dtype": codes[each.dtype], "shape": [each.numel()], "data_offsets": [begin, end]}
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-(8 + len(encoded)) % ALIGNMENT)

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.write(len(encoded).to_bytes(8, "little") + encoded)
            for each in named.values():
                contiguous = each.contiguous()
                if contiguous.numel():
                    file.write(_memory(contiguous))

    write_atomically(Path(path), write)


def _memory(tensor: Tensor) -> memoryview:
    """Return the memory of a contiguous tensor on the CPU; it must live as long as the result."""
    return memoryview((ctypes.c_char * tensor.nbytes).from_address(tensor.data_ptr()))


def read_tensors(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Tensor], int, tuple[str, ...] | None]:
    """Return the tensors, mapped, with the start state and the symbols.

    Raises:
        ValueError: the file was not written by :func:`write_tensors`, or it is damaged.
    """
    _check_byte_order()
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(LONGEST_HEADER, size - 8):
            raise ValueError(f"{path} is no saved automaton: it does not begin with the length of a header")
        encoded = file.read(length)
    try:
        header = json.loads(encoded)
        metadata = header.pop("__metadata__")
        if metadata["format"] != FORMAT:
            raise ValueError(f"its format is {metadata['format']!r}, expected {FORMAT!r}")
        start = int(metadata["start"])
        memory = torch.from_file(os.fspath(path), shared=False, size=size, dtype=torch.uint8)[8 + length :]
        tensors = {name: _tensor(memory, name, entry) for name, entry in header.items()}
        text = tensors.pop("symbols", None)
        missing = {*INTEGERS, *WEIGHTS} - {*tensors}
        if missing or len(tensors) != len(INTEGERS) + len(WEIGHTS):
            raise ValueError(f"its tensors are {sorted(tensors)}")
        check_bounds(tensors, start)
        return tensors, start, None if text is None else _split(text)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is no saved automaton, or it is damaged: {error}") from error


def _tensor(memory: Tensor, name: str, entry: dict[str, Any]) -> Tensor:
    begin, end = entry["data_offsets"]
    dtype, (count,) = DTYPES[entry["dtype"]], entry["shape"]
    if not 0 <= begin <= end <= memory.numel() or end - begin != count * dtype.itemsize:
        raise ValueError(f"{name} has bytes {begin} to {end} of {memory.numel()}")
    return memory[begin:end].view(dtype)


def _split(text: Tensor) -> tuple[str, ...]:
    return tuple(bytes(_memory(text)).decode().split("\0")[:-1]) if text.numel() else ()


def _check_byte_order() -> None:
    if sys.byteorder != "little":
        raise RuntimeError("saved automata are little-endian, this machine is not")
