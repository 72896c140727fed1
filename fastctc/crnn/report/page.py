"""A report: one page of HTML that needs no other file, and its pictures as PNG files beside it."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fastctc.crnn.data import Problem, claimed, write_atomically
from fastctc.crnn.report.visible import visible
from fastctc.figures import write_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE_FILE = "report.html"
_OPEN = 20  # problems; a longer list is folded
_PIXELS_PER_INCH = 96  # of a page


class Table(NamedTuple):
    """A table of figures.

    Attributes:
        columns: their headings.
        rows: cells of each row, the first of which is its heading.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


class Section(NamedTuple):
    """A picture with its heading.

    Attributes:
        name: of its PNG file, without suffix.
        heading: title of the section.
        text: explanation of the picture.
        draw: returns the picture.
    """

    name: str
    heading: str
    text: str
    draw: Callable[[], Figure]


def write_page(
    folder: Path,
    title: str,
    facts: Mapping[str, str],
    sections: Iterable[Section],
    *,
    tables: Sequence[Table] = (),
    problems: Mapping[str, Sequence[Problem]] | None = None,
    on_picture: Callable[[int], object] = lambda done: None,
) -> Path:
    """Write ``report.html`` and the picture of each section, each file atomically.

    Args:
        folder: made if missing; files of the same names are replaced.
        title: title of the page.
        facts: facts by subject.
        sections: pictures, each drawn when its turn comes.
        tables: tables of figures, below the facts.
        problems: lists of problems by their headings; empty lists are left out.
        on_picture: called with 1 after each picture.

    Returns:
        The path of the page.

    Raises:
        FolderInUseError: another process writes into the folder.
        ModuleNotFoundError: matplotlib is not installed.
    """
    parts = [_facts(facts), *map(_table, tables)]
    parts += [_problems(heading, listed) for heading, listed in (problems or {}).items() if listed]
    with claimed(folder):
        for section in sections:
            figure = section.draw()
            content = io.BytesIO()
            write_png(figure, content)
            write_atomically(folder / f"{section.name}.png", content.getvalue())
            parts.append(_section(section, content.getvalue(), figure.get_figwidth()))
            on_picture(1)
        page = _PAGE.format(title=_escaped(title), style=_STYLE, body="".join(parts))
        path = folder / PAGE_FILE
        write_atomically(path, page.encode())
    return path


def _escaped(text: str) -> str:
    """Return any text as HTML that shows it."""
    return html.escape(visible(text))


def _facts(facts: Mapping[str, str]) -> str:
    rows = "".join(
        f"<tr><th>{_escaped(name)}</th><td>{_escaped(words)}</td></tr>\n" for name, words in facts.items()
    )
    return f'<table class="facts">\n{rows}</table>\n'


def _table(table: Table) -> str:
    head = "".join(f"<th>{_escaped(name)}</th>" for name in table.columns)
    rows = "".join(
        f"<tr><th>{_escaped(first)}</th>{''.join(f'<td>{_escaped(cell)}</td>' for cell in cells)}</tr>\n"
        for first, *cells in table.rows
    )
    return f'<table class="figures">\n<tr>{head}</tr>\n{rows}</table>\n'


def _problems(heading: str, problems: Sequence[Problem]) -> str:
    """Return a list of problems, folded if it is long."""
    items = "".join(f"<li>{_escaped(str(problem))}</li>\n" for problem in problems)
    return (
        f"<section>\n<h2>{_escaped(heading)}</h2>\n<details{' open' if len(problems) <= _OPEN else ''}>"
        f"<summary>{len(problems):,}</summary>\n<ul>\n{items}</ul>\n</details>\n</section>\n"
    )


def _section(section: Section, png: bytes, inches: float) -> str:
    """Return a section with its picture at its natural size."""
    heading, picture = _escaped(section.heading), base64.b64encode(png).decode("ascii")
    return (
        f'<section id="{section.name}">\n<h2>{heading}</h2>\n<p>{_escaped(section.text)}</p>\n'
        f'<figure><img alt="{heading}" width="{inches * _PIXELS_PER_INCH:.0f}"'
        f' src="data:image/png;base64,{picture}"></figure>\n</section>\n'
    )


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
{body}</body>
</html>
"""

# Pictures keep their white ground in the dark. A narrow screen scrolls them, since their text would be too small.
_STYLE = """
:root { color-scheme: light dark; --ink: #333; --ground: #fff; --line: #ddd; --soft: #666 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ddd; --ground: #17191c; --line: #3a3e44; --soft: #a0a4aa }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); max-width: 1056px;
  margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.6em; line-height: 1.25; overflow-wrap: anywhere }
h2 { font-size: 1.2em; margin: 2em 0 0.2em }
p { margin: 0.2em 0 0.8em; max-width: 46em }
table { border-collapse: collapse; margin-bottom: 1.5em }
td, th { border-bottom: 1px solid var(--line); padding: 0.3em 1em 0.3em 0; text-align: left;
  vertical-align: top; font-weight: normal }
th { color: var(--soft) }
.facts td { overflow-wrap: anywhere }
.figures { display: inline-table; vertical-align: top; margin-right: 2.5em; font-variant-numeric: tabular-nums }
.figures td, .figures th { padding: 0.1em 0 0.1em 1.2em; text-align: right }
.figures th:first-child { padding-left: 0 }
summary { cursor: pointer }
ul { padding-left: 1.5em; margin: 0.5em 0 }
li { overflow-wrap: anywhere }
figure { margin: 0; overflow-x: auto }
img { display: block; max-width: max(100%, 740px); height: auto; background: #fff; border-radius: 4px }
"""
