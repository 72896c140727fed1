"""profile_kernels.py runs on a CPU, finds an op in each call, and shortens the names of kernels."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmark_files import Load, results


def test_every_call_has_times(load: Load, tmp_path: Path) -> None:
    assert load("profile_kernels").main(["--device", "cpu", "--quick", "--out", str(tmp_path)]) == 0
    found = results(tmp_path)
    assert found["benchmark"] == "kernels"
    names = {row["case"]: [kernel["kernel"] for kernel in row["kernels"]] for row in found["results"]}
    assert len(names) == 4
    assert sorted(names["loss, characters"]) == ["ctc_loss", "ctc_loss_backward"]
    assert names["beam search, word pieces"] == ["beam_search"]
    assert names["alignment, characters"] == ["forced_align"]
    for row in found["results"]:
        for kernel in row["kernels"]:
            assert kernel["launches"] == 1 and kernel["us"] > 0
    (table,) = tmp_path.glob("*.md")
    assert table.read_text().count("| all |") == 4


def test_once_measures_nothing(load: Load, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert load("profile_kernels").main(["--device", "cpu", "--quick", "--once"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "kernel, short",
    [
        (
            "void fastctc::cuda::(anonymous namespace)::recursions<float, float, 2, false>"
            "(fastctc::CtcLossParams, fastctc::cuda::(anonymous namespace)::ForwardWorkspace<float>)",
            "recursions<float, float, 2, false>",
        ),
        ("fastctc::cuda::(anonymous namespace)::sum_lengths(fastctc::CtcLossParams, long*)", "sum_lengths"),
        ("fastctc::ctc_loss", "ctc_loss"),
    ],
)
def test_names_of_kernels_are_short(load: Load, kernel: str, short: str) -> None:
    assert load("profile_kernels").short_name(kernel) == short
