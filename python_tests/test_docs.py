"""The documentation is complete: public names, commands, code of README, links between files."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastctc.cli import COMMANDS

REPOSITORY = Path(__file__).resolve().parent.parent
DOCS = REPOSITORY / "docs"
MODULES = (
    *("fastctc", "fastctc.text", "fastctc.plot", "fastctc.scoring", "fastctc.crnn", "fastctc.reference"),
    *("fastctc.compat.torchaudio", "fastctc.compat.pyctcdecode", "fastctc.compat.transformers"),
)
PAGES = sorted([*REPOSITORY.glob("*.md"), *DOCS.rglob("*.md"), *(REPOSITORY / "benchmarks").glob("*.md")])


def documented() -> Iterator[str]:
    """Yield the full name of everything that the API pages document."""
    for page in DOCS.glob("api/*.md"):
        module = ""
        directives = re.findall(r"^\.\. ([\w:]+):: (\S+)", page.read_text(encoding="utf-8"), re.MULTILINE)
        for directive, argument in directives:
            if directive in ("module", "automodule", "currentmodule"):
                module = argument
            elif directive.startswith("auto") or directive == "py:class":
                yield f"{module}.{argument}"


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_documented(module: str) -> None:
    names = set(importlib.import_module(module).__all__) - {"__version__"}
    assert not {f"{module}.{name}" for name in names} - set(documented())


def test_every_command_is_documented() -> None:
    headings = re.findall(r"^## fastctc (\w+)", (DOCS / "commands.md").read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(COMMANDS)


def test_code_of_readme_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    assert len(blocks) >= 3
    monkeypatch.chdir(REPOSITORY)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    reading = names["reading"]
    assert reading.text == "(5+6)-2=9"  # type: ignore[attr-defined]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_links_to_files(page: Path) -> None:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    missing = []
    for link in links:
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = page.parent / path if path else page
        if not target.exists():
            missing.append(link)
        elif anchor and f"({anchor})=" not in target.read_text(encoding="utf-8"):
            headings = re.findall(r"^#+ (.*)", target.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
            missing += [] if anchor in slugs else [link]
    assert not missing
