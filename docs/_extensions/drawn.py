"""The directive ``drawing``: a drawing of ``drawings``, made at build time, in the colors of the page."""

from __future__ import annotations

from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from drawings import DRAWINGS
from executed import inline_svg


class Drawing(SphinxDirective):
    """A drawing by its name; the content is its caption."""

    required_arguments = 1
    has_content = True
    option_spec: ClassVar = {"alt": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        """Return the drawing and its caption."""
        name = self.arguments[0]
        if name not in DRAWINGS or "alt" not in self.options:
            raise self.severe(f"there is no drawing {name!r}, or the option :alt: is missing")
        shown: list[nodes.Node] = [inline_svg(DRAWINGS[name]().svg(), self.options["alt"])]
        if self.content:
            caption = nodes.container(classes=["picture-caption"])
            self.state.nested_parse(self.content, self.content_offset, caption)
            shown.append(caption)
        return shown


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("drawing", Drawing)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
