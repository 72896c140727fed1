"""The translator of PTX (csrc/tests/ptx), imported; and PTX to test it with."""

from __future__ import annotations

import sys

from conftest import REPOSITORY

FOLDER = REPOSITORY / "csrc" / "tests" / "ptx"
sys.path.insert(0, str(FOLDER))

import build_ptx  # noqa: E402
from translator import emitter, opcodes, parser, types  # noqa: E402

__all__ = ["FOLDER", "build_ptx", "emitter", "kernel", "opcodes", "parser", "translated", "types"]

REGISTERS = """
    .reg .pred %p<8>;
    .reg .b16 %rs<8>;
    .reg .f32 %f<8>;
    .reg .b32 %r<8>;
    .reg .f64 %fd<8>;
    .reg .b64 %rd<8>;
"""


def kernel(body: str, name: str = "k", before: str = "", directives: str = "") -> str:
    """Return a PTX file with one kernel, which has an array and a number as parameters."""
    return f"""
.version 9.0
.target sm_80
.address_size 64
{before}
.visible .entry {name}(
    .param .align 8 .b8 {name}_param_0[24],
    .param .u64 {name}_param_1
)
{directives}
{{
{REGISTERS}
{body}
    ret;
}}
"""


def translated(text: str, name: str = "k") -> str:
    """Return the C++ of a kernel."""
    return emitter.KernelEmitter(parser.parse(text), name).emit()
