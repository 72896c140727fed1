"""The examples that are quick enough run as a reader would run them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fastctc.crnn.formulas import FormulaSource

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False, env=environment
    )


def test_score_all_formulas(tmp_path):
    image, text = FormulaSource(look="default", renderer="captcha", seed=4, value="right")(0)
    image.save(tmp_path / "formula.png")
    done = run(str(EXAMPLES / "score_all_formulas.py"), str(tmp_path / "formula.png"), "--top", "4")
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) == 5, done.stderr
    assert lines[0].split()[0] == text and lines[-1].startswith("54000 formulas scored in ")
    probabilities = [float(line.split()[2]) for line in lines[:4]]
    assert probabilities == sorted(probabilities, reverse=True) and 0.5 < sum(probabilities) <= 1


def test_rescore_with_an_lstm():
    done = run(str(EXAMPLES / "rescore_with_an_lstm.py"), "--sentences", "6", "--steps", "80")
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^(.+?) +([\d.]+)% wrong characters", done.stdout, re.MULTILINE)
    assert [name for name, _ in found] == ["without a model", "20-best rescored", "model in the beam"]
    alone, rescored, within = (float(share) for _, share in found)
    assert alone > rescored > within + 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, argument", [("score_all_formulas", "formula.png"), ("rescore_with_an_lstm", "--noise")]
)
def test_help_shows_how(name, argument):
    done = run(str(EXAMPLES / f"{name}.py"), "--help")
    assert done.returncode == 0 and f"python examples/{name}.py {argument}" in done.stdout


@pytest.mark.slow
def test_walkthrough(tmp_path):
    done = run(str(EXAMPLES / "walkthrough.py"), str(tmp_path), "--images", "40", "--steps", "4")
    assert done.returncode == 0, done.stderr
    assert "40 images, the first shows " in done.stdout
    assert "this model:    exact match 0.00%" in done.stdout  # after four steps
    (included,) = re.findall(r"^formula model: exact match ([\d.]+)%", done.stdout, re.MULTILINE)
    assert 90 <= float(included) <= 100
    for name in ("explore/report.html", "run/model.safetensors", "run/curve.png", "report/report.html",
                 "explain.png", "model.onnx"):  # fmt: skip
        assert (tmp_path / name).stat().st_size > 1000, name
