"""The time of a call from Python on tiny batches, where the kernels take the least of it, beside PyTorch's loss.

Both sides take turns on one thread in blocks of calls. The fastest block counts: other programs only add time. With
--pause, the thread is busy with nothing before each call, as long as a step of a training may take. In the meantime
code and data leave the caches, where other programs share them. --size T N C S times one other size.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

import fastctc
import report

Call = Callable[[], object]
Sides = dict[str, tuple[Call | None, Call | None]]  # fastctc, PyTorch


def sides(frames: int, samples: int, classes: int, labels: int) -> Sides:
    """Return what is timed, after a check that both losses are equal."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(frames, samples, classes, generator=generator)
    x = logits.log_softmax(2)
    with_grad, result = x.clone().requires_grad_(), torch.empty_like(x)
    logits.requires_grad_()
    targets = torch.randint(1, classes, (samples, labels), generator=generator)
    lengths = torch.full((samples,), frames), torch.full((samples,), labels)
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
        "loss and gradient, from logits": (
            lambda: fastctc.ctc_loss(logits, targets, *lengths, from_logits=True).backward(),
            lambda: peer(logits.log_softmax(2), targets, *lengths).backward(),
        ),
        "a sum and its gradient": (None, lambda: with_grad.sum().backward()),
        "read as much, write as much": (None, lambda: torch.mul(x, 2, out=result)),
        "greedy_decode": (lambda: fastctc.greedy_decode(batch_first), None),
        "beam_search, beam 4": (lambda: fastctc.beam_search(batch_first, beam_size=4), None),
        "forced_align": (lambda: fastctc.forced_align(batch_first, targets, *lengths), None),
    }


def microseconds(call: Call, calls: int, pause: float) -> float:
    """Return the mean time of a call, or the median of calls that a pause of some seconds separates."""
    if not pause:
        start = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - start) / calls * 1e6
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        while time.perf_counter() - start < pause:
            pass
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=200, help="blocks of calls for each side (default 200)")
    parser.add_argument("--calls", type=int, default=30, help="calls of a block (default 30)")
    parser.add_argument(
        "--pause", type=float, default=0.0, metavar="MS", help="milliseconds before each call"
    )
    parser.add_argument(
        "--size",
        type=int,
        nargs=4,
        action="append",
        metavar=("T", "N", "C", "S"),
        help="size; may be repeated",
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    machine = report.describe_machine(torch.device("cpu"))
    print(", ".join(f"{key}: {value}" for key, value in machine.items()))
    for size in options.size or ((4, 1, 5, 1), (50, 2, 5, 1)):
        best: dict[tuple[str, int], float] = {}
        timed = sides(*size)
        for _ in range(options.blocks):
            for name, pair in timed.items():
                for side, call in enumerate(pair):
                    if call is not None:
                        spent = microseconds(call, options.calls, options.pause / 1e3)
                        best[name, side] = min(best.get((name, side), float("inf")), spent)
        rows = [
            [name, *(f"{best[name, side]:.1f} µs" if (name, side) in best else "—" for side in range(2))]
            for name in timed
        ]
        print("\nT = {}, N = {}, C = {}, S = {}\n".format(*size))
        print("\n".join(report.table(["call", "fastctc", "PyTorch"], rows)))


if __name__ == "__main__":
    main()
