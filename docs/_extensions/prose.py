"""Shows signatures and docstrings as they are written.

Google's style has "type: description" under ``Returns`` and for attributes. Here both are prose, types stand in the
signatures, and a colon is a colon. An empty type before the first line keeps Napoleon from reading one.
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx

SECTIONS = ("Returns:", "Yields:")


def untype(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Put an empty type before the first line of what is returned, or of an attribute."""
    starts = [i + 1 for i, line in enumerate(lines) if line.strip() in SECTIONS]
    if what in ("attribute", "data", "property"):
        starts.append(0)
    for i in starts:
        if i < len(lines) and lines[i].strip():
            text = lines[i].lstrip()
            lines[i] = f"{lines[i][: len(lines[i]) - len(text)]}: {text}"


def plain(text: str | None) -> str | None:
    """Return part of a signature as Python code, with aliases of types by their names."""
    if text is None:
        return None
    return re.sub(r"TypeAliasForwardRef\('(\w+)'\)", r"\1", text.replace("~typing.", "").replace("<factory>", "..."))


def by_name(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Return a signature with aliases of types by their names."""
    return plain(signature), plain(returns)


def setup(app: Sphinx) -> dict[str, Any]:
    """Run before Napoleon."""
    app.connect("autodoc-process-docstring", untype, priority=100)
    app.connect("autodoc-process-signature", by_name)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
