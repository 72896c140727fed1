"""memory.py finds the memory that a call of the loss takes."""

from __future__ import annotations

import pytest
from benchmark_files import Load


@pytest.mark.slow
def test_memory(load: Load) -> None:
    """PyTorch keeps alpha and beta, and from logits the log-softmax: that much must be found.

    The bounds leave room for pages that were mapped before and for huge pages.
    """
    memory, cases = load("memory"), load("cases")
    if not memory.possible():
        pytest.skip("the system keeps no peak that can be reset")
    shape = cases.Shape(300, 64, 100, 40)
    lattices = 2 * 4 * shape.T * shape.N * (2 * shape.S + 1)
    log_softmax = 4 * shape.T * shape.N * shape.C
    probe = memory.Probe(threads=1)
    try:
        for kind, expected in {"log-probs": lattices, "logits": lattices + log_softmax}.items():
            torchs = probe.extra("torch", shape, "fixed", kind)
            assert 0.8 * expected < torchs < 1.5 * expected + 2**22
            occupancies = 4 * shape.T * shape.N * shape.S
            assert 0.8 * occupancies < probe.extra("fastctc", shape, "fixed", kind) < 0.6 * torchs
        with pytest.raises(RuntimeError, match="memory probe has failed"):
            probe.extra("nothing", shape, "fixed", "logits")
        assert probe.extra("torch", shape, "fixed", "logits") > 0, "the probe outlives a failure"
    finally:
        probe.close()
