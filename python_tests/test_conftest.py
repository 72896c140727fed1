"""The set-up of the tests: they import the installed package, not the sources of the checkout."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TEST = """
import sys
from pathlib import Path

import fastctc


def test_it():
    root = Path(__file__).resolve().parents[1]
    assert root not in [Path(entry).resolve() for entry in sys.path]
    assert hasattr(fastctc, "ctc_loss")
"""


@pytest.mark.slow
@pytest.mark.parametrize("options", ["", "-n 1"], ids=["one process", "xdist"])
def test_sources_do_not_hide_the_installed_package(tmp_path: Path, options: str) -> None:
    """`python -m pytest` in a checkout whose fastctc/ cannot be imported."""
    for folder in ("fastctc", "python_tests"):
        (tmp_path / folder).mkdir()
    (tmp_path / "fastctc" / "__init__.py").write_text('raise ImportError("these are the sources")\n')
    conftest = Path(__file__).with_name("conftest.py").read_text()
    (tmp_path / "python_tests" / "conftest.py").write_text(conftest)
    (tmp_path / "python_tests" / "test_it.py").write_text(TEST)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options.split(), "python_tests"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr
