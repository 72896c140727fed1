"""Errors of torchaudio's decoders name the argument, the expectation and the value."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from compat_files import write_lines

from fastctc.compat.torchaudio import ctc_decoder, cuda_ctc_decoder

TOKENS = ["-", "|", "a", "b"]


def decoder(tmp_path: Path, lines: Any = ("ab a b |",), **options: Any) -> Any:
    lexicon = write_lines(tmp_path / "lexicon.txt", lines)
    return ctc_decoder(**{"lexicon": lexicon, "tokens": TOKENS} | options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens": []}, "tokens is empty"),
        ({"tokens": ["-", "|", "a", "a"]}, "tokens has 'a' for class 2 and for class 3"),
        ({"tokens": ["-", "|", 3]}, r"tokens\[2\] must be a str, got int"),
        ({"blank_token": "_"}, "blank_token is '_', expected one of the 4 tokens"),
        ({"sil_token": " "}, "sil_token is ' ', expected one of the 4 tokens"),
        ({"lm": 3}, "lm must be the path of an ARPA file, a fastctc.Automaton, a CTCDecoderLM"),
        ({"lm_weight": -1}, "lm_weight is -1, expected a number of at least 0"),
        ({"lm_weight": math.nan}, "lm_weight must be finite, got nan"),
        ({"word_score": math.inf}, "word_score must be finite, got inf"),
        ({"unk_score": math.inf}, "unk_score is inf, expected a finite number or -inf"),
        ({"sil_score": "1"}, "sil_score must be a number, got str"),
        ({"nbest": 0}, "nbest is 0"),
        ({"beam_size": 0}, "beam_size is 0"),
        ({"beam_size_token": 0}, "beam_size_token is 0"),
        ({"beam_threshold": -1}, "beam_threshold is -1, expected a number of at least 0"),
        ({"beam_threshold": math.nan}, "beam_threshold is nan"),
    ],
)
def test_options(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        decoder(tmp_path, **options)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], r"lexicon is '.*lexicon.txt', expected a file with at least one word"),
        (["<unk> a b |"], "expected a file with at least one word"),
        (["ab a b |", "ba"], "lexicon.txt, line 2: expected a word and its tokens, got 'ba' alone"),
        (["ab a b |", "", "ba b A |"], "lexicon.txt, line 3: expected names of tokens, got 'A'"),
    ],
)
def test_lexicons(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decoder(tmp_path, lines)


def test_unknown_words_need_separators(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unk_score is -1, expected -inf for a lexicon whose"):
        decoder(tmp_path, ["ab a b"], unk_score=-1)


def test_a_binary_of_kenlm(tmp_path: Path) -> None:
    binary = tmp_path / "lm.bin"
    binary.write_bytes(b"mmap lm http://kheafield.com/code format version 5\n\0" + bytes(100))
    with pytest.raises(ValueError, match=r"lm.bin, .*expected an ARPA file.*KenLM binary"):
        decoder(tmp_path, lm=str(binary))


def test_missing_files(tmp_path: Path) -> None:
    for name in ("lexicon", "tokens", "lm", "lm_dict"):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            decoder(tmp_path, **{name: str(tmp_path / "nowhere.txt")})


@pytest.mark.parametrize(
    ("emissions", "message"),
    [
        ([[0.0]], "emissions must be a floating-point tensor, got list"),
        (
            torch.zeros(1, 2, 4, dtype=torch.int64),
            "emissions must be a floating-point tensor, got torch.int64",
        ),
        (torch.zeros(2, 4), r"emissions has shape \(2, 4\), expected \(B, T, C\) with C of at least 4"),
        (torch.zeros(1, 2, 3), r"emissions has shape \(1, 2, 3\), expected \(B, T, C\) with C of at least 4"),
        (torch.full((1, 2, 4), math.nan), r"emissions\[0\] has a NaN or \+inf"),
    ],
)
def test_emissions(tmp_path: Path, emissions: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        decoder(tmp_path)(emissions)


def test_lengths(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lengths has 2 values"):
        decoder(tmp_path)(torch.zeros(1, 2, 4), [1, 2])
    with pytest.raises(ValueError, match=r"lengths is \[3\], but emissions has 2 frames"):
        decoder(tmp_path)(torch.zeros(1, 2, 4), [3])


def test_chunks(tmp_path: Path) -> None:
    each = decoder(tmp_path)
    each.decode_begin()
    with pytest.raises(ValueError, match=r"emissions has shape \(1, 2, 4\), expected \(T, C\)"):
        each.decode_step(torch.zeros(1, 2, 4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nbest": 11}, "nbest is 11, but beam_size is only 10"),
        ({"blank_skip_threshold": 0}, "blank_skip_threshold is 0, expected a probability above 0, at most 1"),
        ({"blank_skip_threshold": 1.5}, "blank_skip_threshold is 1.5"),
    ],
)
def test_options_of_the_cuda_decoder(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cuda_ctc_decoder(TOKENS, **options)


def test_log_probs_of_the_cuda_decoder() -> None:
    with pytest.raises(ValueError, match=r"log_prob has shape \(1, 2, 3\), expected \(B, T, C\)"):
        cuda_ctc_decoder(TOKENS)(torch.zeros(1, 2, 3), [2])
