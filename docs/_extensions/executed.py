"""Directives that run at build time: ``run`` for Python, ``shell`` for a command. Their pages show what came out.

All cells of a page share one namespace and one empty folder, in which ``examples`` and ``docs`` are the
folders of the repository. A cell that fails makes the build fail.
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

REPOSITORY = Path(__file__).resolve().parents[2]
COLUMNS = "90"

# Colors of the pictures of the package, and the theme's variables that stand for them in a page.
THEMED = {
    "#333333": "var(--color-foreground-primary)",
    "#262626": "var(--color-foreground-primary)",
    "#9a9a9a": "var(--color-foreground-muted)",
    "#dddddd": "var(--color-background-border)",
}


class Page:
    """What the cells of a page share: a namespace and a folder."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fastctc-docs-"))
        for name in ("examples", "docs", "benchmarks"):
            (self.folder / name).symlink_to(REPOSITORY / name)
        self.names: dict[str, Any] = {"__name__": "__main__"}


pages: dict[str, Page] = {}


class Executed(SphinxDirective):
    """What both directives do: show a source and, below it, its output."""

    has_content = True
    option_spec: ClassVar = {
        "hide-source": directives.flag,
        "hide-output": directives.flag,
        "markdown": directives.flag,
        "alt": directives.unchanged,
    }
    language: ClassVar[str]

    def execute(self, source: str, page: Page) -> tuple[str, Any]:
        """Return what the source prints, and the value of its last line."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """Return the source and its output as nodes."""
        page = pages.setdefault(self.env.docname, Page())
        source = "\n".join(self.content)
        with working_in(page.folder):
            try:
                output, value = self.execute(source, page)
            except subprocess.CalledProcessError as error:
                raise self.severe(f"{error}\n{error.stdout}\n{error.stderr}") from error
            except BaseException as error:
                raise self.severe(f"a cell failed:\n{traceback.format_exc()}") from error
        shown: list[nodes.Node] = []
        if "hide-source" not in self.options:
            shown.append(block(self.shown_source(source), self.language, "cell"))
        if "hide-output" not in self.options:
            shown += self.shown_output(output, value)
        return shown

    def shown_source(self, source: str) -> str:
        """Return the source as the page shows it."""
        return source

    def shown_output(self, output: str, value: Any) -> list[nodes.Node]:
        """Return the output as text, as Markdown, or as a picture."""
        figure = getattr(value, "figure", value) if value is not None else None
        if hasattr(figure, "savefig"):
            return [self.picture(figure)]
        if value is not None:
            output += f"{value!r}\n"
        if not output.strip():
            return []
        if "markdown" not in self.options:
            return [block(output.rstrip(), "text", "output")]
        place = nodes.container()
        self.state.nested_parse(StringList(output.splitlines(), "output"), self.content_offset, place)
        return place.children

    def picture(self, figure: Any) -> nodes.Node:
        """Return a figure of matplotlib as SVG in the theme's colors."""
        alt = self.options.get("alt")
        if not alt:
            raise self.severe("a picture needs a description: the option :alt:")
        return inline_svg(themed_svg(figure, f"{self.env.docname}-{self.lineno}"), alt)


class Run(Executed):
    """Python code; the value of its last line is shown as in an interactive session."""

    language = "python"

    def execute(self, source: str, page: Page) -> tuple[str, Any]:
        """Return what the code prints, and the value of its last line."""
        tree = ast.parse(source)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(tree, "cell", "exec"), page.names)
            value = None
            if last is not None:
                value = eval(compile(ast.Expression(last.value), "cell", "eval"), page.names)
        return output.getvalue(), value


class Shell(Executed):
    """Commands, one for each line, run one after the other; their standard output is shown."""

    language = "console"

    def execute(self, source: str, page: Page) -> tuple[str, Any]:
        """Return what the commands print."""
        environment = {
            **os.environ,
            "COLUMNS": COLUMNS,
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
        }
        printed = [
            subprocess.run(
                shlex.split(command), env=environment, capture_output=True, text=True, check=True
            ).stdout
            for command in source.splitlines()
        ]
        return "".join(printed), None

    def shown_source(self, source: str) -> str:
        """Return the commands behind a prompt."""
        return "\n".join(f"$ {line}" for line in source.splitlines())


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Change the working folder for a while."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def block(text: str, language: str, kind: str) -> nodes.Node:
    """Return a literal block with a CSS class of its own."""
    literal = nodes.literal_block(text, text, language=language)
    return nodes.container("", literal, classes=[f"executed-{kind}"])


def themed_svg(figure: Any, name: str) -> str:
    """Return a figure of matplotlib as SVG whose ink has the colors of the page, light or dark."""
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for color, variable in THEMED.items():
        svg = svg.replace(color, variable)
    prefix = re.sub(r"\W", "-", name)
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\1{prefix}-", svg)
    return re.sub(r"font:\s*([^;\"]*)'DejaVu Sans'[^;\"]*", r"font: \1var(--font-stack)", svg)


def inline_svg(svg: str, alt: str) -> nodes.Node:
    """Return SVG as part of the page, described for those who cannot see it."""
    escaped = alt.replace("&", "&amp;").replace('"', "&quot;")
    html = f'<div class="picture" role="img" aria-label="{escaped}">{svg}</div>'
    return nodes.raw("", html, format="html")


def remove_folders(app: Sphinx, exception: Exception | None) -> None:
    """Delete the folders of all pages."""
    for page in pages.values():
        shutil.rmtree(page.folder, ignore_errors=True)
    pages.clear()


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    app.add_directive("run", Run)
    app.add_directive("shell", Shell)
    app.connect("build-finished", remove_folders)
    return {"parallel_read_safe": False, "parallel_write_safe": True}
