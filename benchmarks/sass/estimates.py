"""Estimated times of all ops on an H200, from the table of the machine code. Nothing is measured.

python benchmarks/sass/estimates.py            print the table, in Markdown
python benchmarks/sass/estimates.py --write    write it into estimates.md
"""

from __future__ import annotations

import argparse
import json

from estimate import HERE, OPS, markdown
from search_estimates import alignments, greedy, searches

FILE = HERE / "estimates.md"


def estimates() -> str:
    """Return the table."""
    table = json.loads((HERE / "table.json").read_text())
    return markdown([each for op in (*OPS, alignments, searches) for each in op(table)] + greedy())


def main() -> None:
    parser = argparse.ArgumentParser(description="Estimate the times of the ops on an H200.")
    parser.add_argument("--write", action="store_true", help="write estimates.md instead of printing")
    text = estimates()
    if parser.parse_args().write:
        FILE.write_text(text, encoding="utf-8")
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
