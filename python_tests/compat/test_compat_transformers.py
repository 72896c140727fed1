"""The output of Wav2Vec2ProcessorWithLM, without transformers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compat_files import BUGS, write_arpa

from fastctc.compat.pyctcdecode import build_ctcdecoder
from fastctc.compat.transformers import Wav2Vec2DecoderWithLMOutput, Wav2Vec2ProcessorWithLM

LABELS = ["<pad>", "|", "b", "g", "n", "s", "u", "y"]  # the vocabulary of a tokenizer


def path(*labels: str) -> np.ndarray:
    return np.eye(len(LABELS))[[LABELS.index({"": "<pad>", " ": "|"}.get(label, label)) for label in labels]]


BUNNY = path("b", "u", "n", "", "n", "y")
PROBABILITIES = np.vstack([path("b", "u", "g", "s", "", "") * 0.49 + BUNNY * 0.51, path(" "), BUNNY])
LOGITS = np.log(np.clip(PROBABILITIES, 1e-15, 1))


@pytest.fixture
def processor(tmp_path: Path) -> Wav2Vec2ProcessorWithLM:
    decoder = build_ctcdecoder(LABELS, write_arpa(tmp_path / "bugs.arpa", BUGS))
    return Wav2Vec2ProcessorWithLM(None, None, decoder)


OFFSETS = [
    {"word": "bugs", "start_offset": 0, "end_offset": 4},
    {"word": "bunny", "start_offset": 7, "end_offset": 13},
]


def test_batch_decode(processor: Wav2Vec2ProcessorWithLM) -> None:
    """The scores equal the ones in pyctcdecode. Frames of -100 are padding."""
    padded = np.full((2, 15, 8), -100.0)
    padded[0, :13], padded[1, :6] = LOGITS, LOGITS[7:]
    output = processor.batch_decode(padded, pool=None, num_processes=2)
    assert isinstance(output, Wav2Vec2DecoderWithLMOutput)
    assert output.text == ["bugs bunny", "bunny"]
    assert output.logit_score == pytest.approx([-2.853399551509947, 0.0], abs=1e-5)
    assert output.lm_score[0] == pytest.approx(0.14660044849005294, abs=1e-5)
    assert output.word_offsets is None
    assert output.keys() == ["text", "logit_score", "lm_score"]
    assert list(output) == output.keys() and len(output.to_tuple()) == 3
    assert output[0] is output["text"] is output.text


def test_word_offsets(processor: Wav2Vec2ProcessorWithLM) -> None:
    output = processor.batch_decode(torch.tensor(LOGITS)[None], output_word_offsets=True)
    assert output.word_offsets == output["word_offsets"] == output[3] == [OFFSETS]
    single = processor.decode(LOGITS, output_word_offsets=True)
    assert (single.text, single.word_offsets) == ("bugs bunny", OFFSETS)
    assert single.lm_score == output.lm_score[0]


def test_n_best(processor: Wav2Vec2ProcessorWithLM) -> None:
    options: dict[str, Any] = {"n_best": 2, "beam_prune_logp": -100.0, "output_word_offsets": True}
    output = processor.batch_decode([LOGITS], **options)
    assert output.text == [["bugs bunny", "bunny bunny"]]
    assert [len(column[0]) for column in output.to_tuple()] == [2] * 4
    single = processor.decode(LOGITS, **options)
    assert single.to_tuple() == tuple(column[0] for column in output.to_tuple())


def test_options_reach_the_decoder(processor: Wav2Vec2ProcessorWithLM) -> None:
    assert processor.decode(LOGITS, hotwords=["bunny"], hotword_weight=20.0).text == "bunny bunny"
    assert processor.decode(LOGITS, token_min_logp=0.0, beam_width=10).text == "bunny bunny"
    assert processor.batch_decode([LOGITS], alpha=0.0).text == ["bunny bunny"]
    assert processor.batch_decode(
        [LOGITS], alpha=0.5, lm_score_boundary=False, beta=0.0
    ).lm_score == pytest.approx(processor.batch_decode([LOGITS]).lm_score)


def test_an_empty_batch(processor: Wav2Vec2ProcessorWithLM) -> None:
    assert processor.batch_decode([]).to_tuple() == ([], [], [])


def test_files(processor: Wav2Vec2ProcessorWithLM, tmp_path: Path) -> None:
    processor.decoder.save_to_dir(tmp_path / "model")
    loaded = Wav2Vec2ProcessorWithLM.from_pretrained(
        tmp_path / "model", feature_extractor=lambda sound: sound + 1
    )
    assert loaded.decode(LOGITS).text == "bugs bunny"
    assert loaded(1) == 2


def test_errors(processor: Wav2Vec2ProcessorWithLM) -> None:
    with pytest.raises(
        TypeError, match=r"decoder must be a BeamSearchDecoderCTC of fastctc.compat.pyctcdecode"
    ):
        Wav2Vec2ProcessorWithLM(None, None, 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="feature_extractor is None, expected one of transformers for a call"):
        processor(1)
    with pytest.raises(ValueError, match="n_best is 0"):
        processor.decode(LOGITS, n_best=0)


SCRIPT = """
import sys

class Blocker:
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in ("transformers", "torchaudio", "pyctcdecode", "flashlight", "kenlm", "numpy"):
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocker())
import fastctc
assert not [name for name in sys.modules if name.startswith("fastctc.compat")]
import fastctc.compat.pyctcdecode, fastctc.compat.torchaudio, fastctc.compat.transformers
"""


def test_no_peer_is_imported() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
