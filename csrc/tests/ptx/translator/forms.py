"""The instructions of PTX that do more than compute a value: memory, branches, calls, barriers, warp collectives.

Each function takes the emitter of its PTX function and one instruction, and returns C++ statements. `FORMS` finds
it by the first word of the opcode.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from .opcodes import OPERATIONS
from .parser import Instruction, split
from .types import Unsupported, bits, cpp_type, is_type

if TYPE_CHECKING:
    from .emitter import FunctionEmitter

SPACES = ("global", "shared", "local", "param", "const")
# Orders and scopes of memory: one CPU thread runs all fibers, so each access is ordered and seen by all.
MEMORY_MODEL = {
    "volatile",
    "relaxed",
    "acquire",
    "release",
    "acq_rel",
    "weak",
    "cta",
    "cluster",
    "gpu",
    "sys",
    "nc",
}


def parts_of(instruction: Instruction) -> list[str]:
    """Return the words of an opcode without those of the memory model."""
    return [word for word in instruction.opcode.split(".") if word not in MEMORY_MODEL]


def space_of(parts: list[str]) -> str:
    """Return the C++ name of the space of an access."""
    return "Space::k" + next((word for word in parts if word in SPACES), "generic").capitalize()


def require(allowed: set[str], parts: list[str], instruction: Instruction) -> None:
    """Raise Unsupported for a word of an opcode that changes its meaning."""
    unknown = [word for word in parts[1:] if word not in allowed and not is_type(word)]
    if unknown:
        raise Unsupported(f"{instruction.opcode}: .{unknown[0]}")


def elements(operand: str) -> list[str]:
    """Return the registers of `{%r1, %r2}` or `%r1`."""
    return split(operand[1:-1]) if operand.startswith("{") else [operand]


def move(emit: FunctionEmitter, instruction: Instruction) -> str:
    """Emit mov, which packs registers into one and unpacks one into several."""
    to, source = instruction.operands
    kind = instruction.opcode.split(".")[-1]
    for packed, vector in ((source, to), (to, source)):
        if not vector.startswith("{"):
            continue
        registers = elements(vector)
        part = bits(kind) // len(registers)
        if vector is to:
            values = [f"{emit.value(packed, kind)} >> {i * part}" for i in range(len(registers))]
            lines = [f"const auto part{i} = {value};" for i, value in enumerate(values)]
            lines += [
                emit.assign(each, f"b{part}", f"{cpp_type(f'b{part}')}(part{i})")
                for i, each in enumerate(registers)
            ]
            return "{ " + " ".join(lines) + " }"
        whole = cpp_type(kind)
        return emit.assign(
            packed,
            kind,
            f"{whole}("
            + " | ".join(
                f"{whole}({emit.value(each, f'b{part}')}) << {i * part}" for i, each in enumerate(registers)
            )
            + ")",
        )
    return emit.computed(instruction)


def load(emit: FunctionEmitter, instruction: Instruction) -> str:
    """Emit ld."""
    parts = parts_of(instruction)
    require({*SPACES, "v2", "v4", "L1", "no_allocate"}, parts, instruction)
    kind, registers = parts[-1], elements(instruction.operands[0])
    where = f"m, {space_of(parts)}, {emit.address(instruction.operands[1])}, {instruction.line}"
    if len(registers) == 1:
        return emit.assign(registers[0], kind, f"load<{cpp_type(kind)}>({where})")
    lines = [f"const auto loaded = load_vector<{cpp_type(kind)}, {len(registers)}>({where});"]
    lines += [emit.assign(each, kind, f"loaded[{i}]") for i, each in enumerate(registers)]
    return "{ " + " ".join(lines) + " }"


def store(emit: FunctionEmitter, instruction: Instruction) -> str:
    """Emit st."""
    parts = parts_of(instruction)
    require({*SPACES, "v2", "v4"}, parts, instruction)
    kind, values = parts[-1], elements(instruction.operands[1])
    where = f"m, {space_of(parts)}, {emit.address(instruction.operands[0])}, {instruction.line}"
    written = ", ".join(emit.value(each, kind) for each in values)
    if len(values) == 1:
        return f"store<{cpp_type(kind)}>({where}, {written});"
    return f"store_vector<{cpp_type(kind)}, {len(values)}>({where}, {{{written}}});"


def atomic(emit: FunctionEmitter, instruction: Instruction) -> str:
    """Emit atom, and red, which has no result."""
    parts = parts_of(instruction)
    reads = parts[0] == "atom"
    operands = instruction.operands[1:] if reads else instruction.operands
    kind, what = parts[-1], parts[-2]
    if what not in ("add", "min", "max", "exch", "cas", "and", "or", "xor", "inc", "dec"):
        raise Unsupported(instruction.opcode)
    require({*SPACES, what}, parts, instruction)
    values = "".join(f", {emit.value(each, kind)}" for each in operands[1:])
    call = (
        f"atomic_{what}<{cpp_type(kind)}>"
        f"(m, {space_of(parts)}, {emit.address(operands[0])}, {instruction.line}{values})"
    )
    return emit.assign(instruction.operands[0], kind, call) if reads else f"{call};"


def compare(emit: FunctionEmitter, instruction: Instruction) -> str:
    """Emit setp: two results `p|q`, and the combination with a third predicate."""
    parts = instruction.opcode.split(".")
    combine = parts[2] if parts[2] in ("and", "or", "xor") else None
    plain = ".".join(parts[:2] + parts[3:]) if combine else instruction.opcode
    if plain not in OPERATIONS:
        raise Unsupported(instruction.opcode)
    operands = instruction.operands
    result = emit.expression(OPERATIONS[plain], operands[1:3])
    results = operands[0].split("|")
    values = [result, f"!{result}"][: len(results)]
    if combine:
        third = emit.value(operands[3], "pred")
        values = [f"bit_{combine}({value}, {third})" for value in values]
    lines = [f"const bool set{i} = {value};" for i, value in enumerate(values)]
    lines += [emit.assign(each, "pred", f"set{i}") for i, each in enumerate(results)]
    return "{ " + " ".join(lines) + " }"


def branch(emit: FunctionEmitter, instruction: Instruction) -> str:
    """Emit bra."""
    if instruction.opcode not in ("bra", "bra.uni"):
        raise Unsupported(instruction.opcode)
    return f"goto {emit.label(instruction.operands[0])};"


def leave(emit: FunctionEmitter, instruction: Instruction) -> str:
    """Emit ret, and exit where it means the same: in a kernel."""
    if instruction.opcode.split(".")[0] == "exit" and not emit.function.is_entry:
        raise Unsupported("exit in a function that is called")
    return "return;"


def call(emit: FunctionEmitter, instruction: Instruction) -> str:
    """Emit call: the function gets the addresses of its results, then of its arguments."""
    operands = list(instruction.operands)
    results = elements(operands.pop(0).strip("()")) if operands[0].startswith("(") else []
    name = operands.pop(0)
    arguments = split(operands.pop(0)[1:-1]) if operands else []
    if operands:
        raise Unsupported(f"call of {name} through a table")
    places = ", ".join(f"(unsigned char*){emit.symbol(each)}" for each in [*results, *arguments])
    return f"{{ unsigned char* const passed[] = {{{places or 'nullptr'}}}; {emit.called(name)}(m, at, passed); }}"


def barrier(emit: FunctionEmitter, instruction: Instruction) -> str:
    """Emit bar and barrier: of the block, of some of its warps, of a warp."""
    parts = [word for word in instruction.opcode.split(".") if word not in ("cta", "aligned")]
    operands, site = list(instruction.operands), emit.site(instruction)
    if parts[1] == "warp":
        return f"m.meet({emit.value(operands[0], 'u32')}, 0, {site}, true);"
    if parts[1] == "sync":
        count = emit.value(operands[1], "u32") if len(operands) > 1 else "at.block_threads()"
        return f"m.barrier({emit.value(operands[0], 'u32')}, {count}, false, {site});"
    if parts[1] != "red":
        raise Unsupported(instruction.opcode)
    to, vote = operands[0], emit.value(operands[-1], "pred")
    count = emit.value(operands[2], "u32") if len(operands) > 3 else "at.block_threads()"
    votes = f"m.barrier({emit.value(operands[1], 'u32')}, {count}, {vote}, {site})"
    if parts[2] == "popc":
        return emit.assign(to, "u32", votes)
    return emit.assign(to, "pred", {"or": f"{votes} != 0", "and": f"{votes} == {count}"}[parts[2]])


def shuffle(emit: FunctionEmitter, instruction: Instruction) -> str:
    """Emit shfl.sync, whose second result tells whether the source lane was in range."""
    parts = instruction.opcode.split(".")
    if parts[1] != "sync" or parts[-1] != "b32":
        raise Unsupported(instruction.opcode)
    to, value, source, segment, mask = instruction.operands
    arguments = ", ".join(emit.value(each, "u32") for each in (value, source, segment, mask))
    results = to.split("|")
    lines = [
        f"const Shuffled got = shuffle_{parts[2]}(m, at, {arguments}, {emit.site(instruction)});",
        emit.assign(results[0], "b32", "got.value"),
    ]
    if len(results) > 1:
        lines.append(emit.assign(results[1], "pred", "got.in_range"))
    return "{ " + " ".join(lines) + " }"


def vote(emit: FunctionEmitter, instruction: Instruction) -> str:
    """Emit vote.sync."""
    parts = instruction.opcode.split(".")
    to, predicate, mask = instruction.operands
    kind = "b32" if parts[2] == "ballot" else "pred"
    if parts[1] != "sync" or parts[2] not in ("ballot", "any", "all", "uni"):
        raise Unsupported(instruction.opcode)
    arguments = f"{emit.value(mask, 'u32')}, {emit.value(predicate, 'pred')}, {emit.site(instruction)}"
    return emit.assign(to, kind, f"vote_{parts[2]}(m, at, {arguments})")


def match(emit: FunctionEmitter, instruction: Instruction) -> str:
    """Emit match.any.sync."""
    parts = instruction.opcode.split(".")
    if parts[1:3] != ["any", "sync"]:
        raise Unsupported(instruction.opcode)
    to, value, mask = instruction.operands
    arguments = f"{emit.value(mask, 'u32')}, {emit.value(value, parts[3])}, {emit.site(instruction)}"
    return emit.assign(to, "b32", f"match_any(m, at, {arguments})")


def reduce(emit: FunctionEmitter, instruction: Instruction) -> str:
    """Emit redux.sync."""
    parts = instruction.opcode.split(".")
    to, value, mask = instruction.operands
    if parts[1] != "sync" or parts[2] not in ("add", "min", "max", "and", "or", "xor"):
        raise Unsupported(instruction.opcode)
    arguments = f"{emit.value(mask, 'u32')}, {emit.value(value, parts[3])}, {emit.site(instruction)}"
    return emit.assign(to, parts[3], f"reduce_{parts[2]}(m, at, {arguments})")


def active_mask(emit: FunctionEmitter, instruction: Instruction) -> str:
    """Emit activemask: the smallest answer that the language permits."""
    return emit.assign(instruction.operands[0], "b32", "1u << at.lane")


def copy(emit: FunctionEmitter, instruction: Instruction) -> str:
    """Emit cp.async, which fills shared memory when it is waited for."""
    parts, operands = instruction.opcode.split("."), instruction.operands
    if parts[1:3] in (["async", "ca"], ["async", "cg"]) and len(operands) == 3:
        to, source = emit.address(operands[0]), emit.address(operands[1])
        return f"m.async_copy({to}, {source}, {emit.value(operands[2], 'u32')}, {instruction.line});"
    if parts[1:] == ["async", "commit_group"]:
        return "m.async_commit();"
    if parts[1:] == ["async", "wait_group"]:
        return f"m.async_wait({emit.value(operands[0], 'u32')});"
    if parts[1:] == ["async", "wait_all"]:
        return "m.async_commit(); m.async_wait(0);"
    raise Unsupported(instruction.opcode)


def fixed(statement: str) -> Callable[[FunctionEmitter, Instruction], str]:
    """Return a form whose statement has no operand."""
    return lambda emit, instruction: statement


FORMS: dict[str, Callable[[FunctionEmitter, Instruction], str]] = {
    "mov": move,
    "ld": load,
    "ldu": load,
    "st": store,
    "atom": atomic,
    "red": atomic,
    "setp": compare,
    "bra": branch,
    "ret": leave,
    "exit": leave,
    "call": call,
    "bar": barrier,
    "barrier": barrier,
    "shfl": shuffle,
    "vote": vote,
    "match": match,
    "redux": reduce,
    "activemask": active_mask,
    "cp": copy,
    "prefetch": fixed(";"),
    "fence": fixed("m.fence();"),
    "membar": fixed("m.fence();"),
    "nanosleep": fixed("m.yield();"),
    "trap": fixed('m.fail("trap");'),
}


def address_parts(operand: str) -> tuple[str, int]:
    """Return the base and the offset of `[%rd1+8]`."""
    found = re.fullmatch(r"\[\s*([%$\w]+)\s*(?:\+\s*(-?\w+))?\s*\]", operand)
    if not found:
        raise Unsupported(f"address {operand}")
    return found[1], int(found[2] or "0", 0)
