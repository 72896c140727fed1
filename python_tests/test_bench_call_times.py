"""call_times.py prints a time of each call for both sides."""

from __future__ import annotations

import pytest
import torch
from benchmark_files import Load


@pytest.mark.parametrize(
    ("options", "sizes"),
    [([], 2), (["--pause", "0.1", "--calls", "2", "--size", "8", "3", "6", "4"], 1)],
)
def test_a_row_for_each_call(
    load: Load, capsys: pytest.CaptureFixture[str], options: list[str], sizes: int
) -> None:
    threads = torch.get_num_threads()
    load("call_times").main(["--blocks", "1", *options])
    torch.set_num_threads(threads)
    rows = [line.split("|")[1:4] for line in capsys.readouterr().out.splitlines() if "µs" in line]
    assert len(rows) == 10 * sizes
    for name, *times in rows:
        assert all(float(each.split()[0]) > 0 for each in times if "µs" in each)
        assert ("loss" in name) == all("µs" in each for each in times)
