"""The benchmarks run, write what they should, and refuse to time a wrong result."""

from __future__ import annotations

import importlib
import itertools
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import fastctc

REPOSITORY = Path(__file__).resolve().parent.parent
BENCHMARKS = REPOSITORY / "benchmarks"
QUICK = ("--quick", "--shapes", "A", "--device", "cpu", "--peers", "torch")
Load = Callable[[str], ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Imports a benchmark's file, which finds those beside it as it does when run."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def results(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("*.json")
    return json.loads(path.read_text())


def test_ctc_loss(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "bench_ctc_loss.py"), *QUICK, "--out", str(tmp_path)]
    done = subprocess.run([*command, "--threads", "1", "--note", "a test"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    found = results(tmp_path)
    assert found["benchmark"] == "ctc_loss"
    assert found["threads"] == 1 and found["quick"] and found["note"] == "a test"
    assert found["versions"]["fastctc"] == fastctc.__version__
    assert found["machine"]["cores"] >= 1
    assert [(row["shape"], row["input"]) for row in found["results"]] == [("A", "logits"), ("A", "log-probs")]
    for row in found["results"]:
        assert not row["refused"]
        assert row["lengths"] == "fixed"
        assert row["sides"].keys() == {"fastctc", "torch"}
        times = {side: each["median_ms"] for side, each in row["sides"].items()}
        assert row["ratio"]["torch"] == pytest.approx(times["torch"] / times["fastctc"])
        assert row["sides"]["fastctc"]["gradient_error"] < 1e-5
        if os.access("/proc/self/clear_refs", os.W_OK):
            assert all(isinstance(side["extra_bytes"], int) for side in row["sides"].values()), row["notes"]

    (table,) = tmp_path.glob("*.md")
    assert len(re.findall(r"^\| A \|", table.read_text(), re.MULTILINE)) == 2
    (plot,) = tmp_path.glob("*-ratios.png")
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 3, "temporary files are left over"


@pytest.mark.parametrize("wrong", ["loss", "gradient", "nan"])
def test_wrong_result_is_not_timed(
    load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrong: str
) -> None:
    right = fastctc.ctc_loss

    def planted(scores: Tensor, *arguments: Any, **options: Any) -> Tensor:
        loss = right(scores, *arguments, **options)
        if wrong == "nan":
            return loss * float("nan")
        off = 1.001 * loss
        return off if wrong == "loss" else off - 0.001 * loss.detach()

    monkeypatch.setattr(fastctc, "ctc_loss", planted)
    command = [*QUICK, "--lengths", "fixed", "varied", "--out", str(tmp_path)]
    assert load("bench_ctc_loss").main(command) == 1
    rows = results(tmp_path)["results"]
    assert len(rows) == 4
    for row in rows:
        assert row["refused"]
        assert "ratio" not in row
        assert all("median_ms" not in side and "extra_bytes" not in side for side in row["sides"].values())


def test_wrong_peer_is_left_out(load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bench, peers = load("bench_ctc_loss"), load("peers")

    def peer_in_torch(change: Callable[[Tensor], Tensor]) -> Callable[[Any], Any]:
        def make(case: Any) -> Any:
            arguments = (case.targets, case.input_lengths, case.target_lengths)
            return peers.Peer(
                lambda scores: change(F.ctc_loss(scores.log_softmax(-1), *arguments, reduction="sum"))
            )

        return make

    def fails(loss: Tensor) -> Tensor:
        raise KeyError("no such thing")

    planted = {"right": lambda loss: loss, "wrong": lambda loss: 1.01 * loss, "fails": fails}
    monkeypatch.setattr(peers, "OTHERS", {name: peer_in_torch(change) for name, change in planted.items()})
    monkeypatch.setattr(peers, "NAMES", ["torch", *planted, "absent"])
    monkeypatch.setitem(peers.OTHERS, "absent", peer_in_torch(fails))
    monkeypatch.setattr(peers, "limit_threads", lambda threads: None)  # it changes the environment
    monkeypatch.setattr(peers, "version", lambda name: None if name == "absent" else f"{name} 1.0")
    options = ["--peers", *peers.NAMES, "--input", "logits", "--lengths", "varied", "--no-memory"]
    assert bench.main([*QUICK[:-2], *options, "--out", str(tmp_path)]) == 0

    found = results(tmp_path)
    assert found["peers"] == {name: f"{name} 1.0" for name in planted}
    assert found["not_installed"] == ["absent"]
    (row,) = found["results"]
    assert row["ratio"].keys() == {"torch", "right"}
    assert row["notes"] == ["wrong is wrong: not timed", "fails failed ('no such thing'): not timed"]


@pytest.mark.parametrize("name", ["optax", "paddle"])
def test_peer_outside_torch(load: Load, name: str) -> None:
    """Right on varied lengths, from both kinds of input; such peers need not be installed."""
    pytest.importorskip(name)
    bench, cases, peers = load("bench_ctc_loss"), load("cases"), load("peers")
    case, logits = cases.draw(cases.Shape(30, 3, 9, 6), "varied")
    expected = cases.reference(logits, case)
    for kind in cases.INPUTS:
        peer = peers.OTHERS[name](case)
        found = bench.errors(peer, cases.scores_of(logits, kind), kind == "logits", expected)
        assert bench.within(found, 1e-4, 1e-3), found


def test_sweeps_and_accuracy(load: Load, tmp_path: Path) -> None:
    command = ["--quick", "--shapes", "none", "--sweep", "T", "N", "--accuracy", "--seeds", "2"]
    assert load("bench_ctc_loss").main([*command, "--peers", "torch", "--out", str(tmp_path)]) == 0
    found = results(tmp_path)
    assert found["results"] == []
    swept = {size: [row[size] for row in rows] for size, rows in found["sweeps"].items()}
    assert swept == {"T": [50, 100], "N": [2, 4]}
    for size, rows in found["sweeps"].items():
        for other in set("TNCS") - {size}:
            assert len({row[other] for row in rows}) == 1
        assert all(row["ratio"].keys() == {"torch"} for row in rows)

    (row,) = found["accuracy"]
    assert len(row["seeds"]) == 2 and row["seeds"][0] != row["seeds"][1]
    for side, worst in row["worst"].items():
        assert worst == max(seed[side] for seed in row["seeds"])
    assert row["worst"]["fastctc"] < 1e-5 < row["worst"]["torch"]
    assert row["times_worse"] == pytest.approx(row["worst"]["torch"] / row["worst"]["fastctc"])

    (plot,) = tmp_path.glob("*.png")
    assert plot.name.endswith("-sweeps.png")
    plot.unlink()
    (path,) = tmp_path.glob("*.json")
    subprocess.run([sys.executable, str(BENCHMARKS / "plots.py"), str(path)], check=True)
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_accuracy_sees_a_wrong_gradient(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    accuracy, cases = load("accuracy"), load("cases")
    right = fastctc.ctc_loss
    monkeypatch.setattr(fastctc, "ctc_loss", lambda *a, **k: 1.01 * right(*a, **k))
    found = accuracy.errors(cases.Shape(40, 2, 8, 10), 0, torch.device("cpu"))
    assert 1e-3 < found["fastctc"] < 1.1e-2


def test_lengths_that_vary(load: Load) -> None:
    cases = load("cases")
    shape = cases.Shape(24, 64, 3, 12)  # two labels, so that many repeat and need a blank between them
    case, logits = cases.draw(shape, "varied", seed=1)
    assert logits.shape == (24, 64, 3)
    assert case.input_lengths[0] == max(case.input_lengths) == 24
    assert case.target_lengths[0] == max(case.target_lengths) == 12
    assert len(set(case.input_lengths)) > 3 and len(set(case.target_lengths)) > 3
    for row, frames, labels in zip(case.targets.tolist(), case.input_lengths, case.target_lengths):
        assert frames >= 12 and labels >= 6
        needed = labels + sum(a == b for a, b in itertools.pairwise(row[:labels]))
        assert frames >= needed
    assert case.concatenated().numel() == sum(case.target_lengths)
    loss, gradient = cases.reference(logits, case)
    assert math.isfinite(loss)
    assert all(not gradient[frames:, n].any() for n, frames in enumerate(case.input_lengths))

    fixed, _ = cases.draw(shape, "fixed", seed=1)
    assert set(fixed.input_lengths) == {24} and set(fixed.target_lengths) == {12}
    with pytest.raises(ValueError, match=r"sample \d+ needs \d+ frames"):
        cases.draw(cases.Shape(12, 4, 2, 12))


BEAM_QUICK = ("--quick", "--shapes", "a", "--device", "cpu")


def test_beam_search(tmp_path: Path) -> None:
    """In a process of its own, against the peers that happen to be installed."""
    command = [sys.executable, str(BENCHMARKS / "bench_beam_search.py"), *BEAM_QUICK, "--out", str(tmp_path)]
    done = subprocess.run([*command, "--sweep", "W", "--note", "a test"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    found = results(tmp_path)
    assert found["benchmark"] == "beam_search"
    assert found["threads"] == 1 and found["more_threads"] == 2 and found["note"] == "a test"
    assert [(row["shape"], row["input"]) for row in found["results"]] == [("a", "peaked"), ("a", "flat")]
    assert found["results"][0]["statistics"]["mean_max_p"] > 0.7
    assert [row["W"] for row in found["sweeps"]["W"]] == [8, 16]
    for row in found["results"] + found["sweeps"]["W"]:
        assert not row["refused"]
        sides = row["sides"]
        ours = sides["fastctc"]
        assert ours["agreement"] == sides["fastctc_threads"]["agreement"] == 1
        assert ours["frame_us"] == pytest.approx(ours["median_ms"] * 1e3 / (row["N"] * row["T"]))
        assert ours["min_ms"] <= ours["median_ms"]
        assert row["speed_up"] == pytest.approx(ours["median_ms"] / sides["fastctc_threads"]["median_ms"])
        exact, many = sides["fastctc_exact"], sides["fastctc_nbest"]
        assert ours["log_prob"] <= exact["log_prob"] == pytest.approx(many["oracle_log_prob"])
        for peer, ratio in row["ratio"].items():
            assert ratio == pytest.approx(sides[peer]["median_ms"] / ours["median_ms"])
    (report,) = tmp_path.glob("*.md")
    assert len(re.findall(r"^\| fastctc \|", report.read_text(), re.MULTILINE)) == 2
    assert (tmp_path / report.with_name(f"{report.stem}-sweeps.png")).exists()


@pytest.mark.parametrize("wrong", ["score", "token", "order", "nan", "nbest"])
def test_wrong_beam_search_is_not_timed(
    load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrong: str
) -> None:
    right = fastctc.beam_search

    def planted(log_probs: Tensor, **options: Any) -> Any:
        found = right(log_probs, **options)
        many = found.scores.shape[1] > 1
        if wrong == "score":
            return found._replace(scores=found.scores + 0.01)
        if wrong == "token":
            return found._replace(tokens=found.tokens.where(found.tokens < 1, found.tokens % 2 + 1))
        if wrong == "nan":
            return found._replace(scores=found.scores * float("nan"))
        if wrong == "order":
            return type(found)(*(each.flip(1) for each in found))
        if many:  # the second best comes first, where one alone is asked for
            return found
        return type(found)(*(each[:, 1:2] for each in right(log_probs, **{**options, "nbest": 2})))

    monkeypatch.setattr(fastctc, "beam_search", planted)
    assert load("bench_beam_search").main([*BEAM_QUICK, "--peers", "none", "--out", str(tmp_path)]) == 1
    for row in results(tmp_path)["results"]:
        assert row["refused"] and row["notes"]
        assert "ratio" not in row
        assert all("median_ms" not in side for side in row["sides"].values())


def test_wrong_decoder_is_left_out(load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bench, decoders = load("bench_beam_search"), load("decoders")

    def decoder(change: Callable[[list[int]], list[int]]) -> Callable[[Any], Any]:
        class Planted(decoders.Decoder):
            def __call__(self, log_probs: Tensor) -> Any:
                return [[change(tokens)] for tokens in fastctc.greedy_decode(log_probs).to_list()]

        return Planted

    def fails(tokens: list[int]) -> list[int]:
        raise KeyError("no such thing")

    planted = {
        "flashlight": decoder(lambda tokens: tokens),
        "torchaudio": decoder(lambda tokens: [0, *tokens]),
        "pyctcdecode": decoder(lambda tokens: [1] * 31),
        "ctcdecode": decoder(fails),
    }
    absent = decoders.Peer(decoders.Decoder, "fastctc.no_such_module", ("no such package",))
    peers = {name: decoders.Peer(make, "math", ("torch",)) for name, make in planted.items()}
    monkeypatch.setattr(decoders, "PEERS", peers | {"absent": absent})
    assert bench.main([*BEAM_QUICK, "--input", "flat", "--more-threads", "0", "--out", str(tmp_path)]) == 0

    found = results(tmp_path)
    assert found["peers"].keys() == planted.keys() and found["not_installed"] == ["absent"]
    (row,) = found["results"]
    assert row["ratio"].keys() == {"flashlight"}
    assert row["sides"]["flashlight"]["log_prob"] <= row["sides"]["fastctc_exact"]["log_prob"]
    assert "nbest" not in row["sides"]["flashlight"] and "fastctc_threads" not in row["sides"]
    notes = iter(row["notes"])
    for name, reason in {
        "torchaudio": "blank",
        "pyctcdecode": "31 tokens in 30",
        "ctcdecode": "such",
    }.items():
        assert re.match(rf"{name} failed \(.*{reason}.*\): not timed", next(notes))


@pytest.mark.parametrize("name", ["flashlight", "torchaudio", "fast_ctc_decode", "pyctcdecode", "ctcdecode"])
def test_decoder_outside_torch(load: Load, name: str) -> None:
    """On probable sequences all agree, as many times as one is called; such peers need not be installed."""
    bench, cases, decoders = load("bench_beam_search"), load("beam_cases"), load("decoders")
    usable, _ = decoders.choose([name], torch.device("cpu"))
    if name not in usable:
        pytest.skip(f"{name} cannot be used")
    shape = cases.Shape(3, 40, 9, 16)
    log_probs = cases.draw(shape, "peaked", seed=2)
    exact = bench.Exact(log_probs)
    ours = bench.best_of(fastctc.beam_search(log_probs, beam_size=shape.W).to_list())
    decoder = decoders.PEERS[name].make(shape)
    prepared = decoder.prepare(log_probs)
    for _ in range(2):
        assert bench.quality(decoder, prepared, exact, ours)["agreement"] == 1
    found = decoder.nbest(prepared)
    assert len(found) == shape.N and bench.best_of(found) == ours


def test_exact_log_probs(load: Load) -> None:
    bench = load("bench_beam_search")
    log_probs = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    exact = bench.Exact(log_probs)
    hypotheses = [[[1, 2], [], [3, 3, 3, 3]], [[2]]]
    found = exact.by_rank(hypotheses)
    for n, sample in enumerate(hypotheses):
        for k, tokens in enumerate(sample):
            loss = F.ctc_loss(
                log_probs[n].double(),
                torch.tensor(tokens, dtype=torch.int64),
                (6,),
                (len(tokens),),
                reduction="sum",
            )
            assert float(found[n, k]) == pytest.approx(-float(loss))
    assert found[0, 2] == found[1, 1] == found[1, 2] == -math.inf  # four repeats need seven frames
    for none in ([[0], [1]], [[4], [1]], [[1] * 7, [1]]):
        with pytest.raises(ValueError):
            exact(none)


def test_beam_search_figures_of_a_gpu(load: Load) -> None:
    """All samples are searched at once there, and the floor is one reading of the input."""
    bench, report = load("bench_beam_search"), load("beam_report")
    row = {"shape": "d", "input": "flat", "N": 16, "T": 200, "C": 5000, "W": 10, "notes": ["no CUDA graph"]}
    row["statistics"] = {"mean_max_p": 0.1, "blank_share": 0.0}
    sides = {"fastctc": 2.0, "fastctc_device": 1.0, "cuda_ctc_decoder": 6.0}
    row["sides"] = {name: {"median_ms": time, "min_ms": time} for name, time in sides.items()}
    bench.add_ratios(row, {"gpu": "some", "copy_bytes_per_s": 4e12})
    assert row["ratio"] == {"cuda_ctc_decoder": 3.0}
    assert row["sides"]["fastctc"]["frame_us"] == pytest.approx(10.0)
    assert row["floor_ms"] == pytest.approx(0.016)
    assert "Floor 0.0160 ms. Notes: no CUDA graph." in report.caption(row)
    assert len(report.result_table(row)) == 5


def test_beam_inputs(load: Load) -> None:
    cases = load("beam_cases")
    for kind, mean in {"peaked": 0.8, "flat": 0.22}.items():
        log_probs = cases.draw(cases.SHAPES["a"], kind)
        assert log_probs.shape == (32, 100, 20) and log_probs.dtype == torch.float32
        assert torch.equal(log_probs, cases.draw(cases.SHAPES["a"], kind))
        assert torch.allclose(log_probs.exp().sum(-1), torch.ones(()), atol=1e-5)
        found = cases.statistics(log_probs)
        assert found["mean_max_p"] == pytest.approx(mean, abs=0.01)
        assert found["blank_share"] == pytest.approx(0.6 if kind == "peaked" else 1 / 20, abs=0.02)


def test_memory(load: Load) -> None:
    """PyTorch keeps alpha and beta, and from logits the log-softmax: that much must be found."""
    memory, cases = load("memory"), load("cases")
    if not memory.possible():
        pytest.skip("the system keeps no peak that can be reset")
    shape = cases.Shape(150, 32, 100, 40)
    lattices = 2 * 4 * shape.T * shape.N * (2 * shape.S + 1)
    log_softmax = 4 * shape.T * shape.N * shape.C
    probe = memory.Probe(threads=1)
    try:
        for kind, expected in {"log-probs": lattices, "logits": lattices + log_softmax}.items():
            torchs = probe.extra("torch", shape, "fixed", kind)
            assert expected - 2 * memory.RESOLUTION < torchs < 1.1 * expected + 2**21  # or a huge page more
            occupancies = 4 * shape.T * shape.N * shape.S
            assert (
                occupancies - 2 * memory.RESOLUTION
                < probe.extra("fastctc", shape, "fixed", kind)
                < torchs / 2
            )
        with pytest.raises(RuntimeError, match="memory probe has failed"):
            probe.extra("nothing", shape, "fixed", "logits")
        assert probe.extra("torch", shape, "fixed", "logits") > 0, "the probe outlives a failure"
    finally:
        probe.close()


def test_forced_align(load: Load, tmp_path: Path) -> None:
    command = ["--quick", "--shapes", "A", "E", "--lengths", "fixed", "varied", "--out", str(tmp_path)]
    assert load("bench_forced_align").main(command) == 0
    found = results(tmp_path)
    assert found["benchmark"] == "forced_align"
    assert len(found["results"]) == 8
    for row in found["results"]:
        assert not row["refused"] and row["sides"]["fastctc"]["median_ms"] > 0
        if found["peers"]["torchaudio"]:
            times = {side: each["median_ms"] for side, each in row["sides"].items()}
            assert row["ratio"]["torchaudio"] == pytest.approx(times["torchaudio"] / times["fastctc"])
    (table,) = tmp_path.glob("*.md")
    assert len(re.findall(r"^\| E \|", table.read_text(), re.MULTILINE)) == 4


@pytest.mark.parametrize("wrong", ["path", "scores"])
def test_wrong_alignment_is_not_timed(
    load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrong: str
) -> None:
    right = fastctc.forced_align

    def planted(scores: Tensor, *arguments: Any, **options: Any) -> tuple[Tensor, Tensor]:
        paths, best = right(scores, *arguments, **options)
        return (paths, best * 1.001) if wrong == "scores" else (paths.flip(1), best.flip(1))

    monkeypatch.setattr(fastctc, "forced_align", planted)
    assert load("bench_forced_align").main(["--quick", "--shapes", "A", "--out", str(tmp_path)]) == 1
    assert all(row["refused"] and "ratio" not in row for row in results(tmp_path)["results"])


def test_memory_of_an_alignment(load: Load) -> None:
    """torchaudio keeps a byte for each state; fastctc a bit."""
    bench, cases, memory = load("bench_forced_align"), load("cases"), load("memory")
    if not memory.possible():
        pytest.skip("the system keeps no peak that can be reset")
    options = bench.parse([])
    shape = cases.Shape(12000, 1, 32, 3000)
    ours = bench.extra_bytes("fastctc", shape, "fixed", "log-probs", options)
    bits = shape.T * shape.S / 4  # two states a label; some of the memory may have been there before
    assert 0.9 * bits < ours < 1.5 * bits


def test_training(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "bench_training.py"), "--quick", "--threads", "1"]
    done = subprocess.run([*command, "--out", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = results(tmp_path)
    assert found["benchmark"] == "training" and found["quick"] and found["threads"] == 1
    assert [row["way"] for row in found["rows"]] == ["fastctc", "beforehand", "on the fly"]
    for row in found["rows"]:
        parts = row["drawing_ms"] + row["batching_ms"] + row["model_ms"]
        assert row["images_per_second"] == pytest.approx(64e3 / parts)
        assert row["data_share"] == pytest.approx(1 - row["model_ms"] / parts)


def test_training_with_a_wrong_loss_is_not_timed(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = load("bench_training")
    samples, _ = bench.collect(bench.CAPTCHA, range(8), bench.PREPROCESS)
    batch = bench.BatchMaker(samples, bench.ALPHABET, 8).batch(0)
    bench.check(batch)
    wrong = {"fastctc": lambda *a, **k: 1.001 * bench.torch_loss(*a, **k), "torch": bench.torch_loss}
    monkeypatch.setattr(bench, "LOSSES", wrong)
    with pytest.raises(AssertionError):
        bench.check(batch)


def test_gpu_suite_names_its_steps_and_tests_that_exist() -> None:
    script = BENCHMARKS / "gpu_suite.sh"
    done = subprocess.run([str(script), "--dry-run"], capture_output=True, text=True, check=True)
    *steps, last = done.stdout.splitlines()
    for step in steps:
        _, seconds, function, *_ = step.split()
        assert int(seconds) > 0
        assert f"\n{function}() {{" in script.read_text()
    benches = {path.name for path in BENCHMARKS.glob("bench_*.py")} - {"bench_training.py"}  # of the CPU
    assert {step.split()[-1] for step in steps if "step_bench" in step} == benches

    tests = "".join(path.read_text() for path in (REPOSITORY / "python_tests").rglob("test_*.py"))
    for name in last.split(": ")[1].split(" or "):
        assert f"def {name}(device: Device" in tests or f"def {name}(\n    device: Device" in tests, name


@pytest.mark.parametrize("script", sorted(BENCHMARKS.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_valid_and_explain_themselves(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    done = subprocess.run([str(script), "--help"], capture_output=True, text=True, check=True)
    assert script.name in done.stdout
