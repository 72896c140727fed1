"""The same scores as torchaudio's and pyctcdecode's decoders, where these are installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from compat_files import WORDS, write_arpa, write_lines

from fastctc.compat import pyctcdecode, torchaudio


@pytest.fixture
def peer_ctc_decoder() -> Any:
    try:
        from torchaudio.models.decoder import ctc_decoder
    except (ImportError, OSError, RuntimeError) as error:
        pytest.skip(f"torchaudio's decoder is not available: {error}")
    return ctc_decoder


@pytest.mark.parametrize("with_model", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_torchaudio(tmp_path: Path, peer_ctc_decoder: Any, with_model: bool, seed: int) -> None:
    """All hypotheses, their scores and their order. The last frame is silence."""
    options = {
        "lexicon": write_lines(
            tmp_path / "lexicon.txt", ["ab a b |", "ba b a |", "b b |", "b b b |", "aab a a b |"]
        ),
        "tokens": ["-", "|", "a", "b"],
        "lm": write_arpa(tmp_path / "lm.arpa", WORDS) if with_model else None,
        "nbest": 1000,
        "beam_size": 2000,
        "beam_threshold": 1e6,
        "lm_weight": 1.7,
        "word_score": -0.4,
        "sil_score": 0.3,
        "log_add": True,
    }
    emissions = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(seed))
    emissions[:, -1] = torch.tensor([-50.0, 0.0, -50.0, -50.0])
    theirs, ours = peer_ctc_decoder(**options)(emissions), torchaudio.ctc_decoder(**options)(emissions)
    for found, expected in zip(ours, theirs):
        expected = [each for each in expected if each.score > -30]
        assert [each.words for each in found[: len(expected)]] == [each.words for each in expected]
        scores = [each.score for each in found[: len(expected)]]
        assert scores == pytest.approx([each.score for each in expected], abs=1e-4)
        best, peer_best = found[0], expected[0]
        assert best.tokens[0] == peer_best.tokens[0] and best.tokens.dtype == peer_best.tokens.dtype
        assert best.timesteps.dtype == peer_best.timesteps.dtype and type(best.words) is type(peer_best.words)


def test_torchaudio_path_of_one_hypothesis(tmp_path: Path, peer_ctc_decoder: Any) -> None:
    """Tokens and timesteps, where one path has nearly all probability."""
    options = {
        "lexicon": write_lines(tmp_path / "l.txt", ["ab a b |", "ba b a |"]),
        "tokens": ["-", "|", "a", "b"],
    }
    for path in ([0, 2, 2, 0, 3, 1, 1, 0, 3, 2, 2, 1, 1], [1, 0, 2, 3, 1, 3, 0, 2, 1, 0], [1, 1, 2, 3, 3, 1]):
        emissions = torch.eye(4)[path].mul(20).log_softmax(-1).unsqueeze(0)
        (theirs,), (ours,) = (
            make(**options)(emissions)[0] for make in (peer_ctc_decoder, torchaudio.ctc_decoder)
        )
        assert ours.words == theirs.words
        assert ours.tokens.tolist() == theirs.tokens.tolist()
        assert ours.timesteps.tolist() == theirs.timesteps.tolist()


@pytest.fixture
def peer_build_ctcdecoder() -> Any:
    pytest.importorskip("kenlm")
    return pytest.importorskip("pyctcdecode").build_ctcdecoder


@pytest.mark.parametrize(
    "labels", [["", "a", "b", " "], ["", "▁ab", "▁b", "a", "▁"]], ids=["letters", "pieces"]
)
@pytest.mark.parametrize("hotwords", [[], ["ba", "aba"]], ids=["", "hotwords"])
@pytest.mark.parametrize("model", [{}, {"unigrams": ["ab", "b"]}, None], ids=["model", "unigrams", ""])
def test_pyctcdecode(
    tmp_path: Path, peer_build_ctcdecoder: Any, labels: list[str], hotwords: list[str], model: Any
) -> None:
    """All texts and both scores. The first frame begins a word, and the last one does not end with a space."""
    if hotwords and "▁" in labels:
        pytest.skip("with pieces, hotwords also count in longer words")
    arguments: dict[str, Any] = {"labels": labels}
    if model is not None:
        arguments |= {"kenlm_model_path": write_arpa(tmp_path / "lm.arpa", WORDS), **model}
        arguments |= {"alpha": 0.8, "beta": 0.4, "unk_score_offset": -0.9}
    logits = torch.randn(6, len(labels), generator=torch.Generator().manual_seed(0)).double()
    logits[0] = torch.where(torch.arange(len(labels)) == 1, 0.0, -80.0)
    logits[-1] = torch.where(torch.arange(len(labels)) == 2, 0.0, -80.0)
    options = {"beam_width": 5000, "beam_prune_logp": -1e6, "token_min_logp": -30.0, "hotwords": hotwords}
    theirs, ours = (
        make(**arguments).decode_beams(logits.numpy(), hotword_weight=1.5, **options)
        for make in (peer_build_ctcdecoder, pyctcdecode.build_ctcdecoder)
    )
    assert len(theirs[0]) == len(ours[0]) == 5
    for place in (3, 4):  # classes of hotwords stay in those two frames, with smaller scores
        expected = {each[0]: float(each[place]) for each in theirs if each[3] > -25}
        found = {each[0]: each[place] for each in ours if each[3] > -25}
        assert found == pytest.approx(expected, abs=1e-4) and len(found) > 20
