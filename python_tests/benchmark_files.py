"""The files of the benchmarks and of their results, for the tests of the benchmarks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from conftest import REPOSITORY

BENCHMARKS = REPOSITORY / "benchmarks"
Load = Callable[[str], ModuleType]  # the type of the fixture `load`


def results(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("*.json")
    return json.loads(path.read_text())
