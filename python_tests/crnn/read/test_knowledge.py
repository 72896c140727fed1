"""Reading with scorers: a format, a lexicon, a model of language, hotwords; from files and beside a constraint."""

import gzip
import itertools
import math
import re

import pytest
import torch

import fastctc
from fastctc.crnn.data import VisualAlphabet
from fastctc.crnn.read import Decoder, scorers_from_files
from fastctc.scoring import CallbackScorer, LexiconScorer, hotwords
from fastctc.text import Alphabet

ALPHABET = Alphabet("ab ", blank=1)
NO_SPACE = Alphabet("abc")
FRAMES = 5


class OneOf:
    def __init__(self, words, listed=True):
        self.words, self.listed = words, listed

    def candidates(self, nbest):
        return [text for text in nbest if text in self.words]

    def all_texts(self):
        return self.words if self.listed else None


def log_probs(alphabet: Alphabet, seed: int = 0, batch: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, FRAMES, alphabet.num_classes, generator=generator).log_softmax(-1)


def expected(frames: torch.Tensor, alphabet: Alphabet, weight) -> list[tuple[str, float, float]]:
    """Return (text, ln P, weight) of all texts, the best first; `weight` returns None where a text is rejected."""
    texts = ["".join(c) for k in range(FRAMES + 1) for c in itertools.product(alphabet.characters, repeat=k)]
    found = []
    for text in texts:
        target = torch.tensor([alphabet.encode(text)], dtype=torch.int64)
        loss = fastctc.ctc_loss(
            frames[:, None], target, [FRAMES], [len(text)], blank=alphabet.blank, reduction="none"
        )
        if math.isfinite(float(loss)) and weight(text) is not None:
            found.append((text, -float(loss), weight(text)))
    return sorted(found, key=lambda each: -(each[1] + each[2]))


def assert_reads(alphabet: Alphabet, scorer, weight, constraint=None, nbest: int = 8) -> None:
    """Check that a decoder with room in its beam finds the best of all texts, with their scores."""
    decoder = Decoder(alphabet, beam_size=400, nbest=nbest, scorer=scorer, constraint=constraint)
    frames = log_probs(alphabet)
    for one, found in zip(frames, decoder(frames, torch.tensor([FRAMES] * len(frames))), strict=True):
        wanted = expected(one, alphabet, weight)
        assert [each.text for each in found] == [text for text, _, _ in wanted[:nbest]]
        assert len(found) == min(nbest, len(wanted)) > 0
        for each, (_, log_prob, model) in zip(found, wanted, strict=False):
            assert each.log_prob == pytest.approx(log_prob, abs=1e-4)
            assert each.model_score == pytest.approx(model, abs=1e-4)
            assert each.score == each.log_prob + each.model_score


def write(path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_regular_expression():
    pattern = r"b?(a |b)*"
    scorers = scorers_from_files(ALPHABET, pattern=pattern)
    assert_reads(ALPHABET, scorers, lambda text: 0.0 if re.fullmatch(pattern, text) else None)


def test_hotwords_have_a_bonus_of_their_own_or_the_default(tmp_path):
    path = write(tmp_path / "hot.txt", "ab 2.5\n\nba\n")
    scorers = scorers_from_files(ALPHABET, hotwords_file=path)
    bonus = {"ab": 2.5, "ba": 5.0}
    assert_reads(ALPHABET, scorers, lambda text: sum(bonus.get(word, 0.0) for word in text.split(" ")))


def test_hotwords_count_everywhere_where_there_is_no_space(tmp_path):
    path = write(tmp_path / "hot.txt", "ab\t-2\nc 0.5\n")

    def weight(text: str) -> float:
        return -2 * text.count("ab") + 0.5 * text.count("c")

    assert_reads(NO_SPACE, scorers_from_files(NO_SPACE, hotwords_file=path), weight)


def test_phrases_and_numbers_are_hotwords(tmp_path):
    alphabet = Alphabet("12 ")
    path = write(tmp_path / "hot.txt", "\ufeff1 1 2.5\n2 1\t1\n12\n")
    bonus = {"1 1": 2.5, "2 1": 1.0, "12": 5.0}

    def weight(text: str) -> float:
        padded = f" {text} "
        starts = range(len(padded))
        return sum(b for p, b in bonus.items() for i in starts if padded.startswith(f" {p} ", i))

    assert_reads(alphabet, scorers_from_files(alphabet, hotwords_file=path), weight)


def test_a_lexicon_allows_words_with_spaces_between_them(tmp_path):
    path = write(tmp_path / "words.txt", "ab\nb\n\nb\naa\n")
    scorers = scorers_from_files(ALPHABET, lexicon=path, word_bonus=0.75)

    def weight(text: str) -> float | None:
        words = text.split()
        return 0.75 * len(words) if set(words) <= {"ab", "b", "aa"} else None

    assert_reads(ALPHABET, scorers, weight)


def test_a_lexicon_allows_one_word_or_none_where_there_is_no_space(tmp_path):
    path = write(tmp_path / "words.txt", "ab\nb\ncab\n")
    scorers = scorers_from_files(NO_SPACE, lexicon=path, word_bonus=0.5)
    weights = {"": 0.0, "ab": 0.5, "b": 0.5, "cab": 0.5}
    assert_reads(NO_SPACE, scorers, weights.get)


ARPA = r"""
\data\
ngram 1=5
ngram 2=4

\1-grams:
-99	<s>	-0.2
-0.9	</s>
-0.4	a	-0.3
-0.7	{b}	-0.1
-1.5	<unk>

\2-grams:
-0.2	<s> {b}
-0.1	a {b}
-0.3	{b} </s>
-0.6	{b} {b}

\end\
"""


def probability(words: list[str], b: str) -> float:
    """Return ln P of the words by the model above."""
    unigrams = {"</s>": -0.9, "a": -0.4, b: -0.7}
    bigrams = {("<s>", b): -0.2, ("a", b): -0.1, (b, "</s>"): -0.3, (b, b): -0.6}
    backoffs = {"<s>": -0.2, "a": -0.3, b: -0.1}
    total, before = 0.0, "<s>"
    for word in [*words, "</s>"]:
        known = word if word in unigrams else "<unk>"
        total += bigrams.get((before, known), backoffs.get(before, 0.0) + unigrams.get(known, -1.5))
        before = known
    return total * math.log(10)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_model_of_words(tmp_path, compressed):
    text = ARPA.format(b="ba")
    path = tmp_path / "lm.arpa"
    path.write_bytes(gzip.compress(text.encode()) if compressed else text.encode())
    words = write(tmp_path / "words.txt", "a\nba\nbb\n")
    scorers = scorers_from_files(ALPHABET, lexicon=words, lm=path, lm_weight=0.5, word_bonus=1.0)

    def weight(text: str) -> float | None:
        found = text.split()
        if not set(found) <= {"a", "ba", "bb"}:
            return None
        return 0.5 * probability(found, "ba") + len(found)

    assert_reads(ALPHABET, scorers, weight)


@pytest.mark.parametrize("space", ["<space>", "▁", "|", "_"])
def test_a_model_of_characters(tmp_path, space):
    path = write(tmp_path / "lm.arpa", ARPA.format(b=space))
    scorers = scorers_from_files(ALPHABET, lm=path, lm_weight=0.5)

    def weight(text: str) -> float:
        return 0.5 * probability([space if c == " " else c for c in text], space)

    assert_reads(ALPHABET, scorers, weight)


def test_all_together(tmp_path):
    words = write(tmp_path / "words.txt", "ab\nb\naa\n")
    hot = write(tmp_path / "hot.txt", "aa 3")
    scorers = scorers_from_files(ALPHABET, pattern=r".*b", lexicon=words, hotwords_file=hot, word_bonus=-0.5)
    assert len(scorers) == 3

    def weight(text: str) -> float | None:
        found = text.split()
        if not text.endswith("b") or not set(found) <= {"ab", "b", "aa"}:
            return None
        return -0.5 * len(found) + 3 * found.count("aa")

    assert_reads(ALPHABET, scorers, weight)


def test_a_model_in_python():
    def step(last: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return tokens, torch.where(last == tokens, -1.0, -0.25)

    def weight(text: str) -> float:
        return sum(-1.0 if a == b else -0.25 for a, b in zip(f"^{text}", text, strict=False))

    assert_reads(ALPHABET, CallbackScorer(torch.tensor(-1), step), weight)


def test_a_constraint_beside_a_scorer():
    words, bonus = ["ab", "ba", "b", "bb b"], hotwords({"b": 1.5}, ALPHABET)
    assert_reads(ALPHABET, bonus, lambda text: 1.5 * text.count("b") if text in words else None, OneOf(words))
    with pytest.raises(
        ValueError, match="constraint does not list its texts, which is needed beside a scorer"
    ):
        Decoder(ALPHABET, constraint=OneOf(words, listed=False), scorer=bonus)


def test_no_allowed_text_in_the_beam_is_explained():
    decoder = Decoder(ALPHABET, beam_size=1, scorer=scorers_from_files(ALPHABET, pattern="a{5}"))
    frames = log_probs(ALPHABET)[:, :2]
    assert decoder(frames, torch.tensor([2, 2, 2])) == [[], [], []]
    assert decoder.why_no_hypothesis(frames[0]) == (
        "no allowed text is among the 1 of the beam: a larger beam may find one"
    )


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("lexicon", "ab\nax\n", r"file, line 2: character 'x' at position 1 of 'ax' is not in the alphabet 'ab '"),
        ("lexicon", "ab\n\na b\n", "file, line 3: expected one word, got 'a b'"),
        ("lexicon", "\n \n", "file has no word, expected one in each line"),
        ("hotwords_file", "ab 2\nx\n", "file, line 2: character 'x' at position 0"),
        ("hotwords_file", "ab\tx\n", "file, line 1: expected a finite number behind the tab, got 'x'"),
        ("hotwords_file", "ab\tinf\n", "file, line 1: expected a finite number behind the tab, got 'inf'"),
        ("hotwords_file", "ab 2\nb\nab\n", "file, line 3: 'ab' is there twice, expected each word once"),
        ("hotwords_file", "", "file has no word, expected one in each line"),
        ("lm", "ngram\n", r"file, line 2: expected a line \\data\\"),
        ("lm", ARPA.replace("a\t", "the\t").replace("a ", "the ").format(b="cat"),
         "file has none of the model's characters 'ab ' among its 1-grams: a model of words needs a lexicon"),
    ],
)  # fmt: skip
def test_errors_of_files(name, content, message, tmp_path):
    path = write(tmp_path / "file", content)
    with pytest.raises(ValueError, match=message):
        scorers_from_files(ALPHABET, **{name: path})


@pytest.mark.parametrize("name", ["lexicon", "hotwords_file", "lm"])
def test_files_that_are_not_there_or_no_text(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.txt: no such file"):
        scorers_from_files(ALPHABET, **{name: tmp_path / "none.txt"})
    (tmp_path / "binary").write_bytes(b"a\xff\xfe\n")
    with pytest.raises(ValueError, match="binary"):
        scorers_from_files(ALPHABET, **{name: tmp_path / "binary"})


def test_options_without_the_file_that_they_are_about():
    with pytest.raises(ValueError, match="lm_weight is given without lm"):
        scorers_from_files(ALPHABET, lm_weight=0.5)
    with pytest.raises(ValueError, match="word_bonus is given without lexicon"):
        scorers_from_files(ALPHABET, word_bonus=0.5)


def test_a_model_that_reads_from_right_to_left(tmp_path):
    pytest.importorskip("bidi")
    alphabet = VisualAlphabet("אב ")
    path = write(tmp_path / "words.txt", "אב\n")
    (scorer,) = scorers_from_files(alphabet, lexicon=path)
    assert isinstance(scorer, LexiconScorer)
    assert scorer.lexicon.label.tolist() == alphabet.encode("אב") == [2, 1]
    for name in ("pattern", "lm"):
        with pytest.raises(ValueError, match=f"{name} is given, but the model reads from right to left"):
            scorers_from_files(alphabet, **{name: path})
