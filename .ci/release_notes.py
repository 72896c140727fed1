"""Print the section of CHANGELOG.md that a release tag names.

    python .ci/release_notes.py v0.1.0

The tag, ``fastctc/version.py``, ``CITATION.cff`` and the newest dated section must name the same version.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
HEADING = re.compile(r"^## \[(?P<version>[^\]]+)\](?: - (?P<date>\d{4}-\d{2}-\d{2}))?$", re.MULTILINE)
VERSIONS = {
    "fastctc/version.py": r'^__version__ = "(.+)"$',
    "CITATION.cff": r"^version: (.+)$",
    "CHANGELOG.md": r"^## \[(.+)\] - \d{4}-\d{2}-\d{2}$",
}
"""The files that state the version, and where; of CHANGELOG.md the first match counts."""


def stated_versions(repository: Path) -> dict[str, str]:
    """Return the version that each file states."""
    found = {}
    for name, pattern in VERSIONS.items():
        match = re.search(pattern, (repository / name).read_text(), re.MULTILINE)
        if match is None:
            raise ValueError(f"{name} states no version: expected a line that matches {pattern}")
        found[name] = match[1]
    return found


def release_notes(repository: Path, tag: str) -> str:
    """Return the text of the section for ``tag``, without its heading.

    Raises:
        ValueError: a file states another version, or the section is empty.
    """
    version = tag.removeprefix("v")
    for name, stated in stated_versions(repository).items():
        if stated != version:
            raise ValueError(f"the tag is {tag}, but {name} states version {stated}")
    text = (repository / "CHANGELOG.md").read_text()
    headings = list(HEADING.finditer(text))
    (index,) = (i for i, heading in enumerate(headings) if heading["version"] == version)
    end = headings[index + 1].start() if index + 1 < len(headings) else len(text)
    body = re.sub(r"^\[[^\]]+\]: .*\n?", "", text[headings[index].end() : end], flags=re.MULTILINE).strip()
    if not body:
        raise ValueError(f"the section of {version} in CHANGELOG.md is empty")
    return body


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        print(release_notes(REPOSITORY, sys.argv[1]))
    except ValueError as error:
        sys.exit(f"release_notes.py: {error}")
