"""Runs of the example networks, as a reader would run them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(script: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a script of the examples with one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(EXAMPLES / script), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def result_of(script: str, out: Path, *options: str) -> Any:
    """Return the content of ``result.json`` after a run of a script."""
    done = run(script, "--out", str(out), *options)
    assert done.returncode == 0, done.stderr
    return json.loads((out / "result.json").read_text())
