"""The data of the spoken digits, strings of them, the parts of the network, and a short run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from example_runs import EXAMPLES, result_of


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(EXAMPLES)
    import spoken_digits

    return spoken_digits


@pytest.fixture
def speech(example: Any) -> Any:
    return example.Speech(example.DATA)


def test_each_voice_speaks_each_digit_twice(speech: Any) -> None:
    assert len(speech.words) == 24 and set(speech.held_out) < set(speech.words)
    for words in speech.words.values():
        assert [len(takes) for takes in words] == [2] * 10
        fast, slow = (sum(len(takes[take]) for takes in words) for take in (0, 1))
        assert 10 * 10 < fast < 0.9 * slow < 10 * 60
        for word in (take for takes in words for take in takes):
            assert word.max() == 1 and word.min() == 0


@pytest.mark.parametrize("rate", [16000, 22050])
def test_spectrogram_of_a_tone(example: Any, rate: int) -> None:
    from synthesize_digits import BANDS, HOP, spectrogram

    time = np.arange(rate // 2) / rate
    brightest = []
    for hertz in (300, 1000, 3000):
        tone = np.sin(2 * np.pi * hertz * time)
        bands = spectrogram(np.pad(tone, rate), rate)
        assert bands.dtype == np.uint8 and bands.shape[1] == BANDS and bands.max() == 255
        assert abs(len(bands) - 0.5 / HOP) <= 2  # silence at both ends is cut
        brightest.append(bands[len(bands) // 2].argmax())
    low, high = 2595 * np.log10(1 + np.array([100, 7000]) / 700)
    mel = 2595 * np.log10(1 + np.array([300, 1000, 3000]) / 700)
    assert np.abs(np.array(brightest) - ((mel - low) / (high - low) * (BANDS + 1) - 1)).max() < 1


def test_held_out_voices_are_not_trained_on(
    speech: Any, example: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    spoken: set[str] = set()
    utter = example.Speech.utter

    def record(self: Any, voice: str, digits: str, rng: Any, *, changed: bool) -> Any:
        if changed:
            spoken.add(str(voice))
        return utter(self, voice, digits, rng, changed=changed)

    monkeypatch.setattr(example.Speech, "utter", record)
    small = example.Size(tests=2)
    monkeypatch.setattr(example, "Size", lambda: small)
    example.main(full=False, out=tmp_path, seed=0, steps=3, parts=["CD"])
    assert len(spoken) > 10 and not spoken & set(speech.held_out)


def test_a_string_has_the_words_in_order(speech: Any) -> None:
    rng = np.random.default_rng(0)
    string = speech.utter("flite slt", "31", rng, changed=False)
    three, one = ([take[:, :].mean(0) for take in speech.words["flite slt"][digit]] for digit in (3, 1))
    first, last = string[: len(string) // 2].mean(0), string[len(string) // 2 :].mean(0)

    def distance(part: Any, takes: Any) -> float:
        return min(float((part - part.mean() - take + take.mean()).norm()) for take in takes)

    assert distance(first, three) < distance(first, one)
    assert distance(last, one) < distance(last, three)
    changed = [len(speech.utter("flite slt", "31", np.random.default_rng(k), changed=True)) for k in range(8)]
    assert len(set(changed)) > 4


@pytest.mark.parametrize("parts", ["CLD", "LD", "CD", "CL", "D"])
def test_parts_are_left_out(example: Any, parts: str) -> None:
    model = example.CLDNN(32, 8, parts)
    names = {name.split(".")[0] for name, _ in model.named_parameters()}
    layers = {"C": "convolve", "L": "lstm", "D": "connect"}
    assert names == {"narrow", "classify", *(layers[part] for part in parts)}
    assert model(torch.rand(2, 12, 32)).shape == (2, 12 // example.SUBSAMPLE, example.ALPHABET.num_classes)


def test_reads_digits_of_voices_that_were_not_trained_on(tmp_path: Path) -> None:
    result = result_of("spoken_digits.py", tmp_path, "--parts", "CLD")
    errors = result["digit error rate"]["CLD"]
    held_out = {voice: errors[voice] for voice in result["held out"]}
    assert len(held_out) == 3
    assert sorted(held_out.values())[1] < 0.2  # two voices are like those of the training data
    assert max(held_out.values()) < 0.8  # a network that reads nothing has 1
    assert (tmp_path / "alignment.png").stat().st_size > 10_000
