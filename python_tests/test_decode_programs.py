"""Decoding in programs: torch.jit.trace and script, files of torch.export, ONNX; and integers of any kind."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from beams import INF, NAN, assert_equal, random_log_probs
from torch import Tensor

import fastctc
from fastctc import decomposition


class Greedy(torch.nn.Module):
    """A model that decodes its own output."""

    def __init__(self, from_logits: bool) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(6, 9)
        self.from_logits = from_logits

    def forward(self, x: Tensor, lengths: Tensor) -> fastctc.DecodeResult:
        x = self.layer(x)
        x = x if self.from_logits else x.log_softmax(2)
        return fastctc.greedy_decode(x, lengths, from_logits=self.from_logits)


class Both(torch.nn.Module):
    """Greedy decoding and a beam search with exact scores."""

    def forward(self, x: Tensor) -> tuple[fastctc.DecodeResult, fastctc.NBestResult]:
        return fastctc.greedy_decode(x), fastctc.beam_search(x, nbest=2, exact_scores=True)


def assert_results_equal(results: object, expected: tuple[fastctc.DecodeResult, ...]) -> None:
    for one, other in zip(results, expected, strict=True):  # type: ignore[call-overload]
        assert_equal(one, other)


def test_a_traced_model_decodes_inputs_of_other_shapes() -> None:
    """With exact scores: no length of the example becomes a constant."""
    x, other = random_log_probs(2, 8, 5), random_log_probs(3, 20, 5, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        traced = torch.jit.trace(Both(), (x,))
    file = io.BytesIO()
    torch.jit.save(traced, file)
    file.seek(0)
    for program in (traced, torch.jit.load(file)):
        assert_results_equal(program(x), Both()(x))
        assert_results_equal(program(other), Both()(other))


SAVED = """
import sys, torch, fastctc
x = torch.load(sys.argv[2])
results = torch.export.load(sys.argv[1]).module()(x)
assert [type(each) for each in results] == [fastctc.DecodeResult, fastctc.NBestResult]
torch.save([tuple(each) for each in results], sys.argv[3])
"""


def test_an_exported_model_is_saved_with_the_types_of_its_results(tmp_path: Path) -> None:
    """The file is read in a new process, which imports nothing but fastctc."""
    x, other = random_log_probs(2, 8, 5), random_log_probs(2, 20, 5, seed=1)
    program = torch.export.export(Both(), (x,), dynamic_shapes=({1: torch.export.Dim("T")},))
    torch.export.save(program, tmp_path / "model.pt2")
    torch.save(other, tmp_path / "x.pt")
    names = [str(tmp_path / name) for name in ("model.pt2", "x.pt", "results.pt")]
    subprocess.run([sys.executable, "-c", SAVED, *names], check=True)
    assert_results_equal(torch.load(tmp_path / "results.pt"), Both()(other))


def test_results_are_pytrees() -> None:
    for result in Both()(random_log_probs(2, 8, 5)):
        leaves, spec = torch.utils._pytree.tree_flatten(result)
        assert len(leaves) == len(result)
        again = torch.utils._pytree.treespec_loads(torch.utils._pytree.treespec_dumps(spec))
        assert type(torch.utils._pytree.tree_unflatten(leaves, again)) is type(result)


@pytest.mark.parametrize("from_logits", [False, True], ids=["log_probs", "logits"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_the_decomposition_equals_the_op(from_logits: bool, dtype: torch.dtype) -> None:
    x = 3 * torch.randn(6, 40, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x if from_logits else x.log_softmax(2)
    x[3, 2, 4], x[4, 1], x[5, 30:] = NAN, -INF, NAN
    x, lengths = x.to(dtype), torch.tensor([40, 30, 0, 40, 17, 30])
    for blank in (0, 6):
        expected = torch.ops.fastctc.greedy_decode(x, lengths, blank, from_logits)
        for one, other in zip(
            decomposition.greedy_decode(x, lengths, blank, from_logits), expected, strict=True
        ):
            torch.testing.assert_close(one, other, equal_nan=True)
    for shape in ((2, 0, 3), (0, 4, 3)):
        found = decomposition.greedy_decode(torch.zeros(shape), torch.zeros(shape[0]).long(), 0, False)
        expected = torch.ops.fastctc.greedy_decode(torch.zeros(shape), torch.zeros(shape[0]).long(), 0, False)
        assert_equal(found, expected)
    wrong = decomposition.greedy_decode(torch.ones(1, 2, 3), torch.tensor([2]), 0, False)
    assert wrong[2].isnan().all() and wrong[1].tolist() == [0]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("from_logits", [False, True], ids=["log_probs", "logits"])
def test_greedy_decoding_exports_to_onnx_with_the_model(tmp_path: Path, from_logits: bool) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model = Greedy(from_logits).eval()
    batch, frames = torch.export.Dim("N"), torch.export.Dim("T")
    example = torch.randn(3, 20, 6), torch.tensor([20, 11, 0])
    program = torch.onnx.export(
        model,
        example,
        dynamo=True,
        dynamic_shapes=({0: batch, 1: frames}, {0: batch}),
        input_names=["x", "frames"],
        output_names=list(fastctc.DecodeResult._fields),
        verbose=False,
    )
    assert program is not None
    program.save(tmp_path / "model.onnx")
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    generator = torch.Generator().manual_seed(0)
    for lengths in ([20, 11, 0], [33], [7, 50, 1, 1, 2]):
        x = torch.randn(len(lengths), max(lengths), 6, generator=generator)
        x[0, 1] = NAN if len(lengths) == 5 else 0.0
        found = session.run(None, {"x": x.numpy(), "frames": torch.tensor(lengths).numpy()})
        expected = model(x, torch.tensor(lengths))
        for name, one, other in zip(expected._fields, found, expected, strict=True):
            torch.testing.assert_close(torch.from_numpy(one), other.detach(), equal_nan=True, msg=name)


@pytest.mark.parametrize("name", ["greedy_decode", "beam_search", "BeamSearchDecoder"])
def test_scripting_raises_one_clear_sentence(name: str) -> None:
    sentence = rf"^fastctc\.{name} cannot be compiled by torch\.jit\.script: use torch\.jit\.trace"
    function = getattr(fastctc, name)

    def tokens(x: Tensor) -> Tensor:
        return function(x).tokens

    for each in (function, tokens) if name != "BeamSearchDecoder" else (function,):
        with pytest.raises(NotImplementedError, match=sentence):
            torch.jit.script(each)


@pytest.mark.filterwarnings("ignore")
def test_tracing_a_decoder_of_streams_raises_one_clear_sentence() -> None:
    def tokens(x: Tensor) -> Tensor:
        decoder = fastctc.BeamSearchDecoder()
        decoder.push(x)
        return decoder.result().tokens

    with pytest.raises(
        NotImplementedError, match=r"BeamSearchDecoder keeps a state, which torch\.jit\.trace"
    ):
        torch.jit.trace(tokens, (random_log_probs(1, 4, 3),))


# ---- integers of any kind


INTEGERS = [np.int64, np.uint8, torch.tensor, lambda value: np.array(value)]


@pytest.mark.parametrize("integer", INTEGERS, ids=["int64", "uint8", "tensor", "array"])
def test_counts_are_integers_of_any_kind(integer: Any) -> None:
    x = random_log_probs(2, 6, 4)
    options = {"beam_size": 4, "nbest": 2, "blank": 3}
    wrapped = {name: integer(value) for name, value in options.items()}
    expected = fastctc.beam_search(x, [6, 3], **options)
    lengths = [
        [integer(6), integer(3)],
        tuple(integer(n) for n in (6, 3)),
        torch.tensor([6, 3], dtype=torch.int16),
    ]
    for each in [*lengths, np.array([6, 3])]:
        assert_equal(fastctc.beam_search(x, each, **wrapped), expected)
        assert_equal(
            fastctc.greedy_decode(x, each, blank=integer(3)), fastctc.greedy_decode(x, [6, 3], blank=3)
        )
        decoder = fastctc.BeamSearchDecoder(integer(2), **wrapped)
        decoder.push(x, each)
        assert_equal(decoder.result(integer(2)), expected)
        assert type(decoder.beam_size) is type(decoder.num_streams) is type(decoder.nbest) is int
        decoder.reset(integer(1))
        decoder.reset([integer(0)])
        assert decoder.frames.tolist() == [0, 0]
    single = fastctc.beam_search(x[0], integer(3), beam_size=4, blank=3)
    assert_equal(single, fastctc.beam_search(x[0], 3, beam_size=4, blank=3))


@pytest.mark.parametrize("name", ["beam_size", "nbest", "blank"])
@pytest.mark.parametrize(
    "value", [True, 2.0, np.float32(2), torch.tensor(2.0), torch.tensor([1, 2]), "2", None]
)
def test_counts_that_are_no_integers(name: str, value: Any) -> None:
    x = random_log_probs(2, 6, 4)
    for call in (
        lambda: fastctc.beam_search(x, **{name: value}),
        lambda: fastctc.BeamSearchDecoder(2, **{name: value}),
    ):
        with pytest.raises(TypeError, match=f"{name} must be an int, got"):
            call()
