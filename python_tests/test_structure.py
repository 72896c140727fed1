"""The rooms of the repository and which way includes and imports flow between them.

C++: torch_ops -> scoring, kernels -> math. Python: crnn -> plot, loss, alignment, decode, text -> ops. Never back.
"""

from __future__ import annotations

import ast
import graphlib
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastctc

REPOSITORY = Path(__file__).resolve().parent.parent
CSRC = REPOSITORY / "csrc"
PACKAGE = REPOSITORY / "fastctc"
CPP_SUFFIXES = {".h", ".cuh", ".c", ".cc", ".cpp", ".cu"}

# What each room may include of the others.
ROOMS = {
    "math": {"math"},
    "kernels": {"math", "kernels"},
    "scoring": {"scoring"},
    "torch_ops": {"math", "kernels", "scoring", "torch_ops"},
    "tests": {"math", "kernels", "scoring", "tests"},
}
# The one place where a kernel is told whether it is emulated.
EMULATION_SWITCH = CSRC / "kernels" / "cuda" / "launch.h"

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)
TORCH_HEADER = re.compile(r"^(torch|ATen|c10|caffe2|pybind11|Python\.h)")
CUDA_HEADER = re.compile(r"^(cuda|cub|thrust|cooperative_groups|device_launch_parameters|nv/)")
INTRINSICS = re.compile(r"\b(__shfl\w*|_mm\d*_\w+|\w*mmintrin\.h)")
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)


def cpp_files(*rooms: str) -> list[Path]:
    return sorted(f for room in rooms or ROOMS for f in (CSRC / room).rglob("*") if f.suffix in CPP_SUFFIXES)


def name(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def includes(path: Path) -> list[tuple[str, str]]:
    """Return ("<" or '"', included header) for each include."""
    return INCLUDE.findall(COMMENT.sub("", path.read_text()))


def room_of(path: Path) -> str:
    return path.relative_to(CSRC).parts[0]


def test_there_is_something_to_look_at() -> None:
    assert all(cpp_files(room) for room in ROOMS)


def test_every_source_is_in_a_room() -> None:
    sources = [f for f in CSRC.rglob("*") if f.suffix in CPP_SUFFIXES]
    assert sorted(sources) == sorted(cpp_files())


@pytest.mark.parametrize("path", cpp_files(), ids=name)
def test_includes_flow_one_way(path: Path) -> None:
    for quote, header in includes(path):
        if quote == "<":
            continue
        (target,) = {f.resolve() for f in (path.parent / header, CSRC / header) if f.exists()}
        if path == EMULATION_SWITCH and room_of(target) == "tests":
            continue
        assert room_of(target) in ROOMS[room_of(path)], f"{name(path)} includes {name(target)}"


@pytest.mark.parametrize("path", cpp_files("math", "kernels", "scoring", "tests"), ids=name)
def test_torch_stays_in_torch_ops(path: Path) -> None:
    assert not [header for _, header in includes(path) if TORCH_HEADER.match(header)]


@pytest.mark.parametrize("path", cpp_files("math"), ids=name)
def test_math_is_free_of_cuda(path: Path) -> None:
    assert not [header for _, header in includes(path) if CUDA_HEADER.match(header)]


@pytest.mark.parametrize("path", cpp_files("math", "kernels"), ids=name)
def test_intrinsics_stay_in_lanes(path: Path) -> None:
    if path.name not in ("lanes.h", "launch.h"):
        assert not INTRINSICS.findall(COMMENT.sub("", path.read_text()))


def python_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imported_modules(path: Path) -> Iterator[str]:
    """Yield the dotted names that a file of the package imports from the package, without `fastctc.`."""
    package = ("fastctc", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        for each in names:
            if each == "fastctc" or each.startswith("fastctc."):
                yield each.removeprefix("fastctc").removeprefix(".")


def test_imports_are_found() -> None:
    """Against a check that passes because it sees nothing."""
    found = {name(f): set(imported_modules(f)) for f in python_files()}
    assert any(found.values())
    assert any(each.startswith("crnn") for each in found["fastctc/cli/read.py"])


@pytest.mark.parametrize("path", sorted((PACKAGE / "crnn").rglob("*.py")), ids=name)
def test_crnn_uses_the_public_parts(path: Path) -> None:
    allowed = {
        "",
        "crnn",
        "loss",
        "alignment",
        "convolution",
        "decode",
        "scoring",
        "text",
        "plot",
        "figures",
        "files",
        "normalization",
        "ops",
    }
    public = {"ctc_loss", "CTCLoss", "greedy_decode", "DecodeResult", "__version__", "build_info"}
    assert {each.split(".")[0] for each in imported_modules(path)} <= allowed | public


@pytest.mark.parametrize("path", [f for f in python_files() if f.parent == PACKAGE], ids=name)
def test_nothing_but_the_command_line_uses_crnn(path: Path) -> None:
    assert not [each for each in imported_modules(path) if each.split(".")[0] == "crnn"]


@pytest.mark.parametrize("module", ["direct", "ops", "reference", "text"])
def test_the_lowest_modules_import_no_others(module: str) -> None:
    allowed = {"", "_C", "direct", "errors", "ops"} if module == "ops" else set()
    assert {each.split(".")[0] for each in imported_modules(PACKAGE / f"{module}.py")} <= allowed


@pytest.mark.parametrize("path", sorted((PACKAGE / "scoring").rglob("*.py")), ids=name)
def test_scoring_stands_upon_the_lowest_modules(path: Path) -> None:
    allowed = {"scoring", "errors", "files", "ops", "reference", "text"}
    assert {each.split(".")[0] for each in imported_modules(path)} <= allowed


def test_test_files_have_names_of_their_own() -> None:
    """pytest imports them by name alone."""
    names = [f.name for f in (REPOSITORY / "python_tests").rglob("*.py")]
    assert len(names) == len(set(names)), sorted(n for n in set(names) if names.count(n) > 1)


def test_no_drawer_for_odds_and_ends() -> None:
    folders = ("csrc", "fastctc", "python_tests", "examples", "benchmarks")
    files = [
        f for folder in folders for f in (REPOSITORY / folder).rglob("*") if "__pycache__" not in f.parts
    ]
    assert not [name(f) for f in files if re.search(r"(^|_)(utils?|helpers?|misc|common)(_|$)", f.stem)]


# Imports between the Python files: each file is a node, and an import in a function counts like any other.

PYTHON_FOLDERS = ("fastctc", "benchmarks", "examples")
# What benchmarks and examples may import from: modules whose __all__ lists what is public.
DOORS = {
    *("fastctc", "fastctc.figures", "fastctc.plot", "fastctc.reference", "fastctc.scoring", "fastctc.text"),
    *("fastctc.compat.torchaudio", "fastctc.compat.pyctcdecode", "fastctc.compat.transformers"),
}
RECOGNIZER = "fastctc.crnn"  # not covered by the test of the doors

Graph = dict[Path, set[Path]]


def import_statements(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """Return all imports of a file but those under `if TYPE_CHECKING`."""
    found: list[ast.Import | ast.ImportFrom] = []
    nodes: list[ast.AST] = [ast.parse(path.read_text())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found.append(node)
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            nodes += node.orelse
        else:
            nodes += ast.iter_child_nodes(node)
    return found


def imported_names(path: Path, root: Path) -> Iterator[tuple[str, str]]:
    """Yield (module, name) of each import, absolute; the name is "" where the module itself is imported."""
    package = path.relative_to(root).parts[:-1]
    for node in import_statements(path):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
            continue
        base = package[: len(package) + 1 - node.level] if node.level else ()
        module = ".".join([*base, *([node.module] if node.module else [])])
        yield from ((module, alias.name) for alias in node.names)


def file_of(module: str, roots: list[Path]) -> Path | None:
    """Return the file of a module; None for a module of another package or of a compiled one."""
    for root in roots:
        path = root.joinpath(*module.split("."))
        for candidate in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
            if candidate.exists():
                return candidate
    return None


def import_graph(repository: Path, folders: tuple[str, ...]) -> Graph:
    """Return the files that each file imports. Files outside of a package also import those beside them."""
    graph: Graph = {}
    for path in sorted(file for folder in folders for file in (repository / folder).rglob("*.py")):
        in_package = (path.parent / "__init__.py").exists()
        roots = [repository] if in_package else [path.parent, repository]
        graph[path] = set()
        for module, imported in imported_names(path, roots[0]):
            inner = f"{module}.{imported}" if imported else module
            if is_compiled(inner, repository):
                continue
            target = file_of(inner, roots) or file_of(module, roots)
            if target is not None:
                graph[path].add(target)
    return graph


def is_compiled(module: str, repository: Path) -> bool:
    return repository.joinpath(*module.split(".")).with_suffix(".pyi").exists()


def circle(graph: Graph) -> list[Path]:
    """Return the files of one circle, the first also as the last; [] if there is none."""
    loops = [path for path, targets in graph.items() if path in targets]
    if loops:
        return [loops[0], loops[0]]
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(reversed(error.args[1]))
    return []


def test_no_circle_of_imports() -> None:
    graph = import_graph(REPOSITORY, PYTHON_FOLDERS)
    assert len(graph) > 50 and sum(map(len, graph.values())) > 100, "imports are not found"
    assert not circle(graph), " -> ".join(map(name, circle(graph)))


def test_circles_are_found(tmp_path: Path) -> None:
    """In a package, between files beside each other, in a function and relative; not for the type checker."""
    for folder in ("package/inner", "scripts"):
        (tmp_path / folder).mkdir(parents=True)
    files = {
        "package/__init__.py": "",
        "package/inner/__init__.py": "",
        "package/one.py": "from package.inner import two",
        "package/inner/two.py": "import torch\nfrom package import missing",
        "scripts/a.py": "from b import name\nfrom package.one import name",
        "scripts/b.py": "import argparse",
    }
    for file, text in files.items():
        (tmp_path / file).write_text(text)

    def circle_with(file: str, text: str) -> list[str]:
        before = (tmp_path / file).read_text()
        (tmp_path / file).write_text(f"{before}\n{text}\n")
        found = circle(import_graph(tmp_path, ("package", "scripts")))
        (tmp_path / file).write_text(before)
        return [path.relative_to(tmp_path).as_posix() for path in found]

    assert circle_with("scripts/b.py", "") == []
    assert (
        circle_with("scripts/b.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import a") == []
    )
    assert circle_with("package/one.py", "import package.one") == ["package/one.py"] * 2
    for text in ("import a", "def late():\n    from a import name", "try:\n    import a\nfinally:\n    pass"):
        assert sorted({*circle_with("scripts/b.py", text)}) == ["scripts/a.py", "scripts/b.py"], text
    for text in (
        "import package.one",
        "from package import one",
        "from .. import one",
        "from ..one import name",
    ):
        assert sorted({*circle_with("package/inner/two.py", text)}) == [
            "package/inner/two.py",
            "package/one.py",
        ]


@pytest.mark.parametrize("folder", ["benchmarks", "examples"])
def test_only_public_names_are_imported(folder: str) -> None:
    files = sorted((REPOSITORY / folder).rglob("*.py"))
    imports = [(path, *each) for path in files for each in imported_names(path, REPOSITORY)]
    ours = [each for each in imports if each[1] == "fastctc" or each[1].startswith("fastctc.")]
    assert len(ours) >= 5, "imports are not found"
    for path, module, imported in ours:
        if f"{module}.".startswith(f"{RECOGNIZER}."):
            continue
        if f"{module}.{imported}" in DOORS:
            continue
        assert module in DOORS, f"{name(path)} imports from {module}"
        public = {*importlib.import_module(module).__all__, ""}
        assert imported in public, f"{name(path)} imports {imported}, which {module}.__all__ lacks"


@pytest.mark.parametrize("folder", ["benchmarks", "examples"])
def test_only_public_attributes_are_used(folder: str) -> None:
    """Of the module fastctc, as in fastctc.ctc_loss."""
    used = {
        (name(path), node.attr)
        for path in sorted((REPOSITORY / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "fastctc"
    }
    assert used, "uses are not found"
    doors = {door.removeprefix("fastctc.") for door in DOORS}
    assert not {each for each in used if each[1] not in {*fastctc.__all__, *doors}}
