"""Reading under a constraint: what is allowed, and that the best of it is found."""

import math

import pytest
import torch

import fastctc
from fastctc.crnn.formulas import (
    CHARACTERS,
    FormulaConstraint,
    FormulaSource,
    all_expressions,
    evaluate,
    is_formula,
)
from fastctc.crnn.read import Decoder, Recognizer
from fastctc.text import Alphabet


class OneOf:
    """A list of words that never proposes one; ``listed`` lets all be scored."""

    def __init__(self, words, proposed=(), listed=True):
        self.words, self.proposed, self.listed = words, proposed, listed

    def candidates(self, nbest):
        return self.proposed

    def all_texts(self):
        return self.words if self.listed else None


def random_log_probs(batch: int, frames: int, classes: int, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return (scale * torch.randn(batch, frames, classes, generator=generator)).log_softmax(-1)


def exact(log_probs, length, text, alphabet) -> float:
    target = torch.tensor([alphabet.encode(text)], dtype=torch.int64)
    loss = fastctc.ctc_loss(
        log_probs[None, :length].transpose(0, 1), target, [length], [len(text)], alphabet.blank, "none"
    )
    return -float(loss)


@pytest.mark.parametrize("blank", [0, 3])
@pytest.mark.parametrize("proposed", [(), ("b", "abc"), ("b", "b", "xyz", "cab")])
def test_the_most_probable_word_is_found_whatever_is_proposed(blank, proposed):
    alphabet = Alphabet("abc", blank=blank)
    words = ["a", "b", "ab", "cab", "abc", "bbbb", "", "xyz"]
    log_probs, lengths = random_log_probs(9, 6, 4, 2.0), torch.tensor([6, 5, 4, 6, 2, 6, 1, 6, 6])
    found = Decoder(alphabet, constraint=OneOf(words, proposed), beam_size=2)(log_probs, lengths)
    for i, hypotheses in enumerate(found):
        length = int(lengths[i])
        scores = {word: exact(log_probs[i], length, word, alphabet) for word in words[:-1]}
        best = max(scores, key=scores.__getitem__)
        assert hypotheses[0].text == best
        assert hypotheses[0].log_prob == pytest.approx(scores[best], abs=1e-5)


def test_without_a_list_the_best_proposal_is_taken():
    alphabet = Alphabet("abc")
    log_probs, lengths = random_log_probs(2, 6, 4), torch.tensor([6, 2])
    constraint = OneOf([], ["ab", "aba", "xyz"], listed=False)
    first, second = Decoder(alphabet, constraint=constraint, nbest=5)(log_probs, lengths)
    scores = [exact(log_probs[0], 6, text, alphabet) for text in ("ab", "aba")]
    assert [h.log_prob for h in first] == pytest.approx(sorted(scores, reverse=True), abs=1e-5)
    assert [h.text for h in second] == ["ab"]  # "aba" does not fit into two frames
    nothing = Decoder(alphabet, constraint=OneOf([], listed=False))(log_probs, lengths)
    assert nothing == [[], []]


def test_texts_that_the_model_cannot_spell():
    with pytest.raises(ValueError, match="no allowed text is made of the model's characters 'abc'"):
        Decoder(Alphabet("abc"), constraint=FormulaConstraint())(random_log_probs(1, 9, 4), torch.tensor([9]))
    without_brackets = Alphabet("0123456789+-*=")
    (found,) = Decoder(without_brackets, constraint=FormulaConstraint())(
        random_log_probs(1, 9, 15), torch.tensor([9])
    )
    assert is_formula(found[0].text)


def test_noise_is_read_as_the_most_probable_of_all_formulas():
    alphabet = Alphabet(CHARACTERS)
    log_probs, lengths = random_log_probs(2, 12, 17, 2.0), torch.tensor([12, 7])
    everything = all_expressions() + [f"{each}={evaluate(each)}" for each in all_expressions()]
    targets = torch.tensor([token for text in everything for token in alphabet.encode(text)])
    found = Decoder(alphabet, constraint=FormulaConstraint(), beam_size=4, nbest=3)(log_probs, lengths)
    for i in range(2):
        losses = fastctc.ctc_loss(
            log_probs[i].unsqueeze(1).expand(-1, len(everything), -1), targets,
            lengths[i].expand(len(everything)), [len(text) for text in everything], reduction="none",
        )  # fmt: skip
        best = losses.topk(3, largest=False).indices.tolist()
        assert [h.text for h in found[i]] == [everything[k] for k in best]


def test_an_image_too_narrow_for_any_formula_has_no_reading():
    recognizer = Recognizer.load()
    narrow = torch.full((64, 8), 255, dtype=torch.uint8).numpy()
    image, text = FormulaSource(look="contest", renderer="captcha", seed=1, value="right")(0)
    first, second = recognizer.read([narrow, image], constraint=FormulaConstraint())
    assert first.error == "no allowed text has a probability above 0"
    assert (first.text, first.score, first.nbest) == ("", -math.inf, [])
    assert second.text == text and second.error is None


@pytest.mark.slow
def test_equations_that_hold_are_read_and_wrong_ones_never_as_drawn():
    recognizer = Recognizer.load()
    right = FormulaSource(look="contest", renderer="captcha", seed=20261124, value="right")
    samples = [right(i) for i in range(100)]
    readings = recognizer.read([image for image, _ in samples], constraint=FormulaConstraint())
    assert [reading.text for reading in readings] == [text for _, text in samples]
    wrong = FormulaSource(look="contest", renderer="captcha", seed=5, value="wrong")
    for index in range(4):
        image, text = wrong(index)
        (reading,) = recognizer.read([image], constraint=FormulaConstraint())
        assert reading.text != text and is_formula(reading.text)
