"""fastctc.beam_search against other CTC beam searches without a language model: speed, and what is found.

Before anything is timed fastctc must give the n-best of the plain reference on the first frames of the input,
scores that do not exceed the exact log-probabilities of their tokens, and the same whatever n and the number of
threads; otherwise it is not timed. A peer whose hypotheses are no labelings, or impossible ones, is left out.
All run in one process, taking turns; the figures are medians, and what counts are their ratios. Beside the times
stands what was found: in how many samples a peer's best hypothesis is fastctc's, the mean exact log-probability
of the best hypothesis, and of the best one within its n-best. `decoders.py` has the settings of each.

On CUDA the inputs rotate so that the L2 cache does not hold them, fastctc is timed with its result left on the
GPU and in a CUDA graph too, and the floor is the time to read the input at the copy bandwidth measured here.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

import beam_report
import decoders
import fastctc
import report
from beam_cases import BASE, BLANK, INPUTS, SHAPES, SWEEPS, Shape, draw, statistics
from cases import sweep
from decoders import Decoder, Fastctc, Hypotheses
from fastctc.reference import beam_search_reference
from timing import Side, buffers, graph_side, measure

EXAMPLES = """examples:
  python benchmarks/bench_beam_search.py --quick                               does it run?
  python benchmarks/bench_beam_search.py --shapes a c --input peaked           two shapes
  python benchmarks/bench_beam_search.py --peers flashlight --sweep W --shapes none
  python benchmarks/bench_beam_search.py --sweep W C --out results             a CPU result with two sweeps
  python benchmarks/bench_beam_search.py --device cuda --out results           on a GPU
  python benchmarks/plots.py results/beam_search-*.json                        the plots anew
"""
CANDIDATES = 500_000  # that the reference may look at; more of them check more frames
TOLERANCE = 1e-6  # of a score, relatively and absolutely

Row = dict[str, Any]  # of the result


class Exact:
    """Log-probabilities of labelings over all of their paths, in float64."""

    def __init__(self, log_probs: Tensor) -> None:
        self.log_probs = log_probs.double().cpu().transpose(0, 1)

    def __call__(self, labelings: list[list[int]]) -> Tensor:
        """Return the log-probability of one labeling per sample; -inf for impossible ones.

        Raises:
            ValueError: a sequence is no labeling.
        """
        frames, samples, _ = self.log_probs.shape
        lengths = [len(each) for each in labelings]
        targets = torch.zeros(samples, max(1, *lengths), dtype=torch.int64)
        for row, each in zip(targets, labelings):
            row[: len(each)] = torch.tensor(each, dtype=torch.int64)
            if BLANK in each:
                raise ValueError(f"token {each.index(BLANK)} of a sequence is the blank")
        if max(lengths) > frames:
            raise ValueError(f"{max(lengths)} tokens in {frames} frames")
        return -fastctc.ctc_loss(
            self.log_probs, targets, [frames] * samples, lengths, blank=BLANK, reduction="none"
        )

    def by_rank(self, hypotheses: Hypotheses) -> Tensor:
        """Return the log-probabilities of each sample's n-best, (N, n); -inf where there is none."""
        ranks = [
            self([sample[rank] if rank < len(sample) else [] for sample in hypotheses])
            for rank in range(max(map(len, hypotheses)))
        ]
        sizes = torch.tensor([len(sample) for sample in hypotheses])
        return torch.stack(ranks, 1).where(torch.arange(len(ranks)) < sizes[:, None], -torch.inf)


def best_of(hypotheses: Hypotheses) -> list[list[int]]:
    if not all(hypotheses):
        raise ValueError("no hypothesis")
    return [sample[0] for sample in hypotheses]


def faults(log_probs: Tensor, shape: Shape, exact: Exact, candidates: int) -> list[str]:
    """Return the faults of fastctc's n-best."""
    found = Fastctc(shape, nbest=shape.W).search(log_probs)
    scores, hypotheses = found.scores.double().cpu(), found.to_list()
    wrong = []
    if scores.isnan().any() or not all(hypotheses):
        return ["scores are NaN or there are no hypotheses"]
    if (scores[:, 1:] > scores[:, :-1]).any():
        wrong.append("the n-best is not in order")
    if any(len(set(map(tuple, sample))) < len(sample) for sample in hypotheses):
        wrong.append("the n-best has duplicates")
    possible = exact.by_rank(hypotheses)
    over = scores[:, : possible.shape[1]] - possible
    if (over > TOLERANCE * (1 + possible.abs())).any():
        wrong.append(f"a score is {float(over.max()):.1e} above the exact log-probability")
    one = Fastctc(shape)
    if best_of(one.hypotheses(one(log_probs))) != best_of(hypotheses):
        wrong.append("the best of one is not the best of many")

    frames = max(1, min(shape.T, candidates // (shape.W * shape.C)))
    start = log_probs[:1, :frames]
    expected = beam_search_reference(start.cpu(), beam_size=shape.W, nbest=shape.W, blank=BLANK)
    there = Fastctc(shape, nbest=shape.W).search(start)
    near = torch.allclose(there.scores.double().cpu(), expected.scores, rtol=TOLERANCE, atol=TOLERANCE)
    if not near or not torch.equal(there.tokens.cpu(), expected.tokens):
        wrong.append(f"the n-best of {frames} frames is not the reference's")
    return wrong


def quality(decoder: Decoder, prepared: Any, exact: Exact, ours: list[list[int]]) -> dict[str, Any]:
    """Return how often a decoder's best is `ours`, and the mean exact log-probabilities of its hypotheses."""
    best = best_of(decoder.hypotheses(decoder(prepared)))
    log_probs = exact(best)
    if not log_probs.isfinite().all():
        raise ValueError("an impossible labeling")
    found = {
        "agreement": sum(a == b for a, b in zip(best, ours, strict=True)) / len(ours),
        "log_prob": float(log_probs.mean()),
    }
    many = decoder.nbest(prepared)
    size = max(map(len, many))
    if size > 1:
        found |= {"oracle_log_prob": float(exact.by_rank(many).amax(1).mean()), "nbest": size}
    return found


def sides_of(row: Row, shape: Shape, options: argparse.Namespace) -> dict[str, Decoder]:
    """Return fastctc and the peers that can be used."""
    sides: dict[str, Decoder] = dict(decoders.ours(shape, torch.device(options.device), options.more_threads))
    for name in options.usable:
        try:
            sides[name] = decoders.PEERS[name].make(shape)
        except Exception as error:  # a peer may raise anything
            row["notes"].append(f"{name} failed ({first_line(error)}): not timed")
    return sides


def first_line(error: Exception) -> str:
    return (str(error) or repr(error)).splitlines()[0]


def check(row: Row, sides: dict[str, Decoder], log_probs: Tensor, shape: Shape, candidates: int) -> None:
    """Record whether fastctc is refused, and the quality of each side; remove peers that are not to be timed."""
    exact = Exact(log_probs)
    if wrong := faults(log_probs, shape, exact, candidates):
        refuse(row, wrong)
        return
    one = sides["fastctc"]
    ours = best_of(one.hypotheses(one(one.prepare(log_probs))))
    for name, decoder in list(sides.items()):
        try:
            row["sides"][name] = quality(decoder, decoder.prepare(log_probs), exact, ours)
        except Exception as error:  # a peer may raise anything
            if isinstance(decoder, Fastctc):
                wrong.append(f"{name} failed ({first_line(error)})")
            else:
                row["notes"].append(f"{name} failed ({first_line(error)}): not timed")
                del sides[name]
    for name in {"fastctc_threads", "fastctc_device", "fastctc_nbest"} & row["sides"].keys():
        if row["sides"][name]["agreement"] < 1:
            wrong.append(f"{name} gives another result")
    if wrong:
        refuse(row, wrong)


def refuse(row: Row, wrong: list[str]) -> None:
    row["refused"] = True
    row["notes"] += [f"fastctc is wrong: {each}: not timed" for each in wrong]


def sides_to_time(row: Row, sides: dict[str, Decoder], inputs: list[Tensor]) -> dict[str, Side]:
    """Return a call per side on input after input; on CUDA also a graph of fastctc's."""

    def side(decoder: Decoder) -> Side:
        prepared = [decoder.prepare(each) for each in inputs]
        return Side(lambda i: decoder(prepared[i % len(prepared)]))

    result = {name: side(decoder) for name, decoder in sides.items()}
    one = sides["fastctc"]
    if inputs[0].is_cuda and isinstance(one, Fastctc):
        try:
            result["fastctc_graph"] = graph_side(lambda each: one.search(each).tokens, inputs)
        except RuntimeError as error:
            row["notes"].append(f"no CUDA graph: {first_line(error)}")
    return result


def add_ratios(row: Row, machine: dict[str, Any]) -> None:
    """Add the figures that follow from the times. On a GPU, a frame counts all samples at once."""
    on_cuda = "gpu" in machine
    frames = row["T"] if on_cuda else row["T"] * row["N"]
    for times in row["sides"].values():
        if "median_ms" in times:
            times["frame_us"] = times["median_ms"] * 1e3 / frames
    ours = row["sides"]["fastctc"]["median_ms"]
    row["ratio"] = {
        name: side["median_ms"] / ours
        for name, side in row["sides"].items()
        if "median_ms" in side and not name.startswith("fastctc")
    }
    if "fastctc_threads" in row["sides"]:
        row["speed_up"] = ours / row["sides"]["fastctc_threads"]["median_ms"]
    if on_cuda:
        size = 4 * row["N"] * row["T"] * row["C"]
        row["floor_ms"] = size / (machine["copy_bytes_per_s"] / 1e3)


def bench(name: str, shape: Shape, kind: str, result: dict[str, Any], options: argparse.Namespace) -> Row:
    """Return the quality of each side and, unless fastctc is wrong, its times."""
    device = torch.device(options.device)
    row: Row = {"shape": name, **asdict(shape), "input": kind}
    log_probs = draw(shape, kind).to(device)
    row |= {"statistics": statistics(log_probs), "sides": {}, "notes": [], "refused": False}
    sides = sides_of(row, shape, options)
    check(row, sides, log_probs, shape, CANDIDATES // 10 if options.quick else CANDIDATES)
    if row["refused"]:
        return row
    row["buffers"] = buffers(log_probs.nbytes, result["machine"].get("l2_bytes", 0))
    inputs = [log_probs.clone() for _ in range(row["buffers"])]
    timed = measure(sides_to_time(row, sides, inputs), device, options.seconds, options.quick)
    for side, times in timed.items():
        row["sides"].setdefault(side, {}).update(times)
    add_ratios(row, result["machine"])
    return row


def rows_to_do(options: argparse.Namespace) -> Iterator[tuple[str | None, str, Shape, str]]:
    """Return (variable if it is swept, name of the shape, shape, kind of input) for each row."""
    for name, kind in itertools.product(options.shapes, options.input):
        yield None, name, SHAPES[name].quick() if options.quick else SHAPES[name], kind
    for variable in options.sweep:
        for shape in sweep(BASE, SWEEPS, variable, options.quick):
            yield variable, f"{variable} = {getattr(shape, variable)}", shape, options.input[0]


def run(result: dict[str, Any], options: argparse.Namespace) -> None:
    """Fill `result`, showing progress on stderr."""
    for variable, name, shape, kind in tqdm(
        list(rows_to_do(options)), file=sys.stderr, unit="row", disable=None
    ):
        row = bench(name, shape, kind, result, options)
        rows = result["sweeps"].setdefault(variable, []) if variable else result["results"]
        rows.append(row)
        if options.out:
            report.write(options.out, result, beam_report.markdown(result))
        found = ", ".join(f"{each} {value:.3f}" for each, value in row["statistics"].items())
        ratios = [f"{peer} / fastctc {ratio:.1f}" for peer, ratio in row.get("ratio", {}).items()]
        tqdm.write("; ".join([name, f"{kind}: {found}", *ratios, *row["notes"]]), file=sys.stderr)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--shapes",
        nargs="+",
        choices=[*SHAPES, "none"],
        metavar="a..d",
        help="or none (default: a b c; on CUDA d too)",
    )
    add("--input", nargs="+", choices=INPUTS, default=INPUTS, help="default: both; sweeps take the first")
    add(
        "--peers",
        nargs="+",
        choices=[*decoders.PEERS, "none"],
        metavar="NAME",
        default=list(decoders.PEERS),
        help=f"of {', '.join(decoders.PEERS)}, or none (default: all that can be used)",
    )
    add("--sweep", nargs="+", choices=[*SWEEPS, "all"], default=[], help="time against these sizes")
    add("--device", default="cpu", help="cpu or cuda")
    add("--threads", type=int, default=1, help="CPU threads of every side but fastctc_threads (default: 1)")
    add("--more-threads", type=int, default=2, help="of fastctc_threads; 0: no such side (default: 2)")
    add("--seconds", type=float, default=3.0, help="of timing for each row, at the least (default: 3)")
    add("--quick", action="store_true", help="small shapes, three samples: a smoke test")
    add("--out", type=Path, metavar="DIR", help="write JSON, Markdown and plots there")
    add("--note", default="", help="goes into the result, e.g. how busy the machine was")
    options = parser.parse_args(argv)
    if options.shapes is None:
        options.shapes = [name for name in SHAPES if name != "d" or options.device != "cpu"]
    options.shapes = [name for name in options.shapes if name != "none"]
    options.peers = [name for name in options.peers if name != "none"]
    if "all" in options.sweep:
        options.sweep = list(SWEEPS)
    return options


def main(argv: list[str] | None = None) -> int:
    """Return the exit status: 0, or 1 if fastctc was wrong somewhere."""
    options = parse(argv)
    torch.set_num_threads(options.threads)
    options.usable, missing = decoders.choose(options.peers, torch.device(options.device))
    result = report.begin("beam_search", options)
    result |= {"peers": options.usable, "not_installed": missing, "more_threads": options.more_threads}
    run(result, options)
    text = beam_report.markdown(result)
    print(text, end="")
    if options.out:
        report.save(options.out, result, text)
    rows = itertools.chain(result["results"], *result["sweeps"].values())
    return 1 if any(row["refused"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
