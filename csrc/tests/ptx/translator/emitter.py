"""One kernel to one C++ file.

A register becomes a local variable that holds bits. A label stays a label. An instruction becomes one line.
The file has no names of the PTX, because nvcc puts a process number into them: equal kernels give equal files.
"""

from __future__ import annotations

import re

from .forms import FORMS, address_parts
from .opcodes import OPERATIONS, Operation
from .parser import Function, Instruction, Label, Module, Variable
from .types import SIGNED, UNSIGNED, Unsupported, bits, cpp_type, register_type

SPECIAL = {
    **{f"%tid.{axis}": f"at.thread[{i}]" for i, axis in enumerate("xyz")},
    **{f"%ctaid.{axis}": f"at.block[{i}]" for i, axis in enumerate("xyz")},
    **{f"%ntid.{axis}": f"at.block_size[{i}]" for i, axis in enumerate("xyz")},
    **{f"%nctaid.{axis}": f"at.grid_size[{i}]" for i, axis in enumerate("xyz")},
    "%laneid": "at.lane",
    "%warpid": "at.warp",
    "%lanemask_eq": "1u << at.lane",
    "%lanemask_lt": "(1u << at.lane) - 1u",
    "%lanemask_le": "(2u << at.lane) - 1u",
    "%lanemask_gt": "~((2u << at.lane) - 1u)",
    "%lanemask_ge": "~((1u << at.lane) - 1u)",
}


def rounded_up(size: int, align: int) -> int:
    """Return the next multiple of `align`."""
    return -(-size // align) * align


class KernelEmitter:
    """One kernel, the functions it calls, and the memory they share."""

    def __init__(self, module: Module, name: str) -> None:
        self.module = module
        self.names: list[str] = []  # of the functions, the kernel first
        self.constants: dict[str, str] = {}  # name in the PTX: name in C++
        self.shared: dict[tuple[str, str], int] = {}  # (function, variable): offset
        self.shared_bytes = 0
        self.function_name(name)

    def function_name(self, name: str) -> str:
        """Return the C++ name of a function, which is then emitted, too."""
        if name not in self.module.functions:
            raise Unsupported(f"call of {name}, which has no body")
        if name not in self.names:
            self.names.append(name)
        return f"function{self.names.index(name)}"

    def shared_offset(self, function: str, variable: Variable) -> int:
        """Return the place of a variable in the static shared memory of the kernel."""
        key = (function, variable.name)
        if key not in self.shared:
            self.shared[key] = rounded_up(self.shared_bytes, variable.align)
            self.shared_bytes = self.shared[key] + variable.bytes
        return self.shared[key]

    def constant(self, variable: Variable) -> str:
        """Return the C++ name of a table of the module."""
        if variable.values is None:
            raise Unsupported(f"the variable {variable.name}, which kernels could write")
        return self.constants.setdefault(variable.name, f"constant{len(self.constants)}")

    def constant_definition(self, name: str) -> str:
        """Return the C++ of a table of the module."""
        variable = self.module.variables[name]
        values = re.sub(r"0[fF](\w{8})", r"0x\1", variable.values or "")
        values = re.sub(r"0[dD](\w{16})", r"0x\1", values).strip("{} \n")
        if not re.fullmatch(r"[\w\s,-]*", values):
            raise Unsupported(f"values of {name}")
        kind = UNSIGNED[bits(variable.type)]
        listed = ", ".join(f"{kind}({each.strip()})" for each in values.split(","))
        array = f"{self.constants[name]}[{variable.count}]"
        return f"alignas({variable.align}) static const {kind} {array} = {{{listed}}};"

    def emit(self) -> str:
        """Return the C++ file."""
        bodies = []
        while len(bodies) < len(self.names):  # a body may call functions that are new
            function = self.module.functions[self.names[len(bodies)]]
            bodies.append(FunctionEmitter(self, function).emit())
        kernel = self.module.functions[self.names[0]]
        signature = "(Machine& m, const Thread& at, unsigned char* const* arguments)"
        return "\n".join(
            [
                '#include "ptx/kernel.h"\n',
                "namespace fastctc::ptx {",
                *map(self.constant_definition, self.constants),
                *(f"static void function{i}{signature};" for i in range(len(bodies))),
                *(f"\nstatic void function{i}{signature} {body}" for i, body in enumerate(bodies)),
                "}  // namespace fastctc::ptx\n",
                'extern "C" FASTCTC_PTX_EXPORT const fastctc::ptx::Kernel fastctc_ptx_kernel = {',
                f"    fastctc::ptx::function0, {self.shared_bytes}, {kernel.max_threads},"
                " &fastctc::ptx::approximation_seed};\n",
            ]
        )


class FunctionEmitter:
    """The body of one function."""

    def __init__(self, kernel: KernelEmitter, function: Function) -> None:
        self.kernel = kernel
        self.function = function
        passed = [*function.results, *function.parameters]
        self.arguments = {variable.name: i for i, variable in enumerate(passed)}
        self.labels = {
            each.name: i for i, each in enumerate(e for e in function.body if isinstance(e, Label))
        }
        self.used: set[str] = set()

    # ---- operands ----------------------------------------------------------------------------------

    def register(self, name: str) -> str:
        """Return the C++ name of a register."""
        if name not in self.function.registers:
            raise Unsupported(f"register {name}")
        self.used.add(name)
        return name.replace("%", "") if name.startswith("%") else f"_{name}"

    def value(self, operand: str, kind: str) -> str:
        """Return the value of an operand as C++ of a PTX type."""
        if operand.startswith("!"):
            return f"!{self.value(operand[1:], kind)}"
        if operand in SPECIAL:
            return f"{cpp_type(kind)}({SPECIAL[operand]})"
        if operand in self.function.registers:
            name, held = self.register(operand), register_type(self.function.registers[operand])
            if (held == "bool") != (kind == "pred"):
                raise Unsupported(f"{operand} as {kind}")
            return name if held == cpp_type(kind) else f"get<{cpp_type(kind)}>({name})"
        number = self.number(operand, kind)
        return number if number is not None else f"{cpp_type(kind)}({self.symbol(operand)})"

    def number(self, text: str, kind: str) -> str | None:
        """Return a literal, None for what is not a number."""
        found = re.fullmatch(r"0([fF])([0-9a-fA-F]{8})|0([dD])([0-9a-fA-F]{16})", text)
        if found:
            digits, width = (found[2], 32) if found[1] else (found[4], 64)
            if bits(kind) != width:
                raise Unsupported(f"{text} as {kind}")
            return f"get<{cpp_type(kind)}>({UNSIGNED[width]}(0x{digits}))"
        if not re.fullmatch(r"-?(\d+|0[xX][0-9a-fA-F]+)U?", text):
            return None
        number = int(text.rstrip("U"), 0)
        if kind == "pred":
            return "true" if number else "false"
        if kind[0] == "f":
            raise Unsupported(f"{text} as {kind}")
        pattern = f"{UNSIGNED[bits(kind)]}(0x{number & (1 << bits(kind)) - 1:x}ull)"
        return f"{SIGNED[bits(kind)]}({pattern})" if kind[0] == "s" else pattern

    def symbol(self, name: str) -> str:
        """Return the address of a variable as a number of 64 bits."""
        if name in self.arguments:
            return f"uint64_t(arguments[{self.arguments[name]}])"
        variable = self.function.variables.get(name)
        owner = self.function.name if variable else ""
        variable = variable or self.kernel.module.variables.get(name)
        if variable is None:
            raise Unsupported(f"name {name}")
        if variable.space == "shared":
            if variable.count == 0:
                return "at.dynamic_shared"
            return f"(at.shared + {self.kernel.shared_offset(owner, variable)})"
        if variable.space in ("global", "const"):
            return f"uint64_t({self.kernel.constant(variable)})"
        return f"uint64_t({self.memory(name)})"

    def memory(self, name: str) -> str:
        """Return the C++ name of an array in local memory, or of a parameter on its way to a call."""
        self.used.add(name)
        return f"_{name}"

    def address(self, operand: str) -> str:
        """Return the address of `[base+offset]` as a number of 64 bits."""
        base, offset = address_parts(operand)
        start = (
            self.value(base, f"b{bits(self.function.registers[base])}")
            if base in self.function.registers
            else None
        )
        start = start or self.number(base, "b64") or self.symbol(base)
        return f"uint64_t({start}) + uint64_t(int64_t({offset}))" if offset else f"uint64_t({start})"

    def label(self, name: str) -> str:
        """Return the C++ name of a label."""
        if name not in self.labels:
            raise Unsupported(f"label {name}")
        return f"label{self.labels[name]}"

    def called(self, name: str) -> str:
        """Return the C++ name of a function that is called."""
        return self.kernel.function_name(name)

    def site(self, instruction: Instruction) -> str:
        """Return what a report has of a barrier or collective."""
        return f'"{instruction.opcode}", {instruction.line}'

    # ---- instructions ------------------------------------------------------------------------------

    def assign(self, register: str, kind: str, expression: str) -> str:
        """Return the statement that puts a value of a PTX type into a register."""
        if register == "_":
            return f"(void)({expression});"
        name, held = self.register(register), register_type(self.function.registers[register])
        if held == cpp_type(kind):
            return f"{name} = {expression};"
        if (held == "bool") != (kind == "pred"):
            raise Unsupported(f"{kind} into {register}")
        return f"{name} = put<{held}>({expression});"

    def expression(self, operation: Operation, operands: tuple[str, ...]) -> str:
        """Return the call that computes an operation."""
        if len(operands) != len(operation.operands):
            raise Unsupported(f"{len(operands)} operands")
        values = (self.value(each, kind) for each, kind in zip(operands, operation.operands))
        return operation.expression.format(*values)

    def computed(self, instruction: Instruction) -> str:
        """Return the statement of an instruction in the table of `opcodes`."""
        operation = OPERATIONS.get(instruction.opcode)
        if operation is None:
            raise Unsupported(instruction.opcode)
        to, *operands = instruction.operands
        return self.assign(to, operation.result, self.expression(operation, tuple(operands)))

    def statement(self, instruction: Instruction) -> str:
        """Return the statement of an instruction, with its guard."""
        form = FORMS.get(instruction.opcode.split(".")[0])
        try:
            text = form(self, instruction) if form else self.computed(instruction)
        except Unsupported as problem:
            shown = f"{instruction.opcode} {', '.join(instruction.operands)}"
            raise Unsupported(
                f"{problem}, in line {instruction.line} of {self.function.name}: {shown}"
            ) from None
        return f"if ({self.value(instruction.guard, 'pred')}) {{ {text} }}" if instruction.guard else text

    def emit(self) -> str:
        """Return the body, with its braces."""
        lines = [
            f"{self.label(each.name)}:;" if isinstance(each, Label) else f"  {self.statement(each)}"
            for each in self.function.body
        ]
        return "\n".join(["{", *self.declarations(), *lines, "}"])

    def declarations(self) -> list[str]:
        """Return the variables of the body. Local memory is filled with NaN, as nothing has written it."""
        by_type: dict[str, list[str]] = {}
        for name, kind in self.function.registers.items():
            if name in self.used:
                by_type.setdefault(register_type(kind), []).append(self.register(name))
        lines = [f"  {kind} {', '.join(f'{name}{{}}' for name in names)};" for kind, names in by_type.items()]
        for name, variable in self.function.variables.items():
            if name in self.used:
                lines.append(f"  alignas({max(variable.align, 16)}) unsigned char _{name}[{variable.bytes}];")
                lines.append(f"  fill_with_garbage(_{name}, {variable.bytes});")
        return lines
