"""PTX text to functions, variables and instructions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from .types import Unsupported, bits

NAME = r"[%$\w]+"
DECLARED = re.compile(
    rf"\.(?:align\s+(?P<align>\d+)\s+)?\.?(?P<type>\w+)\s+(?P<name>{NAME})"
    r"(?:\[(?P<count>\d*)\])?(?:\s*=\s*(?P<values>.+))?",
    re.DOTALL,
)


@dataclass(frozen=True)
class Variable:
    """Memory with a name: a parameter, an array, a constant."""

    name: str
    space: str  # param, shared, local, global or const
    type: str
    count: int  # 0: the dynamic shared memory
    align: int
    values: str | None = None

    @property
    def bytes(self) -> int:
        """The size."""
        return self.count * bits(self.type) // 8


@dataclass(frozen=True)
class Instruction:
    """One instruction, as in `@!%p1 add.s32 %r1, %r2, 4;`."""

    line: int  # counted from the brace that opens its function
    guard: str | None  # the predicate, with ! where it is negated
    opcode: str
    operands: tuple[str, ...]


@dataclass(frozen=True)
class Label:
    """The target of a branch."""

    name: str


@dataclass
class Function:
    """A kernel (`.entry`), or a function that kernels call (`.func`)."""

    name: str
    is_entry: bool
    results: list[Variable]
    parameters: list[Variable]
    max_threads: int
    variables: dict[str, Variable] = field(default_factory=dict)
    registers: dict[str, str] = field(default_factory=dict)
    body: list[Instruction | Label] = field(default_factory=list)


@dataclass
class Module:
    """The contents of a PTX file."""

    functions: dict[str, Function] = field(default_factory=dict)
    variables: dict[str, Variable] = field(default_factory=dict)


def split(text: str) -> list[str]:
    """Split at the commas outside of brackets."""
    parts, depth, start = [], 0, 0
    for i, character in enumerate(text):
        if character in "{[(":
            depth += 1
        elif character in "}])":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    last = text[start:].strip()
    return [*parts, last] if last else parts


def parse_variable(text: str, space: str) -> Variable:
    """Parse `.align 8 .b8 name[24] = {...}`, what follows the space of a declaration."""
    found = DECLARED.fullmatch(text.strip())
    if not found:
        raise Unsupported(f"declaration .{space} {text}")
    count = found["count"]
    return Variable(
        name=found["name"],
        space=space,
        type=found["type"],
        count=1 if count is None else int(count or 0),
        align=int(found["align"] or bits(found["type"]) // 8),
        values=found["values"],
    )


def parse_parameters(text: str) -> list[Variable]:
    """Parse the list of parameters or results of a function."""
    found = []
    for each in split(text):
        space, rest = each.split(None, 1)
        if space != ".param":
            raise Unsupported(f"parameter {each}")
        found.append(parse_variable(rest, "param"))
    return found


def without_comments(text: str) -> str:
    """Remove comments and keep the lines."""
    text = re.sub(r"/\*.*?\*/", lambda found: "\n" * found.group().count("\n"), text, flags=re.DOTALL)
    return re.sub(r"//[^\n]*", "", text)


STATEMENT = re.compile(
    r"(?P<space>\s+)|(?P<brace>[{}])|(?P<label>\$?[\w$]+):(?!:)|(?P<debug>\.(?:loc|pragma)\b[^\n]*)|(?P<text>[^;]+);"
)


def statements(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield (line, kind, text) of braces, labels and what stands before semicolons."""
    at, line = 0, 0
    while at < len(text):
        found = STATEMENT.match(text, at)
        if not found:
            raise Unsupported(f"statement {text[at : at + 60]!r}")
        if found.lastgroup in ("brace", "label", "text"):
            yield line, found.lastgroup, found[found.lastgroup]
        line += text.count("\n", at, found.end())
        at = found.end()


class Body:
    """The parser of one body. A name that an inner scope declares gets the number of its scope."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.scopes: list[dict[str, str]] = []
        self.scope_count = 0

    def parse(self, text: str) -> None:
        """Add what stands between the braces of the function."""
        for line, kind, found in statements(text):
            if kind == "label":
                self.function.body.append(Label(found))
            elif found == "{":
                self.scopes.append({})
                self.scope_count += 1
            elif found == "}":
                self.scopes.pop()
            elif found.startswith("."):
                self.declare(found)
            else:
                self.function.body.append(self.instruction(line, found))

    def declare(self, text: str) -> None:
        """Add the registers or the variable of a declaration."""
        space, rest = text[1:].split(None, 1)
        if space == "reg":
            type_name, names = rest.split(None, 1)
            for name in split(names):
                found = re.fullmatch(rf"({NAME})<(\d+)>", name)
                each = [f"{found[1]}{i}" for i in range(int(found[2]))] if found else [name]
                for register in each:
                    self.function.registers[self.declared(register)] = type_name[1:]
        elif space in ("shared", "local", "param"):
            variable = parse_variable(rest, space)
            name = self.declared(variable.name)
            self.function.variables[name] = Variable(
                name, space, variable.type, variable.count, variable.align
            )
        else:
            raise Unsupported(f"declaration {text}")

    def declared(self, name: str) -> str:
        """Return the name under which the innermost scope declares `name`."""
        if not self.scopes:
            return name
        self.scopes[-1][name] = f"{name}__{self.scope_count}"
        return self.scopes[-1][name]

    def instruction(self, line: int, text: str) -> Instruction:
        """Parse one instruction."""
        if any(self.scopes):
            text = re.sub(NAME, lambda found: self.scoped(found.group()), text)
        found = re.fullmatch(r"(?:@(!?%?[\w$]+)\s+)?([\w.:]+)\s*(.*)", text.strip(), re.DOTALL)
        if not found:
            raise Unsupported(f"instruction {text}")
        return Instruction(line, found[1], found[2], tuple(split(found[3])))

    def scoped(self, name: str) -> str:
        """Return what `name` stands for in the open scopes."""
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
        return name


HEAD = re.compile(
    rf"\.(?P<kind>entry|func)\s*(?:\((?P<results>[^)]*)\))?\s*(?P<name>{NAME})\s*\((?P<parameters>[^)]*)\)"
    r"(?P<directives>[^{;]*)\{",
    re.DOTALL,
)
MODULE_VARIABLE = re.compile(
    r"^(?:\.(?:visible|weak|extern|common)\s+)*\.(?P<space>global|const|shared)\s+(?P<rest>[^;]+);",
    re.MULTILINE,
)


def closing(text: str, at: int) -> int:
    """Return the place of the brace that closes the one at `at`."""
    depth = 0
    for found in re.compile(r"[{}]").finditer(text, at):
        depth += 1 if found.group() == "{" else -1
        if depth == 0:
            return found.start()
    raise Unsupported("a brace is not closed")


def parse(text: str) -> Module:
    """Parse a PTX file."""
    text = without_comments(text)
    module = Module()
    at, outside = 0, []
    while found := HEAD.search(text, at):
        end = closing(text, found.end() - 1)
        outside.append(text[at : found.start()])
        threads = re.search(r"\.maxntid\s+(\d+)(?:\s*,\s*(\d+))?(?:\s*,\s*(\d+))?", found["directives"])
        function = Function(
            name=found["name"],
            is_entry=found["kind"] == "entry",
            results=parse_parameters(found["results"] or ""),
            parameters=parse_parameters(found["parameters"]),
            max_threads=product(threads.groups("1")) if threads else 1024,
        )
        Body(function).parse(text[found.end() : end])
        module.functions[function.name] = function
        at = end + 1
    for found in MODULE_VARIABLE.finditer("\n".join([*outside, text[at:]])):
        variable = parse_variable(found["rest"], found["space"])
        module.variables[variable.name] = variable
    return module


def product(factors: tuple[str, ...]) -> int:
    """Return the product of decimal numbers."""
    total = 1
    for each in factors:
        total *= int(each)
    return total
