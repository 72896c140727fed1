"""The rooms of the repository and which way includes and imports flow between them.

C++: torch_ops -> kernels -> math. Python: crnn -> plot, loss, alignment, decode, text -> ops. Never back.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
CSRC = REPOSITORY / "csrc"
PACKAGE = REPOSITORY / "fastctc"
CPP_SUFFIXES = {".h", ".cuh", ".c", ".cc", ".cpp", ".cu"}

# What each room may include of the others.
ROOMS = {
    "math": {"math"},
    "kernels": {"math", "kernels"},
    "torch_ops": {"math", "kernels", "torch_ops"},
    "tests": {"math", "kernels", "tests"},
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
    """("<" or '"', what is included)"""
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


@pytest.mark.parametrize("path", cpp_files("math", "kernels", "tests"), ids=name)
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
    """Dotted names of what a file of the package imports from the package, without `fastctc.`."""
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
    allowed = {"", "crnn", "loss", "alignment", "decode", "text", "plot", "figures", "ops"}
    public = {"ctc_loss", "CTCLoss", "greedy_decode", "DecodeResult", "__version__", "build_info"}
    assert {each.split(".")[0] for each in imported_modules(path)} <= allowed | public


@pytest.mark.parametrize("path", [f for f in python_files() if f.parent == PACKAGE], ids=name)
def test_nothing_but_the_command_line_uses_crnn(path: Path) -> None:
    assert not [each for each in imported_modules(path) if each.split(".")[0] == "crnn"]


@pytest.mark.parametrize("module", ["ops", "reference", "text"])
def test_the_lowest_modules_import_no_others(module: str) -> None:
    allowed = {"", "_C", "ops"} if module == "ops" else set()
    assert {each.split(".")[0] for each in imported_modules(PACKAGE / f"{module}.py")} <= allowed


def test_no_drawer_for_odds_and_ends() -> None:
    folders = ("csrc", "fastctc", "python_tests", "examples", "benchmarks")
    files = [
        f for folder in folders for f in (REPOSITORY / folder).rglob("*") if "__pycache__" not in f.parts
    ]
    assert not [name(f) for f in files if re.search(r"(^|_)(utils?|helpers?|misc|common)(_|$)", f.stem)]
