"""Progress of long work: a bar on a terminal, otherwise a message every half a minute."""

from __future__ import annotations

import io
import logging
import sys
from typing import Any

from tqdm import tqdm

log = logging.getLogger(__name__)

SECONDS = 30.0  # between messages


class _Messages(tqdm):  # type: ignore[misc]  # it has no types
    """A bar that logs what it would draw."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        if msg is None:
            log.info("%s", self)


def progress(what: str, unit: str, total: int | None, *, initial: int = 0, show: bool = True) -> Any:
    """Return a :class:`tqdm.tqdm` on stderr, which logs messages instead if stderr is no terminal.

    Args:
        what: name of the work.
        unit: what is counted.
        total: how many there are; None: unknown.
        initial: how many are done.
        show: False shows nothing.
    """
    bar: dict[str, Any] = {"desc": what, "unit": unit, "total": total, "initial": initial}
    if not show or sys.stderr.isatty():
        return tqdm(**bar, disable=not show)
    seldom = {"delay": SECONDS, "mininterval": SECONDS, "maxinterval": SECONDS, "miniters": 1}
    return _Messages(**bar, **seldom, file=io.StringIO(), ncols=0, leave=False)
