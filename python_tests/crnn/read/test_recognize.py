"""Readings do not depend on the batch, and scores are probabilities."""

import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image

from fastctc.crnn import FormulaSource
from fastctc.crnn.data import PreprocessConfig, prepare
from fastctc.crnn.model import CRNN, Checkpoint, CRNNConfig, folded, save_checkpoint
from fastctc.crnn.read import Recognizer, infer, inference
from fastctc.crnn.read.decoding import greedy_hypotheses, greedy_texts
from fastctc.text import Alphabet


@pytest.fixture(scope="module", params=[0, 3], ids=["blank first", "blank last"])
def recognizer(request) -> Recognizer:
    torch.manual_seed(1)
    alphabet = Alphabet("abc", blank=request.param)
    model = CRNN(CRNNConfig(4, channels=4, hidden=8)).eval()
    with torch.no_grad():
        model.classify.weight.mul_(8)  # an untrained model that has opinions
        model.classify.bias[request.param] -= 8
    return Recognizer(Checkpoint(model, alphabet, PreprocessConfig()))


def pictures(widths: list[int]) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (32, w), dtype=np.uint8)) for w in widths]


def test_batching_does_not_change_a_reading(recognizer):
    images = pictures([96, 20, 1, 300, 33, 64, 96])
    alone = [recognizer.read([image])[0] for image in images]
    assert any(reading.text for reading in alone)
    for batch_size in (1, 2, 7, 64):
        for one, other in zip(alone, recognizer.read(images, batch_size), strict=True):
            assert one.text == other.text
            assert math.isclose(one.score, other.score, abs_tol=1e-3)


def test_images_of_similar_widths_go_through_the_model_together():
    widths = np.random.default_rng(1).integers(1, 600, 200).tolist() + [5000, 9, 7000]
    groups = inference._groups(widths, 2048, "cpu")
    assert sorted(n for group in groups for n in group) == list(range(len(widths)))
    assert [group for group in groups if max(widths[n] for n in group) > 2048] == [[202], [200]]
    padding = [sum(widths[group[0]] - widths[n] for n in group) for group in groups]
    assert max(padding) <= 128 and len(groups) < len(widths) / 2
    assert inference._groups([7, 300, 8], 2048, "cuda") == [[1, 2, 0]]  # a GPU prefers one batch
    assert inference._groups([64] * 5, 2048, "cpu") == [[0, 1, 2, 3, 4]]


def test_images_of_all_widths_take_few_shapes():
    model = folded(CRNN(CRNNConfig(4, channels=4, hidden=8)).eval())
    direct, shapes = model.direct, set()

    def noted(x, widths):
        shapes.add(x.shape)
        return direct(x, widths)

    model.direct = noted
    images = [prepare(image, PreprocessConfig()).pixels for image in pictures(list(range(1, 129)))]
    alone = [inference.infer(model, [image], PreprocessConfig())[0][0] for image in images]
    assert shapes == {(1, 1, 32, width) for width in range(16, 129, 16)}
    model.direct = None
    for image, log_probs in zip(images, alone, strict=True):
        expected, lengths = inference.infer(model, [image], PreprocessConfig())
        torch.testing.assert_close(log_probs[: lengths[0]], expected[0], atol=1e-4, rtol=1e-4)


def test_bad_images_are_reported_in_their_place(recognizer, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"junk")
    good = pictures([40])[0]
    readings = recognizer.read([tmp_path / "bad.png", good, b"", tmp_path / "none.png"])
    assert [reading.error is None for reading in readings] == [False, True, False, False]
    assert readings[0].text == "" and readings[0].score == -math.inf and readings[0].nbest == []
    assert "not a readable image" in readings[0].error and readings[3].error == "no such file"
    assert readings[1] == recognizer.read([good])[0]
    assert recognizer.read([]) == []


def test_the_score_is_the_probability_over_all_alignments(recognizer):
    image = prepare(pictures([16])[0], PreprocessConfig()).pixels
    log_probs, lengths = infer(recognizer.model, [image], PreprocessConfig())
    (hypotheses,) = greedy_hypotheses(log_probs, lengths, recognizer.alphabet)
    total = 0.0
    for path in itertools.product(range(4), repeat=int(lengths[0])):
        labels = [label for label, _ in itertools.groupby(path) if label != recognizer.alphabet.blank]
        if recognizer.alphabet.decode(labels) == hypotheses[0].text:
            total += math.exp(sum(log_probs[0, t, label].item() for t, label in enumerate(path)))
    assert hypotheses[0].log_prob == pytest.approx(math.log(total), abs=1e-4)
    assert greedy_texts(log_probs, lengths, recognizer.alphabet) == [hypotheses[0].text]


def test_from_checkpoint(recognizer, tmp_path):
    save_checkpoint(recognizer.checkpoint, tmp_path / "a.safetensors")
    loaded = Recognizer.load(tmp_path / "a.safetensors")
    image = pictures([80])
    assert loaded.read(image)[0].score == pytest.approx(recognizer.read(image)[0].score, abs=0.1)


def test_beam_search_finds_at_least_as_much_and_more_of_it(recognizer):
    images = pictures([96, 20, 64])
    greedy = recognizer.read(images)
    found = recognizer.read(images, beam_size=16, nbest=4)
    for one, other in zip(greedy, found, strict=True):
        assert other.score >= one.score - 1e-4
        assert len(other.nbest) == 4 and other.nbest[0].text == other.text
        assert [h.log_prob for h in other.nbest] == sorted((h.log_prob for h in other.nbest), reverse=True)
        assert len({h.text for h in other.nbest}) == 4
        assert sum(math.exp(h.log_prob) for h in other.nbest) <= 1 + 1e-4
    assert recognizer.read(images, 1, beam_size=16)[1].text == found[1].text


def test_options_out_of_range(recognizer):
    for options, message in [
        ({"nbest": 2}, "nbest is 2, but greedy decoding has one hypothesis"),
        ({"nbest": 0}, "nbest is 0, expected 1 to beam_size, which is 1"),
        ({"nbest": 9, "beam_size": 8}, "nbest is 9, expected 1 to beam_size, which is 8"),
        ({"beam_size": 0}, "beam_size is 0, expected at least 1"),
        ({"batch_size": 0}, "batch_size is 0, expected at least 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            recognizer.read_stream([], **options)


@pytest.mark.skipif(not inference._has_bf16(), reason="this processor cannot compute in bfloat16")
def test_bf16_reads_the_same_texts():
    """Scores of drawn formulas differ by less than 0.1, their confidence by less than 0.03."""
    shipped, low = Recognizer.load("formula"), Recognizer.load("formula", precision="bf16")
    source = FormulaSource(seed=3, renderer="captcha")
    images = [source(i)[0] for i in range(24)]
    for one, other in zip(shipped.read(images), low.read(images), strict=True):
        assert one.text == other.text and one.score != other.score
        assert abs(one.score - other.score) < 0.1 and abs(one.confidence - other.confidence) < 0.03
    wide = pictures([3000])  # in tiles
    assert math.isclose(low.read(wide)[0].score, shipped.read(wide)[0].score, rel_tol=0.2)


def test_precisions_that_cannot_be_used(recognizer, monkeypatch):
    with pytest.raises(ValueError, match="precision is 'int8', expected one of fp32, bf16"):
        Recognizer(recognizer.checkpoint, precision="int8")
    monkeypatch.setattr(inference, "_has_bf16", lambda: False)
    with pytest.raises(
        ValueError, match="precision is 'bf16', which this processor cannot compute: use 'fp32'"
    ):
        Recognizer(recognizer.checkpoint, precision="bf16")


def test_words_are_read_with_a_model_of_their_language():
    """The model of language decides where the image does not; what is given replaces it."""
    recognizer = Recognizer.load("words")
    assert Recognizer.load("formula").scorer is None and recognizer.scorer is not None
    for own in (recognizer, Recognizer.load("words", ignore_case=True)):
        classes = own.alphabet.num_classes
        known, unknown = (own.alphabet.encode(text) for text in ("station", "qtxkvwj"))
        assert own.scorer.score(known) > own.scorer.score(unknown) + 3
        assert own.decoder().beam_size == 20 and own.decoder(scorer=()).beam_size is None
        even = torch.full((1, 9, classes), -math.log(classes))  # nothing is seen
        with_model, without = (own.decoder(scorer=each, beam_size=4) for each in (None, ()))
        assert with_model(even, torch.tensor([9]))[0][0].model_score != 0
        assert without(even, torch.tensor([9]))[0][0].model_score == 0
    nothing = recognizer.read(np.full((64, 200), 255, np.uint8))
    assert nothing.text == "" and nothing.confidence > 0.5
