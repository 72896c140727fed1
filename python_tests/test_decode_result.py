"""DecodeResult and NBestResult as tensors, lists and texts."""

from __future__ import annotations

import pickle

import pytest
import torch
from beams import INF, NAN, random_log_probs

import fastctc
from fastctc import Alphabet, DecodeResult, NBestResult

# Classes blank, a, b: "a" and "ab" in the samples; the third has a NaN, the last a frame without any class.
P = torch.tensor(
    [
        [[0.1, 0.8, 0.1], [0.7, 0.2, 0.1], [0.9, 0.05, 0.05]],
        [[0.1, 0.8, 0.1], [0.1, 0.2, 0.7], [0.9, 0.05, 0.05]],
        [[0.1, 0.8, 0.1], [0.1, NAN, 0.7], [0.9, 0.05, 0.05]],
        [[0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.9, 0.05, 0.05]],
    ]
)
X = P.log()


def test_greedy() -> None:
    result = fastctc.greedy_decode(X[:3])
    assert type(result) is DecodeResult
    assert result.to_list() == [[1], [1, 2], []]
    assert result.to_text(Alphabet("ab")) == result.to_text(["<blank>", "a", "b"]) == ["a", "ab", ""]
    single = fastctc.greedy_decode(X[1])
    assert single.to_list() == [1, 2]
    assert single.to_text("-ab") == "ab"


def test_beam() -> None:
    result = fastctc.beam_search(X, [3, 1, 3, 3], nbest=4)
    assert type(result) is NBestResult
    assert isinstance(result, DecodeResult)
    tokens = result.to_list()
    assert [len(each) for each in tokens] == [4, 3, 0, 0]
    assert tokens[1] == [[1], [], [2]]
    assert result.to_text(Alphabet("ab"))[1:] == [["a", "", "b"], [], []]
    for n in range(4):
        single = fastctc.beam_search(X[n, : [3, 1, 3, 3][n]], nbest=4)
        assert single.to_list() == tokens[n]
        assert single.to_text("-ab") == result.to_text("-ab")[n]


def test_best() -> None:
    result = fastctc.beam_search(X, nbest=4)
    best = result.best()
    assert type(best) is DecodeResult
    assert best.to_list() == [[1], [1, 2], [], []]
    assert best.to_text("-ab") == ["a", "ab", "", ""]
    for one, other in zip(best, result, strict=True):
        assert torch.equal(one.nan_to_num(), other[:, 0].nan_to_num())
    single = fastctc.beam_search(X[1], nbest=4).best()
    assert single.to_list() == [1, 2]
    assert single.to_text("-ab") == "ab"
    assert single.scores.dim() == 0


def test_the_empty_sequence_is_a_hypothesis_like_others() -> None:
    result = fastctc.beam_search(torch.zeros(2, 0, 3), nbest=2)
    assert result.scores.tolist() == [[0, -INF]] * 2
    assert result.to_list() == [[[]], [[]]]
    assert result.to_text("-ab") == [[""], [""]]
    assert fastctc.beam_search(torch.zeros(0, 4, 3).log_softmax(2)).to_text("-ab") == []
    assert fastctc.greedy_decode(torch.zeros(0, 4, 3)).to_list() == []


def test_greedy_keeps_samples_of_probability_zero() -> None:
    result = fastctc.greedy_decode(X[3:])
    assert result.scores.tolist() == [-INF]
    assert result.to_list() == [[2]]


def test_pieces_of_a_vocabulary() -> None:
    vocabulary = ["▁the", "▁cat", "s", "<blank>"]
    x = torch.eye(4)[[0, 3, 1, 2]].mul(20).log_softmax(1)
    for result in (fastctc.greedy_decode(x, blank=3), fastctc.beam_search(x, blank=3).best()):
        assert result.to_text(vocabulary) == "▁the▁cats"
        assert result.to_text(tuple(vocabulary)) == "▁the▁cats"


def test_alphabets_that_do_not_fit() -> None:
    result = fastctc.greedy_decode(X[1])
    with pytest.raises(ValueError, match="there is a token 2, but alphabet has only 2 strings"):
        result.to_text("-a")
    with pytest.raises(ValueError, match=r"tokens\[1\] is 2, not one of the 2 classes"):
        result.to_text(Alphabet("a"))


def test_results_are_named_tuples() -> None:
    fields = "tokens lengths scores timesteps confidences ends peaks token_scores path_scores"
    for result in (fastctc.greedy_decode(X), fastctc.beam_search(X)):
        assert result._fields == tuple(fields.split())
        for name, each in zip(fields.split(), result, strict=True):
            assert getattr(result, name) is each
        copy = pickle.loads(pickle.dumps(result))
        assert type(copy) is type(result)
        assert type(result._replace(scores=-result.scores)) is type(result)


@pytest.mark.parametrize("mode", ["eager", "compiled", "exported"])
def test_types_survive(mode: str) -> None:
    torch._dynamo.reset()

    class Decoder(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[DecodeResult, NBestResult]:
            return fastctc.greedy_decode(x), fastctc.beam_search(x, nbest=3, exact_scores=True)

    x = random_log_probs(2, 12, 5)
    expected = Decoder()(x)
    module = Decoder()
    if mode == "compiled":
        module = torch.compile(module, fullgraph=True, backend="aot_eager")
    elif mode == "exported":
        module = torch.export.export(module, (x,)).module()
    for result, other in zip(module(x), expected, strict=True):
        assert type(result) is type(other)
        for one, two in zip(result, other, strict=True):
            assert torch.equal(one, two)
