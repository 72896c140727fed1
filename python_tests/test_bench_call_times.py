"""call_times.py prints a time of each call for both sides."""

from __future__ import annotations

import pytest
import torch
from benchmark_files import Load


def test_a_row_for_each_call(load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    load("call_times").main(["--blocks", "1"])
    torch.set_num_threads(threads)
    rows = [line.split("|")[1:4] for line in capsys.readouterr().out.splitlines() if "µs" in line]
    assert len(rows) == 14
    for name, ours, peers in rows:
        assert float(ours.split()[0]) > 0
        assert ("loss" in name) == ("µs" in peers)
