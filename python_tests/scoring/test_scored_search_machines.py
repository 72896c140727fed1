"""A search with scorers has the same bits on the CPU and by the CUDA kernels, emulated or on a GPU."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from automata import random_automaton
from beams import random_log_probs
from conftest import CUDA_MACHINES, cuda_kernels, slow
from scorers import BOUNDARIES, random_case
from torch import Tensor

import fastctc
from fastctc import Automaton, ScoredResult
from fastctc.scoring import LexiconScorer, hotwords
from fastctc.scoring.packed import pack

pytestmark = pytest.mark.ptx

NEVER = (math.inf, math.inf, math.inf)
CUTS = (4.0, 3.0, -0.2)

Check = Callable[..., ScoredResult]


@pytest.fixture(params=CUDA_MACHINES)
def check(request: pytest.FixtureRequest) -> Check:
    """Return a search on both machines that raises if they differ."""
    there, namespace = cuda_kernels(request, request.param)
    op = getattr(torch.ops, namespace).scored_search.default

    def run(
        x: Tensor,
        lengths: Sequence[int],
        scorers: Sequence[Automaton | LexiconScorer],
        beam_size: int,
        *,
        blank: int = 0,
        from_logits: bool = False,
        cuts: tuple[float, float, float] = NEVER,
    ) -> ScoredResult:
        options = beam_size, beam_size, blank, from_logits, *cuts
        used = torch.tensor(lengths)
        here = ScoredResult(
            *torch.ops.fastctc.scored_search.default(x, used, *options, *pack(scorers, x.device))
        )
        moved = [each.to(there) for each in scorers]
        result = op(x.to(there), used.to(there), *options, *pack(moved, torch.device(there)))
        for name, one, other in zip(ScoredResult._fields, here, result, strict=True):
            torch.testing.assert_close(other.cpu(), one, rtol=0, atol=0, equal_nan=True, msg=name)
        return here

    return run


@pytest.mark.parametrize("kind", ["", *BOUNDARIES], ids=["automata", *BOUNDARIES])
@pytest.mark.parametrize("beam_size", [3, 33, *slow(1, 31, 32, 257, 1000)])
@pytest.mark.parametrize("dtype", [torch.float32, *slow(torch.float64, torch.bfloat16)])
def test_same_bits_on_every_machine(
    kind: str, beam_size: int, dtype: torch.dtype, check: Check, tmp_path: Path
) -> None:
    """Up to three automata, lexicons in every mode with homophones, positive weights, ties."""
    hypotheses = words = 0
    for seed in range(12 if beam_size < 100 else 3):
        case = random_case(seed, kind, tmp_path)
        x = random_log_probs(2, 14, case.x.shape[1], seed=seed)
        if seed % 3 == 0:
            x = (x * 4).floor() / 4
        for from_logits, cuts in ((False, NEVER), (True, CUTS)):
            options = {"blank": case.blank, "from_logits": from_logits, "cuts": cuts}
            found = check(x.to(dtype), [14, 9], case.scorers, beam_size, **options)
            hypotheses += int((found.scores > -math.inf).sum())
            words += int((found.words >= 0).sum())
    assert hypotheses > 0
    assert (words > 0) == (kind != "")


@pytest.mark.parametrize("classes", [300, *slow(1025, 1026, 1027, 2000)])
def test_same_bits_over_many_classes(classes: int, check: Check) -> None:
    """Hotwords with large weights, which bring improbable tokens into the beam, and flat frames."""
    rng = random.Random(classes)
    alphabet = fastctc.Alphabet("".join(map(chr, range(0x4E00, 0x4E00 + classes - 1))))
    phrases = {
        "".join(rng.choices(alphabet.characters, k=rng.randint(1, 4))): rng.randint(-2, 12)
        for _ in range(500)
    }
    scorers = [hotwords(phrases, alphabet), random_automaton(1, range(1, classes), states=3)]
    for scale in (0.01, 3.0):
        x = (random_log_probs(1, 4, classes, seed=0) * scale).log_softmax(-1).float()
        for beam_size in (1, 10, 40):
            found = check(x, [4], scorers[:1], beam_size)
            assert int(found.lengths.max()) > 0
            check(x, [4], scorers, beam_size)
