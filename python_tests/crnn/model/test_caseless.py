"""Models that read without case."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastctc.crnn import CRNN, Checkpoint, CRNNConfig, PreprocessConfig, Recognizer, evaluate
from fastctc.crnn.data import Drawn, make_alphabet
from fastctc.crnn.model import small_letters, without_case
from fastctc.text import Alphabet


def a_checkpoint(alphabet: Alphabet) -> Checkpoint:
    torch.manual_seed(0)
    model = CRNN(CRNNConfig(alphabet.num_classes, channels=4, hidden=8)).eval()
    return Checkpoint(model, alphabet, PreprocessConfig(height=32))


@pytest.mark.parametrize("blank", [0, 3, 7])
def test_probabilities_of_both_cases_are_added(blank):
    alphabet = Alphabet("aB1AbCς", blank)
    checkpoint = a_checkpoint(alphabet)
    caseless = without_case(checkpoint)
    images = torch.randn(2, 1, 32, 64)
    before, lengths = checkpoint.model(images, torch.tensor([64, 30]))
    after, same = caseless.model(images, torch.tensor([64, 30]))
    assert torch.equal(lengths, same) and sorted(caseless.alphabet.characters) == sorted("ab1cς")
    assert after.shape[2] == caseless.alphabet.num_classes
    torch.testing.assert_close(after[..., caseless.alphabet.blank], before[..., blank])
    for character in "ab1cς":
        members = [c for c in alphabet.characters if small_letters(c) == character]
        expected = sum(before[..., alphabet.encode(c)[0]].exp() for c in members)
        got = after[..., caseless.alphabet.encode(character)[0]].exp()
        torch.testing.assert_close(got, expected)


def test_right_to_left_alphabets_keep_their_order():
    pytest.importorskip("bidi")
    caseless = without_case(a_checkpoint(make_alphabet("אבA a", direction="rtl")))
    assert caseless.alphabet.encode("אב") == [2, 1] and caseless.alphabet.num_classes == 5


def test_a_recognizer_without_case_reads_and_judges_small_letters():
    checkpoint = a_checkpoint(Alphabet("abAB"))
    recognizer = Recognizer(checkpoint, ignore_case=True)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (32, 60), np.uint8) for _ in range(8)]
    readings = recognizer.read(images)
    assert all(set(reading.text) <= set("ab") for reading in readings)

    def source(index: int) -> tuple[np.ndarray, str]:
        return images[index], readings[index].text.upper()

    assert evaluate(recognizer, Drawn(source, 8)).exact_match == 1
