"""The environment variable FASTCTC_CPU, and the same results from the kernels of every instruction set."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from typing import Any

import pytest

import fastctc

PROGRAM = """
import json, torch, fastctc
from fastctc.scoring import hotwords

generator = torch.Generator().manual_seed(0)
x = torch.randn(3, 40, 300, generator=generator).log_softmax(-1)
logits = torch.randn(40, 3, 30, generator=generator).requires_grad_()
targets = torch.randint(1, 30, (3, 12), generator=generator)
losses = fastctc.ctc_loss(logits, targets, [40, 33, 40], [12, 5, 0], reduction="none", from_logits=True)
losses.sum().backward()
searches = [
    fastctc.beam_search(x, beam_size=20),
    fastctc.beam_search(x, beam_size=20, scorer=hotwords({(i, 2 * i): 5.0 for i in range(1, 100)})),
]
print(json.dumps({
    "set": fastctc.build_info()["cpu_instruction_set"],
    "losses": losses.tolist(),
    "gradient": logits.grad.flatten().tolist(),
    "exact": [
        [field.tolist() for field in result if field.dtype != torch.bool] for result in searches
    ] + [fastctc.greedy_decode(x).to_list()],
}))
"""


@functools.cache
def run(instruction_set: str) -> Any:
    environment = os.environ | {"FASTCTC_CPU": instruction_set}
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False
    )
    if "expected one of" in done.stderr and instruction_set not in done.stderr.split("expected one of")[1]:
        pytest.skip(f"this processor has no {instruction_set}")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("instruction_set", ["avx2", "baseline"])
def test_every_instruction_set_gives_the_same_results(instruction_set: str) -> None:
    """Searches have the same bits; the loss has its tolerance."""
    best, other = run(""), run(instruction_set)
    assert best["set"] == fastctc.build_info()["cpu_instruction_set"] or "FASTCTC_CPU" in os.environ
    assert other["set"] == instruction_set
    assert other["exact"] == best["exact"]
    assert other["losses"] == pytest.approx(best["losses"], rel=1e-6)
    assert other["gradient"] == pytest.approx(best["gradient"], abs=1e-6)


def test_an_unknown_instruction_set_is_named() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", "import fastctc"],
        env=os.environ | {"FASTCTC_CPU": "sse9"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "FASTCTC_CPU is 'sse9', expected one of: " in done.stderr
