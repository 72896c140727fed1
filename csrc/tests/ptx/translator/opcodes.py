"""The instructions of PTX that compute values: opcode, C++ function, types.

A line of `TABLE` is `pattern: result = function(operands)`.

- `{T:F}` in a pattern stands for each type of the set F of `types.SETS`. In the rest of the line, T is that type.
- `(a|b)` stands for each of its words. `{0}` is the word chosen for the first such choice, `{1}` for the second.
- `T*` is the type of twice the width.
- `function<T>` gets the C++ type T as its template argument.

The functions are in `../arithmetic.h`; their tests are in `../test_ptx_arithmetic.cpp`.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from .types import SETS, cpp_type, widened

TABLE = """
mov.{T:I}:                           T = copy(T)
mov.{T:F}:                           T = copy(T)
mov.{T:B}:                           T = copy(T)
mov.pred:                            pred = copy(pred)
cvta.u64:                            u64 = copy(u64)
cvta.(global|shared|local|const|param).u64:    u64 = copy(u64)
cvta.to.(global|shared|local|const|param).u64: u64 = copy(u64)

(add|sub|min|max).{T:I}:             T = {0}(T, T)
mul.lo.{T:I}:                        T = mul_lo(T, T)
mul.hi.{T:I}:                        T = mul_hi(T, T)
mul.wide.(u16|u32|s16|s32):          {0}* = mul_wide({0}, {0})
mad.lo.{T:I}:                        T = mad_lo(T, T, T)
mad.hi.{T:I}:                        T = mad_hi(T, T, T)
mad.wide.(u16|u32|s16|s32):          {0}* = mad_wide({0}, {0}, {0}*)
(div|rem).{T:I}:                     T = {0}(T, T)
(neg|abs).{T:S}:                     T = {0}(T)

(add|sub|mul).{T:F}:                 T = {0}(T, T)
(add|sub|mul).rn.{T:F}:              T = {0}(T, T)
(min|max).{T:F}:                     T = {0}(T, T)
(neg|abs).{T:F}:                     T = {0}(T)
copysign.{T:F}:                      T = copysign(T, T)
fma.rn.{T:F}:                        T = fma(T, T, T)
fma.rm.f32:                          f32 = fma_down(f32, f32, f32)
div.rn.{T:F}:                        T = div(T, T)
rcp.rn.{T:F}:                        T = rcp(T)
sqrt.rn.{T:F}:                       T = sqrt(T)
testp.(finite|infinite|number|notanumber|normal|subnormal).{T:F}: pred = testp_{0}(T)

ex2.approx.f32:                      f32 = ex2_approx(f32)
ex2.approx.ftz.f32:                  f32 = ex2_approx_ftz(f32)
lg2.approx.f32:                      f32 = lg2_approx(f32)
lg2.approx.ftz.f32:                  f32 = lg2_approx_ftz(f32)
rcp.approx.f32:                      f32 = rcp_approx(f32)
rcp.approx.ftz.f32:                  f32 = rcp_approx_ftz(f32)
rcp.approx.ftz.f64:                  f64 = rcp_approx_ftz(f64)

(and|or|xor).{T:B}:                  T = bit_{0}(T, T)
(and|or|xor).pred:                   pred = bit_{0}(pred, pred)
not.{T:B}:                           T = bit_not(T)
not.pred:                            pred = bit_not(pred)
shl.{T:B}:                           T = shl(T, u32)
shr.{T:I}:                           T = shr(T, u32)
shr.{T:B}:                           T = shr(T, u32)
shf.(l|r).(wrap|clamp).b32:          b32 = shf_{0}_{1}(b32, b32, u32)
(popc|clz).{T:B}:                    b32 = {0}(T)
brev.{T:B}:                          T = brev(T)
bfe.{T:I}:                           T = bfe(T, u32, u32)
bfi.{T:B}:                           T = bfi(T, T, u32, u32)
prmt.b32:                            b32 = prmt(b32, b32, b32)
lop3.b32:                            b32 = lop3(b32, b32, b32, b32)

selp.{T:I}:                          T = select(T, T, pred)
selp.{T:B}:                          T = select(T, T, pred)
selp.{T:F}:                          T = select(T, T, pred)
slct.{T:B}.s32:                      T = select_by_sign(T, T, s32)

setp.(eq|ne|lt|le|gt|ge|lo|ls|hi|hs).{T:I}: pred = set_{0}(T, T)
setp.(eq|ne).{T:B}:                  pred = set_{0}(T, T)
setp.(eq|ne|lt|le|gt|ge|equ|neu|ltu|leu|gtu|geu|num|nan).{T:F}: pred = set_{0}(T, T)

cvt.{D:N}.{S:N}:                     D = cast<D>(S)
cvt.rn.{D:F}.{S:N}:                  D = cast<D>(S)
cvt.rn.f32.f64:                      f32 = cast<f32>(f64)
cvt.f64.f32:                         f64 = cast<f64>(f32)
cvt.(rni|rmi|rpi|rzi).f32.f32:       f32 = cvt_{0}(f32)
cvt.(rni|rmi|rpi|rzi).f64.f64:       f64 = cvt_{0}(f64)
cvt.(rni|rmi|rpi|rzi).{D:I}.{S:F}:   D = saturate<D>(cvt_{0}(S))
cvt.sat.f32.f32:                     f32 = cvt_sat(f32)
cvt.f32.f16:                         f32 = cvt_f32_f16(f16)
cvt.rn.f16.f32:                      f16 = cvt_f16_f32(f32)
cvt.f32.bf16:                        f32 = cvt_f32_bf16(bf16)
cvt.rn.bf16.f32:                     bf16 = cvt_bf16_f32(f32)
"""


@dataclass(frozen=True)
class Operation:
    """The meaning of an opcode."""

    result: str
    expression: str  # the C++ call, with {0}, {1}... for its operands
    operands: tuple[str, ...]


def choices(pattern: str) -> list[tuple[str, list[str], dict[str, str]]]:
    """Return (opcode, words chosen, types bound) for each opcode of a pattern."""
    parts = re.split(r"(\([^)]*\)|\{\w+:\w+\})", pattern)
    options = []
    for part in parts:
        if part.startswith("("):
            options.append([(word, word, None) for word in part[1:-1].split("|")])
        elif part.startswith("{"):
            name, types = part[1:-1].split(":")
            options.append([(each, None, name) for each in SETS[types]])
        else:
            options.append([(part, None, None)])
    return [
        (
            "".join(text for text, _, _ in chosen),
            [word for _, word, _ in chosen if word is not None],
            {name: text for text, _, name in chosen if name is not None},
        )
        for chosen in itertools.product(*options)
    ]


def type_of(name: str, bound: dict[str, str]) -> str:
    """Return the type that a word of the right side stands for."""
    base = bound.get(name.rstrip("*"), name.rstrip("*"))
    return widened(base) if name.endswith("*") else base


def operation(right: str, words: list[str], bound: dict[str, str]) -> Operation:
    """Return the operation of the right side of a line, for one choice of words and types."""
    result, call = (part.strip() for part in right.format(*words).split("=", 1))
    *names, rest = call.split("(")
    operands = tuple(type_of(each.strip(), bound) for each in rest.rstrip(")").split(","))
    names = [
        re.sub(r"<(\w+)>", lambda found: f"<{cpp_type(type_of(found[1], bound))}>", each) for each in names
    ]
    places = ", ".join(f"{{{i}}}" for i in range(len(operands)))
    expression = "".join(f"{name}(" for name in names) + places + ")" * len(names)
    return Operation(type_of(result, bound), expression, operands)


def build_table(text: str) -> dict[str, Operation]:
    """Return the operation of each opcode; a later line may not repeat an earlier one."""
    table: dict[str, Operation] = {}
    for line in text.strip().splitlines():
        if not line.strip():
            continue
        pattern, right = re.fullmatch(r"(\S+):\s+(.*)", line).groups()
        for opcode, words, bound in choices(pattern):
            if opcode in table:
                raise ValueError(f"two lines of the table give {opcode}")
            table[opcode] = operation(right, words, bound)
    return table


OPERATIONS = build_table(TABLE)
