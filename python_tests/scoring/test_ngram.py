"""N-gram models from ARPA files: against the definition of backoff and KenLM, and malformed files."""

from __future__ import annotations

import gzip
import math
import random
from pathlib import Path

import pytest
import torch
from arpa_files import Ngrams, probability, random_model, sentence_probability, write_arpa

from fastctc import Alphabet, Automaton
from fastctc.scoring import read_arpa

WORDS = ["a", "b", "é", "don't", "<x>", "▁y"]
LN10 = math.log(10)
FLOAT32 = 1e-4  # of sums that contain ln(1e-100)


def labels(model: Automaton, words: list[str]) -> list[int]:
    assert model.symbols is not None
    unknown = model.symbols.index("<unk>")
    return [model.symbols.index(word) if word in model.symbols else unknown for word in words]


def sentences(seed: int, count: int) -> list[list[str]]:
    rng = random.Random(seed)
    return [rng.choices([*WORDS, "unseen"], k=rng.randint(0, 8)) for _ in range(count)]


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("seed", range(4))
def test_random_models_equal_the_definition(order: int, seed: int, tmp_path: Path) -> None:
    ngrams = random_model(seed, WORDS, order)
    path = write_arpa(tmp_path / "lm.arpa", ngrams, seed)
    for bos, eos in ((True, True), (False, True), (True, False), (False, False)):
        model = read_arpa(path, bos=bos, eos=eos)
        for words in sentences(seed, 10):
            expected = sentence_probability(ngrams, words, bos=bos, eos=eos) * LN10
            assert model.score(labels(model, words)) == pytest.approx(expected, abs=FLOAT32), words


def test_states_are_contexts_that_matter(tmp_path: Path) -> None:
    """A context without successors has a state only for its backoff weight."""
    ngrams: Ngrams = {
        ("<s>",): (-99, -0.1),
        ("</s>",): (-1, 0),
        ("a",): (-1, -0.5),
        ("b",): (-1, 0),
        ("c",): (-1, -0.25),
    }
    ngrams |= {("a", "b"): (-0.5, 0)}
    model = read_arpa(write_arpa(tmp_path / "lm.arpa", ngrams))
    assert model.num_states == 4  # no context, "<s>", "a", "c"
    assert model.num_arcs == 3 + 1 + 1  # a, b, c, <unk>, and b after a


def test_markers_have_no_arcs(tmp_path: Path) -> None:
    model = read_arpa(write_arpa(tmp_path / "lm.arpa", random_model(1, WORDS, 3)))
    assert model.symbols is not None
    for marker in ("<s>", "</s>"):
        assert model.score([model.symbols.index(marker)]) == -math.inf


def test_unknown_score(tmp_path: Path) -> None:
    for seed in (0, 1):  # without and with <unk>
        ngrams = random_model(seed, WORDS, 1)
        model = read_arpa(write_arpa(tmp_path / "lm.arpa", ngrams), unknown_score=-7.5)
        (unknown,) = labels(model, ["unseen"])
        expected = -7.5 + LN10 * probability(ngrams, [], "</s>")
        assert model.score([unknown]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_unknown_score_is_checked(score: float, tmp_path: Path) -> None:
    path = write_arpa(tmp_path / "lm.arpa", random_model(1, WORDS, 1))
    with pytest.raises(ValueError, match=f"unknown_score is {score}, expected a finite number or -inf"):
        read_arpa(path, unknown_score=score)


def test_an_order_without_ngrams(tmp_path: Path) -> None:
    path = tmp_path / "lm"
    path.write_text(GOOD.replace("ngram 2=1", "ngram 2=0").replace("-1\t<s> a\n", ""))
    assert read_arpa(path).score([2]) == pytest.approx(-3 * LN10)  # the backoff weight of <s>, a, </s>


TOKENS = [None, "a", "b", "b", "missing", "é", "</s>"]


@pytest.mark.parametrize("seed", range(6))
def test_models_over_tokens(seed: int, tmp_path: Path) -> None:
    """Two classes with one word, a class that the model lacks, and words that are no class."""
    ngrams = random_model(seed, WORDS, 3)
    model = read_arpa(write_arpa(tmp_path / "lm.arpa", ngrams), TOKENS)
    rng = random.Random(seed)
    for _ in range(30):
        y = rng.choices([1, 2, 3, 4, 5], k=rng.randint(0, 7))
        expected = sentence_probability(ngrams, [TOKENS[label] or "" for label in y]) * LN10
        assert model.score(y) == pytest.approx(expected, abs=FLOAT32), y
    for rejected in (0, 6, 7):
        assert model.score([1, rejected]) == -math.inf
    whole = read_arpa(tmp_path / "lm.arpa")
    assert model.num_states <= whole.num_states


def test_models_over_the_characters_of_an_alphabet(tmp_path: Path) -> None:
    ngrams = random_model(3, ["a", "b", "c"], 4)
    alphabet = Alphabet("cxab", blank=2)
    model = read_arpa(write_arpa(tmp_path / "lm.arpa", ngrams), alphabet)
    for text in ("", "abc", "abacabac", "xaxb"):
        expected = sentence_probability(ngrams, list(text)) * LN10
        assert model.score(alphabet.encode(text)) == pytest.approx(expected, abs=FLOAT32)
    assert model.score([alphabet.blank]) == -math.inf


def test_gzip_and_the_order_of_lines_give_equal_automata(tmp_path: Path) -> None:
    ngrams = random_model(5, WORDS, 4)
    first = write_arpa(tmp_path / "a.arpa", dict(sorted(ngrams.items())), 1)
    with gzip.open(tmp_path / "packed", "wb") as file:  # found by its content, not by its name
        file.write(first.read_bytes())
    assert read_arpa(tmp_path / "packed") == read_arpa(first)


def test_kenlm_gives_the_same_probabilities(tmp_path: Path) -> None:
    """Of 10,000 random sentences with unknown words, sentence by sentence and word by word."""
    kenlm = pytest.importorskip("kenlm")
    for seed, order in enumerate([2, 3, 3, 4, 6]):
        words = [f"w{i}" for i in range(40)]
        path = write_arpa(
            tmp_path / f"{seed}.arpa", random_model(2 * seed + 1, words, order, with_endings=True), seed
        )
        theirs, ours = kenlm.Model(str(path)), read_arpa(path)
        compare_with_kenlm(theirs, ours, [*words, "unseen", "other"], 2000, seed)


def compare_with_kenlm(theirs: object, ours: Automaton, words: list[str], count: int, seed: int) -> None:
    rng = random.Random(seed)
    longest = 12
    texts = [rng.choices(words, k=rng.randint(0, longest)) for _ in range(count)]
    assert ours.symbols is not None
    label_of = {word: label for label, word in enumerate(ours.symbols)}
    unknown = label_of["<unk>"]
    state = torch.full((count,), ours.start)
    by_word = []
    for i in range(longest):
        y = torch.tensor([label_of.get(text[i], unknown) if i < len(text) else -1 for text in texts])
        stepped, weight = ours.step(state, y.clamp(min=0))
        by_word.append(torch.where(y >= 0, weight, 0.0))
        state = torch.where(y >= 0, stepped, state)
    end = ours.final(state)
    for k, text in enumerate(texts):
        scores = [score for score, *_ in theirs.full_scores(" ".join(text))]  # type: ignore[attr-defined]
        got = [*(float(by_word[i][k]) / LN10 for i in range(len(text))), float(end[k]) / LN10]
        assert got == pytest.approx(scores, abs=1e-5), text
        assert sum(got) == pytest.approx(sum(scores), abs=1e-5), text


def test_missing_markers_are_named(tmp_path: Path) -> None:
    path = tmp_path / "lm.arpa"
    path.write_text("\\data\\\nngram 1=1\n\\1-grams:\n-1\ta\n\\end\\\n")
    with pytest.raises(ValueError, match=r"lm.arpa has no <s> among its 1-grams, expected one for bos=True"):
        read_arpa(path)
    with pytest.raises(ValueError, match=r"lm.arpa has no </s> among its 1-grams, expected one for eos=True"):
        read_arpa(path, bos=False)
    assert read_arpa(path, bos=False, eos=False).score([0]) == pytest.approx(-LN10)


UNIGRAMS = "\\1-grams:\n-1\t<s>\t-1\n-1\t</s>\n-1\ta\n\n"
GOOD = f"\\data\\\nngram 1=3\nngram 2=1\n\n{UNIGRAMS}\\2-grams:\n-1\t<s> a\n\n\\end\\\n"
MALFORMED = {
    "empty": ("", r"line 1: expected a line \\data\\, .*, got the end of the file"),
    "binary": (
        "mmap lm http://kheafield.com/code format version 5\n\0",
        "line 1: expected an ARPA file, .* a KenLM binary",
    ),
    "number": (GOOD.replace("-1\ta", "one\ta"), 'line 8: expected a log10 probability, got "one"'),
    "positive": (GOOD.replace("-1\ta", "1\ta"), 'line 8: expected a log10 probability of at most 0, got "1"'),
    "words": (GOOD.replace("<s> a", "a"), "line 11: expected 2 words after the probability"),
    "unknown": (GOOD.replace("<s> a", "<s> b"), 'line 11: expected words that are 1-grams, got "b"'),
    "count": (GOOD.replace("1=3", "1=4"), r"line 10: expected 4 1-grams \(line 2\), got 3"),
    "more": (GOOD.replace("1=3", "1=2"), r"line 8: expected \\2-grams: after 2 1-grams \(line 2\)"),
    "cut": (GOOD[:-8], r"line 1\d: expected \\end\\, got the end of the file"),
    "utf-8": (GOOD.replace("\ta", "\t\udcff"), r'line 8: expected a word in UTF-8, got "\\xff"'),
    "orders": (
        "\\data\\\n" + "".join(f"ngram {n}=1\n" for n in range(1, 8)),
        "line 8: expected no more than 6 orders",
    ),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("fault", MALFORMED)
def test_malformed_files_are_named_with_their_line(fault: str, packed: bool, tmp_path: Path) -> None:
    text, message = MALFORMED[fault]
    content = text.encode("utf-8", "surrogateescape")
    (tmp_path / "lm").write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(ValueError, match=f"lm, {message}"):
        read_arpa(tmp_path / "lm")


def test_damaged_gzip_files_are_named(tmp_path: Path) -> None:
    packed = gzip.compress(GOOD.encode())
    for content in (packed[:-10], packed[:5], packed[:20] + b"\xff" + packed[21:]):
        (tmp_path / "lm").write_bytes(content)
        with pytest.raises(ValueError, match="lm is a damaged gzip file"):
            read_arpa(tmp_path / "lm")


def test_tokens_of_another_kind_are_named(tmp_path: Path) -> None:
    path = tmp_path / "lm"
    path.write_text(GOOD)
    for tokens in ("abc", [1, 2]):
        with pytest.raises(TypeError, match="tokens must be an Alphabet or a sequence of a str or None"):
            read_arpa(path, tokens)  # type: ignore[arg-type]
