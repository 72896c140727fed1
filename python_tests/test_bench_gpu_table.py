"""The table of a run on a GPU."""

import json
import shutil
from pathlib import Path

import pytest

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"
NCU = """==PROF== Connected to process 7
"ID","Process ID","Kernel Name","Metric Name","Metric Unit","Metric Value"
"0","7","void fastctc::cuda::gradient<float, 1>(int)","Duration","us","12.5"
"0","7","void fastctc::cuda::gradient<float, 1>(int)","Registers Per Thread","register/thread","64"
"1","7","void fastctc::cuda::gradient<float, 1>(int)","Duration","us","99"
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "results").mkdir()
    for name in ("ctc_loss", "beam_search-ac", "forced_align"):
        shutil.copy(next(RESULTS.glob(f"{name}-2026-11-21-cpu-avx512.json")), tmp_path / "results")
    (tmp_path / "summary.txt").write_text("a GPU\npass  build  10 s\n")
    (tmp_path / "ncu.csv").write_text(NCU)
    return tmp_path


def cells(text: str, start: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if line.startswith(start))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_times_stand_beside_peers_and_estimates(load, files):
    gpu_table = load("gpu_table")
    text = gpu_table.markdown(files)
    assert text.startswith("```\na GPU\npass  build")
    row = cells(text, "| ctc_loss | A: T=36 N=256 C=18 S=12 | logits, fixed |")
    found = json.loads(next((files / "results").glob("ctc_loss*.json")).read_text())["results"][0]
    sides = {name: side["median_ms"] for name, side in found["sides"].items()}
    assert row[3] == f"{sides['fastctc']:.3f}" and row[4] == f"optax {sides['optax']:.3f}"
    assert row[5] == f"{sides['optax'] / sides['fastctc']:.1f}"
    estimate = gpu_table.estimates()["ctc_loss, forward + backward", "A: T=36 N=256 C=18 S=12"]
    assert row[6:] == [f"{estimate:.3f}", f"{sides['fastctc'] / estimate:.2f}"]
    assert text.count("| beam_search | a:") and text.count("| forced_align | A:")


def test_a_kernel_has_the_metrics_of_its_first_launch(load, files):
    text = load("gpu_table").markdown(files)
    assert cells(text, "| `gradient<float, 1>` |")[1:3] == ["12.5 us", "64 register/thread"]


def test_a_run_that_was_cut_off_has_what_is_there(load, tmp_path):
    (tmp_path / "summary.txt").write_text("no GPU\n")
    assert load("gpu_table").markdown(tmp_path) == "```\nno GPU\n```\n"
