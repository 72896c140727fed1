"""Estimated n-gram models: against the definition, as distributions, and their files."""

from __future__ import annotations

import gzip
import math
import random
from collections import Counter
from pathlib import Path

import pytest
import torch

from fastctc import Alphabet
from fastctc.scoring import read_arpa, write_ngrams

ROUNDED = 2e-3  # sums of numbers that the file has with four digits


def texts_of(seed: int, count: int = 30) -> list[str]:
    rng = random.Random(seed)
    return ["".join(rng.choices("ab c", (5, 3, 1, 1), k=rng.randint(0, 7))) for _ in range(count)]


class Definition:
    """Witten and Bell's interpolated model by its formula, with n-grams left out that are too rare."""

    def __init__(self, texts: list[str], order: int, min_count: int) -> None:
        self.texts = [("<s>", *text, "</s>") for text in texts]
        self.order, self.min_count = order, min_count
        self.types = len({token for text in self.texts for token in text})  # <unk> in the place of <s>
        grams = [
            text[i : i + n]
            for text in self.texts
            for n in range(1, order + 1)
            for i in range(len(text) - n + 1)
        ]
        self.counts = Counter(gram for gram in grams if gram != ("<s>",))
        self.after: dict[tuple[str, ...], dict[str, int]] = {}
        for gram, count in self.counts.items():
            self.after.setdefault(gram[:-1], {})[gram[-1]] = count

    def probability(self, context: tuple[str, ...], word: str) -> float:
        context = context[len(context) - self.order + 1 :] if len(context) >= self.order else context
        after = self.after.get(context, {})
        lower = self.probability(context[1:], word) if context else 1 / self.types
        if not after or (len(context) > 2 and self.counts[context] < self.min_count):
            return lower
        total = sum(after.values()) + len(after)
        kept = {w: c for w, c in after.items() if len(context) < 2 or c >= self.min_count}
        return (kept.get(word, 0) + (total - sum(kept.values())) * lower) / total

    def score(self, text: str) -> float:
        tokens = ("<s>", *text, "</s>")
        return sum(math.log(self.probability(tokens[:i], tokens[i])) for i in range(1, len(tokens)))


@pytest.mark.parametrize("min_count", [1, 2, 5])
@pytest.mark.parametrize("order", [1, 2, 3, 4, 6])
def test_models_equal_the_definition(order: int, min_count: int, tmp_path: Path) -> None:
    for seed in range(3):
        texts = texts_of(seed)
        write_ngrams(tmp_path / "lm.arpa", texts, order=order, min_count=min_count)
        alphabet = Alphabet("abc d")  # the d is unknown
        space = [None if c == "" else "<space>" if c == " " else c for c in ["", *alphabet.characters]]
        model = read_arpa(tmp_path / "lm.arpa", space)
        right = Definition(texts, order, min_count)
        for text in [*texts_of(seed + 100), *texts, "abc", "d", "abdba", "ccc"]:
            assert model.score(alphabet.encode(text)) == pytest.approx(right.score(text), abs=ROUNDED), text


@pytest.mark.parametrize("min_count", [1, 3])
def test_probabilities_after_each_context_add_up_to_one(min_count: int, tmp_path: Path) -> None:
    write_ngrams(tmp_path / "lm.arpa", texts_of(7, 200), order=4, min_count=min_count)
    model = read_arpa(tmp_path / "lm.arpa")
    states = torch.arange(model.num_states).repeat_interleave(len(model.symbols or ()))
    labels = torch.arange(len(model.symbols or ())).repeat(model.num_states)
    _, weights = model.step(states, labels)
    total = weights.reshape(model.num_states, -1).exp().sum(1)
    ends = torch.arange(model.num_states)
    assert torch.allclose(total + model.final(ends).exp(), torch.ones(()).double(), atol=ROUNDED)


def test_min_count_makes_the_file_smaller_and_equal_texts_give_equal_bytes(tmp_path: Path) -> None:
    texts = texts_of(3, 500)
    for name, least in (("a.arpa.gz", 1), ("b.arpa.gz", 1), ("c.arpa.gz", 4)):
        write_ngrams(tmp_path / name, iter(texts), min_count=least)
    first, second, smaller = (gzip.decompress((tmp_path / f"{n}.arpa.gz").read_bytes()) for n in "abc")
    assert (tmp_path / "a.arpa.gz").read_bytes() == (tmp_path / "b.arpa.gz").read_bytes()
    assert first == second and len(smaller) < len(first)
    write_ngrams(tmp_path / "plain.arpa", texts)
    assert (tmp_path / "plain.arpa").read_bytes() == first


def test_tokens_may_be_words(tmp_path: Path) -> None:
    write_ngrams(tmp_path / "lm.arpa", [["the", "cat"], ["the", "dog"], []], order=2)
    model = read_arpa(tmp_path / "lm.arpa", ["the", "cat", "dog"])
    assert model.score([0, 1]) == pytest.approx(model.score([0, 2]))
    assert model.score([0, 1]) > model.score([1, 0])


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        (["a"], {"order": 0}, "order is 0, expected 1 to 6"),
        (["a"], {"order": 7}, "order is 7, expected 1 to 6"),
        (["a"], {"min_count": 0}, "min_count is 0, expected at least 1"),
        ([], {}, "texts is empty, expected at least one text"),
        (["a\tb"], {}, r"texts has the token '\\t', expected tokens without white space"),
        ([["a b"]], {}, "texts has the token 'a b', expected"),
        ([["a", ""]], {}, "texts has the token '', expected"),
        ([["<unk>"]], {}, "texts has the token '<unk>', expected"),
        ([["<s>"]], {}, "texts has the token '<s>', expected"),
        ([["<space>", " "]], {}, "texts has the token '<space>', expected"),
    ],
)
def test_what_cannot_be_estimated(texts, options, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        write_ngrams(tmp_path / "lm.arpa", texts, **options)
    assert not list(tmp_path.iterdir())
