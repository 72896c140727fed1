"""Lexicons, and their composition with word models: against an enumeration of all word sequences."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from arpa_files import Ngrams, random_model, sentence_probability, write_arpa
from automata import sequences

from fastctc import Alphabet, Automaton
from fastctc.scoring import UNKNOWN_WORD, Lexicon, LexiconScorer, Scorer, read_arpa

WORDS = ["one", "won", "two", "too", "absent"]
LN10 = math.log(10)

Entries = list[tuple[str, tuple[int, ...], float]]
Weighed = dict[tuple[str, ...], float]


def random_entries(seed: int, labels: Sequence[int], longest: int = 3) -> Entries:
    """Return spellings with homophones, words with several, and words that begin others."""
    rng = random.Random(seed)
    spellings = [tuple(rng.choices(labels, k=rng.randint(1, longest))) for _ in range(4)]
    spellings.append((*spellings[0], rng.choice(labels)))
    return [(word, rng.choice(spellings), rng.randint(-4, 2) / 4) for word in [*WORDS, *WORDS[:2]]]


def weighed(scorer: Scorer, sequence: Sequence[int]) -> Weighed:
    """Return the words of each way to take the labels, with its weight."""
    ways = [(scorer.begin(), 0.0, ())]
    for label in sequence:
        ways = [
            (arc.state, weight + arc.weight, (*words, *arc.words))
            for state, weight, words in ways
            for arc in scorer.arcs(state, label)
        ]
    found: Weighed = {}
    for state, weight, words in ways:
        for end in scorer.ends(state):
            key = (*words, *end.words)
            assert key not in found or scorer.separator is None  # type: ignore[attr-defined]
            found[key] = max(weight + end.weight, found.get(key, -math.inf))
    return found


def pieces(y: Sequence[int], separator: int | None, begin: set[int]) -> Iterator[list[tuple[int, ...]]]:
    """Yield each way to cut labels into the spellings of words."""
    if separator is not None:
        yield [tuple(part) for is_gap, part in itertools.groupby(y, lambda c: c == separator) if not is_gap]
    elif begin:
        cuts = [i for i, label in enumerate(y) if i == 0 or label in begin]
        yield [tuple(y[a:b]) for a, b in zip(cuts, [*cuts[1:], len(y)])]
    else:
        for cut in itertools.product([False, True], repeat=max(len(y) - 1, 0)):
            cuts = [0, *(i + 1 for i, here in enumerate(cut) if here)]
            yield [tuple(y[a:b]) for a, b in zip(cuts, [*cuts[1:], len(y)])] if y else []


def expected(
    y: Sequence[int],
    entries: Entries,
    ngrams: Ngrams | None,
    *,
    lm_weight: float,
    word_bonus: float,
    separator: int | None = None,
    word_begin: set[int] = frozenset(),  # type: ignore[assignment]
    unknown_word: float | None = None,
) -> Weighed:
    """Return the weight of each word sequence that the labels spell, by the definition."""
    best = {}
    for word, labels, weight in entries:
        best[labels, word] = max(weight, best.get((labels, word), -math.inf))
    found: Weighed = {}
    for parts in pieces(y, separator, word_begin):
        choices = []
        for part in parts:
            words = [(word, weight) for (labels, word), weight in best.items() if labels == part]
            if not words and unknown_word is not None:
                words = [(UNKNOWN_WORD, unknown_word)]
            choices.append(words)
        for chosen in itertools.product(*choices):
            words = tuple(word for word, _ in chosen)
            total = sum(weight + word_bonus for _, weight in chosen)
            if ngrams is not None:
                total += lm_weight * LN10 * sentence_probability(ngrams, words)
            found[words] = max(total, found.get(words, -math.inf))
    return found


BOUNDARIES = {
    "separator": {"separator": 4},
    "separator and unknown words": {"separator": 4, "unknown_word": -1.5},
    "word begin": {"word_begin": {1, 3}},
    "word begin and unknown words": {"word_begin": {1, 3}, "unknown_word": -1.5},
    "none": {},
}


@pytest.mark.parametrize("look_ahead", [True, False])
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("seed", range(4))
def test_weights_equal_the_enumeration_of_words(
    seed: int, boundary: str, look_ahead: bool, tmp_path: Path
) -> None:
    """All labelings up to a length, so finished sequences do not depend on look-ahead."""
    options = BOUNDARIES[boundary]
    entries = random_entries(seed, [1, 2, 3])
    ngrams = random_model(2 * seed + 1, [word for word in WORDS if word != "absent"], 3)
    model = read_arpa(write_arpa(tmp_path / "lm.arpa", ngrams))
    weights = {"lm_weight": 0.75, "word_bonus": 0.5}
    for lm, definition in ((model, ngrams), (None, None)):
        scorer = LexiconScorer(Lexicon(entries), lm, **weights, **options, look_ahead=look_ahead)
        several = 0
        for y in sequences([1, 2, 3, 4], 4):
            found = weighed(scorer, y)
            assert found == pytest.approx(expected(y, entries, definition, **weights, **options), abs=1e-5), y
            several += len(found) > 1
        assert several > 0, "no homophones"


def test_look_ahead_bounds_the_words_below() -> None:
    """Before a word is complete, its weight by unigrams is known as well as its beginning allows."""
    lexicon = Lexicon([("ab", [1, 2], 0.0), ("ac", [1, 3], -0.5), ("d", [4], 0.0), ("never", [4, 5], 0.0)])
    values = torch.tensor([-3.0, -1.0, -2.0, -math.inf])  # of the words in order
    assert lexicon.words == ("ab", "ac", "d", "never")
    found = lexicon.look_ahead(values)
    #  the root, 1, 4, 1 2, 1 3, 4 5
    assert found.tolist() == [0.0, -1.5, -2.0, -3.0, -1.5, -2.0]


@pytest.mark.parametrize("seed", range(20))
def test_the_trie_holds_the_entries(seed: int) -> None:
    entries = random_entries(seed, range(6), longest=5)
    lexicon = Lexicon(entries)
    spelled = {0: ()}
    first = lexicon.first_arc.tolist()
    for node in range(lexicon.num_nodes):
        children = lexicon.label[first[node] : first[node + 1]].tolist()
        assert children == sorted(set(children))
        spelled.update({first[node] + i + 1: (*spelled[node], label) for i, label in enumerate(children)})
    ends = lexicon.first_end.tolist()
    found = {
        (lexicon.words[lexicon.word[i]], spelled[node], float(lexicon.weight[i]))
        for node in range(lexicon.num_nodes)
        for i in range(ends[node], ends[node + 1])
    }
    best = {
        (word, labels): max(w for a, b, w in entries if (a, b) == (word, labels))
        for word, labels, _ in entries
    }
    assert found == {(*key, weight) for key, weight in best.items()}
    assert Lexicon(entries[::-1]) == lexicon
    assert Lexicon([*entries, ("more", (0,), 0.0)]) != lexicon


@pytest.mark.parametrize("seed", range(3))
def test_copies_are_equal(seed: int) -> None:
    lexicon = Lexicon(random_entries(seed, range(6)))
    assert pickle.loads(pickle.dumps(lexicon)) == lexicon
    assert copy.deepcopy(lexicon) == lexicon
    assert lexicon != "lexicon"


def test_from_words() -> None:
    alphabet = Alphabet("ant", blank=0)
    assert Lexicon.from_words(["an", "tan"], alphabet) == Lexicon([("an", [1, 2]), ("tan", [3, 1, 2])])
    pieces = {"an": [7], "tan": [3, 7]}
    assert Lexicon.from_words(["an", "tan"], pieces.__getitem__) == Lexicon([("an", [7]), ("tan", [3, 7])])
    with pytest.raises(ValueError, match="character 'x' at position 1 of 'ax' is not in the alphabet"):
        Lexicon.from_words(["ax"], alphabet)


def test_from_file(tmp_path: Path) -> None:
    path = tmp_path / "words.dict"
    path.write_text(
        ";;; made by hand\nread R IY D\nread(2)  R EH D\n\nred R EH D\n(paren) R\n", encoding="utf-8"
    )
    tokens = [None, "R", "IY", "EH", "D"]
    entries = [("read", [1, 2, 4]), ("read", [1, 3, 4]), ("red", [1, 3, 4]), ("(paren)", [1])]
    assert Lexicon.from_file(path, tokens) == Lexicon(entries)
    for line, message in (
        ("word", "expected a word and its tokens, got 'word'"),
        ("a R X", "names of tokens, got 'X'"),
    ):
        path.write_text(f"read R\n{line}\n", encoding="utf-8")
        with pytest.raises(ValueError, match=rf"words.dict, line 2: .*{message}"):
            Lexicon.from_file(path, tokens)


FAULTS = {
    "no entries": ([], "entries is empty, expected at least one word"),
    "no word": ([("", [1])], r"entries\[0\] has the word '', expected a str without blanks"),
    "blank": ([("a", [1]), ("a b", [1])], r"entries\[1\] has the word 'a b', expected a str without blanks"),
    "no labels": ([("a", [])], r"entries\[0\] spells 'a' as \(\), expected one label or more"),
    "negative": (
        [("a", [1, -1])],
        r"entries\[0\] spells 'a' as \(1, -1\), expected one label or more, each at least 0",
    ),
    "nan": ([("a", [1], math.nan)], r"entries\[0\] has the weight nan, expected a finite number"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_entries_are_named(fault: str) -> None:
    entries, message = FAULTS[fault]
    with pytest.raises(ValueError, match=message):
        Lexicon(entries)  # type: ignore[arg-type]


def test_faults_of_options_are_named() -> None:
    lexicon = Lexicon([("a", [1, 2])])
    with pytest.raises(ValueError, match="separator and word_begin are both given"):
        LexiconScorer(lexicon, separator=3, word_begin=[1])
    with pytest.raises(ValueError, match="unknown_word needs separator or word_begin"):
        LexiconScorer(lexicon, unknown_word=-1.0)
    with pytest.raises(ValueError, match="separator is 2, which is part of a spelling"):
        LexiconScorer(lexicon, separator=2)
    for name in ("lm_weight", "word_bonus", "unknown_word"):
        with pytest.raises(ValueError, match=f"{name} is nan, expected a finite number"):
            LexiconScorer(lexicon, separator=3, **{name: math.nan})
    with pytest.raises(ValueError, match=r"lm_weight is -1.0, expected a finite number of at least 0"):
        LexiconScorer(lexicon, lm_weight=-1.0)
    for symbols, message in ((None, "model has no symbols"), (["a"], "model has no <unk> among its symbols")):
        with pytest.raises(ValueError, match=message):
            LexiconScorer(lexicon, Automaton.from_arcs([], {0: 0.0}, symbols=symbols))
