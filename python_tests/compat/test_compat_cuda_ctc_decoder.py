"""torchaudio's cuda_ctc_decoder, on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from compat_files import write_lines

import fastctc
from fastctc.compat.torchaudio import CUCTCDecoder, CUCTCHypothesis, cuda_ctc_decoder

TOKENS = ["-", "|", "f", "o", "b", "a", "r"]


def log_probs() -> torch.Tensor:
    return torch.rand(4, 15, 8, generator=torch.Generator().manual_seed(0)).log_softmax(-1)


def test_torchaudio_example_of_shapes(tmp_path: Path) -> None:
    """Tokens of a list and of a file; one class more than there are tokens."""
    lengths = torch.tensor([15, 14, 13, 12], dtype=torch.int32)
    file = write_lines(tmp_path / "tokens.txt", TOKENS)
    found = [cuda_ctc_decoder(tokens)(log_probs(), lengths) for tokens in (TOKENS, file)]
    assert found[0] == found[1]
    assert [len(hypotheses) for hypotheses in found[0]] == [1] * 4
    for (best,) in found[0]:
        assert isinstance(best, CUCTCHypothesis)
        assert best.words == [TOKENS[token] for token in best.tokens]


def test_it_is_a_beam_search() -> None:
    decoder = cuda_ctc_decoder(TOKENS, nbest=3, beam_size=20, blank_skip_threshold=0.9)
    found = decoder(log_probs(), [15] * 4)
    options = {"beam_size": 20, "nbest": 3, "blank_skip": 0.9}
    result = fastctc.beam_search(log_probs()[..., :7], **options)  # type: ignore[arg-type]
    assert [[each.tokens for each in row] for row in found] == result.to_list()
    assert [[each.score for each in row] for row in found] == result.scores.tolist()


def test_only_hypotheses_that_exist() -> None:
    one_path = torch.full((1, 2, 7), -torch.inf)
    one_path[0, :, 2] = 0.0
    ((best,),) = cuda_ctc_decoder(TOKENS, nbest=5)(one_path, [2])
    assert best == ([2], ["f"], 0.0)


def test_difference_the_blank_may_be_any_class() -> None:
    path = torch.eye(3)[[0, 2, 0, 1]].mul(20).log_softmax(-1).unsqueeze(0)
    ((best,),) = CUCTCDecoder(["a", "b", "-"], blank_id=2)(path, [4])
    assert best.words == ["a", "a", "b"]
    with pytest.raises(ValueError, match="blank_id is 3, expected one of the 3 classes"):
        CUCTCDecoder(["a", "b", "-"], blank_id=3)
