"""Output of the executed pages: a terminal session, a drawing, a picture, the help of a command."""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

from drawings import DRAWINGS
from IPython.display import HTML, Image, Markdown

REPOSITORY = Path(__file__).resolve().parents[1]

# Pages run in empty folders, in which commands find these folders of the repository.
for folder in ("examples", "docs", "benchmarks"):
    if not Path(folder).exists():
        Path(folder).symlink_to(REPOSITORY / folder)


def console(*commands: str, lines: int | None = None) -> Markdown:
    """Run commands and return the session; raise an error if one of them fails.

    Args:
        commands: lines for bash.
        lines: lines of output to show of each command; None: all.
    """
    session = []
    for command in commands:
        done = subprocess.run(["bash", "-c", command], stdout=subprocess.PIPE, text=True, check=True)
        output = done.stdout.rstrip().splitlines()
        rest = ["..."] if lines is not None and len(output) > lines else []
        session += [f"$ {command}", *output[:lines], *rest]
    return Markdown("\n".join(["```console", *session, "```"]))


def drawing(name: str, description: str) -> HTML:
    """Return a drawing as part of the page, with a description for screen readers."""
    return HTML(f'<div class="picture" role="img" aria-label="{description}">{DRAWINGS[name]().svg()}</div>')


def picture(path: str, description: str, width: int | None = None) -> Image:
    """Return a picture file, with a description for screen readers."""
    return Image(path, alt=description, width=width)


def command_help(name: str) -> Markdown:
    """Return the help of ``fastctc NAME``, from its parser; of ``fastctc`` for an empty name."""
    from fastctc.cli import _parser

    parser = _parser([name] if name else [])
    for action in parser._actions:
        if name and isinstance(action, argparse._SubParsersAction):
            parser = action.choices[name]
    return Markdown(f"```text\n{parser.format_help().rstrip()}\n```")
