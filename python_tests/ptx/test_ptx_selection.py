"""The tests that run on ptx: those marked, or all where FASTCTC_DEVICES is given."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from conftest import pytest_collection_modifyitems


class Item:
    """The parts of a collected test that the hook uses."""

    def __init__(self, name: str, *markers: str, **params: object) -> None:
        self.name, self.markers = name, set(markers)
        if params:
            self.callspec = SimpleNamespace(params=params)

    def get_closest_marker(self, name: str) -> str | None:
        return name if name in self.markers else None

    def add_marker(self, name: str) -> None:
        self.markers.add(name)


def select(items: list[Item]) -> tuple[list[str], list[str]]:
    """Return the names of the tests kept and of those deselected."""
    deselected: list[Item] = []
    hook = SimpleNamespace(pytest_deselected=lambda items: deselected.extend(items))
    pytest_collection_modifyitems(SimpleNamespace(hook=hook), items)
    return [item.name for item in items], [item.name for item in deselected]


def some_items() -> list[Item]:
    return [
        Item("plain"),
        Item("emulated", device="emulated"),
        Item("marked", "ptx", device="ptx"),
        Item("unmarked", device="ptx"),
        Item("unmarked machine", machine="ptx", beam_size=3),
        Item("marked and slow", "ptx", "slow_emulated", device="ptx"),
    ]


def test_marked_tests_run_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTCTC_DEVICES", raising=False)
    items = some_items()
    kept, left_out = select(items)
    assert kept == ["plain", "emulated", "marked", "marked and slow"]
    assert left_out == ["unmarked", "unmarked machine"]
    assert "slow" in items[-1].markers and "slow" not in items[-2].markers


@pytest.mark.parametrize("devices", ["cuda,ptx", "cpu,ptx", "cpu"])
def test_all_tests_run_where_devices_are_given(monkeypatch: pytest.MonkeyPatch, devices: str) -> None:
    monkeypatch.setenv("FASTCTC_DEVICES", devices)  # "cpu": the fixture skips the others
    kept, left_out = select(some_items())
    assert len(kept) == 6 and not left_out
