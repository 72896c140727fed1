"""Counts of an evaluation."""

import math

import numpy as np
import pytest
import torch

from fastctc.crnn.data import PreprocessConfig, Samples, collect
from fastctc.crnn.formulas import FormulaSource
from fastctc.crnn.model import CRNN, Checkpoint, CRNNConfig
from fastctc.crnn.read import (
    Evaluation,
    Outcome,
    Recognizer,
    Share,
    edit_alignment,
    edit_distance,
    evaluate_samples,
)
from fastctc.text import Alphabet


@pytest.fixture(scope="module")
def shipped() -> Recognizer:
    return Recognizer.load()


@pytest.fixture(scope="module")
def samples(shipped) -> Samples:
    source = FormulaSource(look="contest", renderer="captcha", seed=77)
    return collect(source, range(40), shipped.checkpoint.preprocess)[0]


def outcome(right: str, read: str, score: float = -0.1, contrast: float = 0.12) -> Outcome:
    return Outcome("name", right, read, score, edit_distance(right, read), contrast)


def test_edit_distance():
    assert [edit_distance(a, b) for a, b in [("", ""), ("abc", ""), ("", "ab"), ("abc", "abc")]] == [
        0,
        3,
        2,
        0,
    ]
    assert [edit_distance(a, b) for a, b in [("kitten", "sitting"), ("1+2", "1-2"), ("12", "21")]] == [
        3,
        1,
        2,
    ]


def test_evaluation_counts():
    torch.manual_seed(1)
    recognizer = Recognizer(
        Checkpoint(CRNN(CRNNConfig(4, channels=4, hidden=8)), Alphabet("abc"), PreprocessConfig())
    )
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (32, width), dtype=np.uint8) for width in (60, 40, 33)]
    unread = Samples(images, ["", "", ""], ["x", "y", "z"])
    decoded = evaluate_samples(recognizer.model, unread, recognizer.alphabet, PreprocessConfig())
    texts = [one.read for one in decoded.outcomes]
    samples = Samples(images, [texts[0], texts[1] + "a", texts[2]], ["x", "y", "z"])
    recognizer.model.train()
    result = evaluate_samples(
        recognizer.model, samples, recognizer.alphabet, PreprocessConfig(), batch_size=2
    )
    assert recognizer.model.training
    recognizer.model.eval()
    assert (result.count, result.correct, result.edits) == (3, 2, 1)
    assert [one[:3] for one in result.mistakes] == [("y", texts[1] + "a", texts[1])]
    assert math.isnan(result.mistakes[0].contrast) and result.by_contrast() == {}
    assert result.characters == sum(map(len, samples.texts))
    assert "exact match 66.67% (2 of 3)" in result.summary()
    assert Evaluation().exact_match == 0


def test_groups():
    result = Evaluation(
        [
            outcome("1+2*3", "1+2*3", contrast=0.0),
            outcome("1+2*3=7", "1+2*3=7", contrast=0.15),
            outcome("1+2*3=7", "1+2*3=1", contrast=0.1999),
            outcome("1+2*3=8", "", contrast=0.5),
        ]
    )
    assert result.by_kind() == {"bare": Share(1, 1), "holds": Share(1, 2), "wrong": Share(0, 1)}
    assert result.by_length() == {5: Share(1, 1), 7: Share(1, 3)}
    assert result.by_contrast() == {0.0: Share(1, 1), 0.15: Share(1, 2), 0.5: Share(0, 1)}
    assert result.confusion()["7", "1"] == 1 and result.confusion()["8", ""] == 1
    assert (result.edits, result.characters) == (8, 26)
    result.outcomes.append(outcome("text", "text"))
    assert result.by_kind() == {"digits": Share(2, 4), "letters": Share(1, 1)}  # text of other kinds, too
    result.outcomes.append(outcome("", ""))
    assert result.by_kind() == {}


def test_alignment_is_one_of_fewest_edits():
    rng = np.random.default_rng(0)
    for _ in range(200):
        a, b = ("".join(rng.choice(list("ab1"), rng.integers(0, 7))) for _ in range(2))
        pairs = edit_alignment(a, b)
        assert "".join(x for x, _ in pairs) == a and "".join(y for _, y in pairs) == b
        assert ("", "") not in pairs
        row = list(range(len(b) + 1))  # Levenshtein's recursion, on its own
        for i, x in enumerate(a, start=1):
            diagonal, row[0] = row[0], i
            for j, y in enumerate(b, start=1):
                diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
        assert edit_distance(a, b) == row[-1]


def test_the_worst_come_first():
    result = Evaluation(
        [
            outcome("1", "1", score=-0.1),
            outcome("12", "1", score=-2.0),
            outcome("1", "1", score=-3.0),
            outcome("123", "1", score=-5.0),
            outcome("12", "1", score=-0.2),
        ]
    )
    assert result.worst() == [3, 4, 1, 2, 0]


def test_interval_of_a_share():
    assert Share(0, 0).interval() == (0, 1)
    low, high = Share(200, 200).interval()
    assert high == pytest.approx(1) and low == pytest.approx(0.9812, abs=1e-4)  # n / (n + 1.96 ** 2)


@pytest.mark.parametrize("beam_size", [None, 5])
def test_batch_size_does_not_change_the_figures(shipped, samples, beam_size):
    checkpoint = shipped.checkpoint
    decoder = shipped.decoder(beam_size=beam_size)
    one, other = (
        evaluate_samples(
            checkpoint.model,
            samples,
            checkpoint.alphabet,
            checkpoint.preprocess,
            batch_size=size,
            decoder=decoder,
        )
        for size in (7, 64)
    )
    assert one.figures() == other.figures()
    assert len(one.by_contrast()) > 1 and one.count == 40
