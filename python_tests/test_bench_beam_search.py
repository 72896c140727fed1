"""bench_beam_search.py runs, writes its results, and refuses to time a wrong one."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmark_files import BENCHMARKS, Load, results
from conftest import slow
from torch import Tensor
from torch.nn import functional as F

import fastctc

BEAM_QUICK = ("--quick", "--shapes", "a", "--device", "cpu")


@pytest.mark.slow
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


@pytest.mark.parametrize("wrong", ["score", *slow("token", "order", "nan", "nbest")])
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
    rows = results(tmp_path)["results"]
    assert len(rows) == 2
    for row in rows:
        assert row["refused"] and row["notes"] and not row["sides"]
        assert "ratio" not in row


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
    for none, message in (
        ([[0], [1]], "token 0 of a sequence is the blank"),
        ([[4], [1]], r"targets\[0, 0\] is 4, but log_probs has 4 classes"),
        ([[1] * 7, [1]], "7 tokens in 6 frames"),
    ):
        with pytest.raises(ValueError, match=message):
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
