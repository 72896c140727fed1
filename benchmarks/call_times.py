"""The time of a call from Python on tiny batches, where the kernels take the least of it, beside PyTorch's loss.

Both sides take turns on one thread in blocks of 30 calls. The fastest block counts: other programs only add time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

import fastctc
import report

CLASSES = 5
Sides = dict[str, tuple[Callable[[], object], Callable[[], object] | None]]  # fastctc, PyTorch


def sides(frames: int, samples: int) -> Sides:
    """Return what is timed, after a check that both losses are equal."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(frames, samples, CLASSES, generator=generator).log_softmax(2)
    with_grad = x.clone().requires_grad_()
    targets = torch.randint(1, CLASSES, (samples, 1), generator=generator)
    lengths = torch.full((samples,), frames), torch.ones(samples, dtype=torch.int64)
    lists = [each.tolist() for each in lengths]
    batch_first = x.transpose(0, 1)
    peer = torch.nn.functional.ctc_loss
    torch.testing.assert_close(fastctc.ctc_loss(x, targets, *lengths), peer(x, targets, *lengths))
    return {
        "loss": (lambda: fastctc.ctc_loss(x, targets, *lengths), lambda: peer(x, targets, *lengths)),
        "loss, lengths in lists": (
            lambda: fastctc.ctc_loss(x, targets, *lists),
            lambda: peer(x, targets, *lists),
        ),
        "loss and gradient": (
            lambda: fastctc.ctc_loss(with_grad, targets, *lengths).backward(),
            lambda: peer(with_grad, targets, *lengths).backward(),
        ),
        "loss and gradient, lengths in lists": (
            lambda: fastctc.ctc_loss(with_grad, targets, *lists).backward(),
            lambda: peer(with_grad, targets, *lists).backward(),
        ),
        "greedy_decode": (lambda: fastctc.greedy_decode(batch_first), None),
        "beam_search, beam 4": (lambda: fastctc.beam_search(batch_first, beam_size=4), None),
        "forced_align": (lambda: fastctc.forced_align(batch_first, targets, *lengths), None),
    }


def microseconds(call: Callable[[], object], calls: int = 30) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls * 1e6


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=200, help="blocks of calls for each side (default 200)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    machine = report.describe_machine(torch.device("cpu"))
    print(", ".join(f"{key}: {value}" for key, value in machine.items()))
    for frames, samples in ((4, 1), (50, 2)):
        best: dict[tuple[str, int], float] = {}
        timed = sides(frames, samples)
        for _ in range(options.blocks):
            for name, pair in timed.items():
                for side, call in enumerate(pair):
                    if call is not None:
                        best[name, side] = min(best.get((name, side), float("inf")), microseconds(call))
        rows = [
            [name, f"{best[name, 0]:.1f} µs", f"{best[name, 1]:.1f} µs" if (name, 1) in best else "—"]
            for name in timed
        ]
        print(f"\nT = {frames}, N = {samples}, C = {CLASSES}, S = 1\n")
        print("\n".join(report.table(["call", "fastctc", "PyTorch"], rows)))


if __name__ == "__main__":
    main()
