"""The rooms of the recognizer: what each may import, and that rooms are entered by their doors alone.

A room is a sub-package of fastctc.crnn, its door is its __init__.py.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
CRNN = REPOSITORY / "fastctc" / "crnn"

# What each room may import of the others. Formulas and words are domains: only the package's face imports them.
ROOMS = {
    "data": set(),
    "model": {"data"},
    "read": {"data", "model"},
    "report": {"data", "read"},
    "training": {"data", "model", "read"},
    "formulas": {"data", "training"},
    "words": {"data", "training"},
}
OUTSIDE = ("fastctc/cli", "benchmarks", "examples")


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (module, name) of what a file imports from fastctc.crnn; the name is "" for a whole module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            found = [(node.module or "", alias.name) for alias in node.names]
        else:
            continue
        yield from ((module, name) for module, name in found if f"{module}.".startswith("fastctc.crnn."))


def name(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def files(folder: str) -> list[Path]:
    return sorted((REPOSITORY / folder).rglob("*.py"))


def room_of(module: str) -> str:
    return module.removeprefix("fastctc.crnn").strip(".").partition(".")[0]


def assert_by_the_door(path: Path, module: str, imported: str) -> None:
    """Check that modules of the package are doors, and that a name taken from a door is on its list."""
    by = name(path)
    assert module in {"fastctc.crnn", *(f"fastctc.crnn.{room}" for room in ROOMS)}, (
        f"{by} imports from {module}"
    )
    door = importlib.import_module(module)
    is_room = module == "fastctc.crnn" and imported in ROOMS
    assert is_room or imported in door.__all__, f"{by} imports {imported}, which {module}.__all__ lacks"


def test_the_package_has_no_other_entries() -> None:
    entries = {path.name for path in CRNN.iterdir() if path.name != "__pycache__"}
    assert entries == {"__init__.py", *ROOMS}


@pytest.mark.parametrize("room", ROOMS)
def test_a_door_says_what_its_room_is_for(room: str) -> None:
    door = importlib.import_module(f"fastctc.crnn.{room}")
    text = inspect.getdoc(door) or ""
    assert "\n" not in text and text.endswith(".") and ": " in text
    assert all(hasattr(door, each) for each in door.__all__)


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_are_entered_by_their_doors(room: str) -> None:
    seen = set()
    for path in files(f"fastctc/crnn/{room}"):
        for module, imported in imports(path):
            target = room_of(module)
            if target == room:
                assert (
                    path.name == "__init__.py"
                    or module != f"fastctc.crnn.{room}"
                    or imported not in (importlib.import_module(module).__all__)
                ), f"{name(path)} imports {imported} from its own door"
                continue
            assert target in ROOMS[room], f"{name(path)} imports from {module}"
            assert_by_the_door(path, module, imported)
            seen.add(target)
    assert seen == ROOMS[room]


def test_no_room_stands_above_one_that_it_needs() -> None:
    order = list(ROOMS)
    for room, needed in ROOMS.items():
        assert all(order.index(each) < order.index(room) for each in needed)


@pytest.mark.parametrize("folder", OUTSIDE)
def test_others_enter_by_the_doors(folder: str) -> None:
    found = [(path, *each) for path in files(folder) for each in imports(path)]
    assert found
    for path, module, imported in found:
        assert_by_the_door(path, module, imported)


def test_the_walkthrough_needs_few_imports() -> None:
    walkthrough = REPOSITORY / "examples" / "walkthrough.py"
    modules = {
        node.module
        for node in ast.walk(ast.parse(walkthrough.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fastctc")
    }
    assert len(modules) <= 3
