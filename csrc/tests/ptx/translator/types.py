"""Types of PTX and their C++ names."""

from __future__ import annotations

import re

UNSIGNED = {8: "uint8_t", 16: "uint16_t", 32: "uint32_t", 64: "uint64_t"}
SIGNED = {8: "int8_t", 16: "int16_t", 32: "int32_t", 64: "int64_t"}
FLOAT = {32: "float", 64: "double"}

# Sets of types, by the name that patterns of `opcodes` use.
SETS = {
    "I": ("u16", "u32", "u64", "s16", "s32", "s64"),
    "S": ("s16", "s32", "s64"),
    "U": ("u16", "u32", "u64"),
    "B": ("b16", "b32", "b64"),
    "F": ("f32", "f64"),
    "N": ("u8", "u16", "u32", "u64", "s8", "s16", "s32", "s64"),
}


class Unsupported(Exception):
    """PTX that the translator has no meaning for."""


def bits(name: str) -> int:
    """Return the width of a type in bits."""
    if name == "bf16":
        return 16
    found = re.fullmatch(r"[usbf](8|16|32|64)", name)
    if not found:
        raise Unsupported(f"type {name}")
    return int(found.group(1))


def is_type(name: str) -> bool:
    """Tell whether a part of an opcode is a type."""
    return re.fullmatch(r"[usbf](8|16|32|64)|bf16|pred", name) is not None


def cpp_type(name: str) -> str:
    """Return the C++ type of a value; a half-precision float is its bits."""
    if name == "pred":
        return "bool"
    if name in ("f16", "bf16"):
        return "uint16_t"
    if name[0] == "f":
        return FLOAT[bits(name)]
    return (SIGNED if name[0] == "s" else UNSIGNED)[bits(name)]


def register_type(name: str) -> str:
    """Return the C++ type of a register, which holds bits."""
    return "bool" if name == "pred" else UNSIGNED[bits(name)]


def widened(name: str) -> str:
    """Return the type of the same kind and twice the width."""
    return f"{name[0]}{2 * bits(name)}"
