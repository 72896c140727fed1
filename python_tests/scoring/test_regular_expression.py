"""Regular expressions against Python's re.fullmatch."""

from __future__ import annotations

import itertools
import re

import pytest
from automata import quick_score
from hypothesis import given, settings
from hypothesis import strategies as st

from fastctc import Alphabet, Automaton
from fastctc.scoring import OTHERWISE, AutomatonScorer, regular_expression

ALPHABET = Alphabet("ab1 -]", blank=2)
TEXTS = ["".join(each) for n in range(5) for each in itertools.product(ALPHABET.characters, repeat=n)]

ELEMENTS = [
    "a",
    "b",
    "1",
    "c",
    "-",
    " ",
    ".",
    "[ab]",
    "[^a]",
    "[a-c1]",
    r"[\d\-]",
    "[]a]",
    "[^]]",
    r"\d",
    r"\W",
    r"\s",
]
ELEMENTS += [r"\-", r"\]", "]", r"\x61", "()", "(?:|a)", "{", "a{b}"]
QUANTIFIERS = ["*", "+", "?", "{2}", "{1,}", "{,2}", "{1,3}", "{0}", "{,}"]
patterns = st.recursive(
    st.sampled_from(ELEMENTS),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"({'|'.join(parts)})"),
        st.tuples(inner, st.sampled_from(QUANTIFIERS)).map(lambda pair: f"(?:{pair[0]}){pair[1]}"),
    ),
    max_leaves=8,
)


def accepts(automaton: Automaton | AutomatonScorer, labels: list[int]) -> bool:
    scorer = automaton if isinstance(automaton, AutomatonScorer) else AutomatonScorer(automaton)
    score = quick_score(scorer, labels)
    assert score in (0.0, float("-inf"))
    return score == 0.0


@settings(max_examples=150)
@given(pattern=patterns, texts=st.lists(st.text(ALPHABET.characters, max_size=8), max_size=30))
def test_random_expressions_equal_python(pattern: str, texts: list[str]) -> None:
    compiled = re.compile(pattern)
    texts = [*texts, *TEXTS[:: 1 + len(pattern) % 37 * 2]][:60]
    try:
        scorer = AutomatonScorer(regular_expression(pattern, ALPHABET))
    except ValueError as error:
        assert "matches no sequence of tokens" in str(error)
        assert not any(compiled.fullmatch(text) for text in TEXTS)
        return
    for text in texts:
        assert accepts(scorer, ALPHABET.encode(text)) == bool(compiled.fullmatch(text)), (pattern, text)


@pytest.mark.parametrize(
    ("pattern", "states"),
    [
        ("a*", 1),
        ("(a|b)*", 1),
        ("a{3}", 4),
        ("(aa)*", 2),
        ("(a|b)*a(a|b){2}", 8),
        ("aa|aa|a(a|a)", 3),
        ("a?a?a?", 4),
    ],
)
def test_the_automaton_is_the_smallest(pattern: str, states: int) -> None:
    assert regular_expression(pattern, Alphabet("ab")).num_states == states


def test_expressions_of_one_language_give_one_automaton() -> None:
    made = [
        regular_expression(p, ALPHABET)
        for p in ("(a|b)*", "[ab]*", "(a*b*)*", "(|a|b|(a|b)+)", "[^1 \\-\\]]*")
    ]
    assert all(each == made[0] for each in made)


def test_long_counts_are_fast() -> None:
    automaton = regular_expression("[ab]{3000}", Alphabet("ab"))
    assert automaton.num_states == 3001


def test_tokens_of_several_characters() -> None:
    """The expression is about the text, however it is cut into tokens."""
    tokens = [None, "a", "ab", "b", "▁", "1", "", "aba"]
    pattern = "(ab)+▁?1*"
    automaton = regular_expression(pattern, tokens)
    used = [label for label, token in enumerate(tokens) if token]
    for n in range(4):
        for labels in itertools.product(used, repeat=n):
            text = "".join(tokens[label] or "" for label in labels)
            assert accepts(automaton, list(labels)) == bool(re.fullmatch(pattern, text)), text
    for rejected in (0, 6, 8):  # the blank, an empty token, no class
        assert not accepts(automaton, [1, rejected, 3])


def test_most_tokens_share_an_arc() -> None:
    """`.` over a large vocabulary does not need an arc for each token."""
    tokens = [None, *(chr(0x4E00 + i) for i in range(5000)), "x"]
    automaton = regular_expression("[^x]*x", tokens)
    assert automaton.num_arcs < 10
    assert OTHERWISE in automaton.label.tolist()
    assert accepts(automaton, [7, 4000, 5001])
    assert not accepts(automaton, [7, 0, 5001])
    assert not accepts(automaton, [5001, 5001])


def test_expressions_over_tokens() -> None:
    tokens = ["<b>", "HH", "AH", "EH", "L", "a.b", "|"]

    def matches(pattern: str, *names: str) -> bool:
        return accepts(
            regular_expression(pattern, tokens, unit="token"), [tokens.index(name) for name in names]
        )

    assert matches("HH (AH | EH) L", "HH", "EH", "L")
    assert matches("(HH[AH EH]L)+", *["HH", "AH", "L"] * 3)
    assert not matches("HH AH L", "HH", "EH", "L")
    assert matches("[^HH AH]{2} .", "L", "EH", "HH")
    assert not matches("[^HH AH]{2} .", "L", "AH", "HH")
    assert matches(r"a\.b \|?", "a.b", "|")
    assert matches("HH*", "HH", "HH")


UNSUPPORTED = {
    "^a": "position 0: the anchor ^ is not supported",
    "a$": "position 1: the anchor $ is not supported",
    "a*?": "position 2: ? after *; lazy, possessive and repeated quantifiers are not supported",
    "a{2}{3}": "position 4: { after {2}; lazy",
    "*a": "position 0: * with nothing before it",
    "a|*": "position 2: * with nothing before it",
    "(?=a)": "position 1: a group that begins with (? is only supported as (?:",
    "(?P<n>a)": "position 1: a group that begins with (?",
    r"(a)\1": "position 3: the escape \\1 is not supported",
    r"\ba": "position 0: the escape \\b is not supported",
    "a\\": "position 1: the escape \\ is not supported",
    "(a": "position 0: a ( without its )",
    "a)": "position 1: a ) without its (",
    "[a": "position 0: a [ without its ]",
    "[b-a]": "position 0: [b-a]: bad character range b-a",
    "a{3,2}": "position 1: {3,2} is no range of counts",
    "a{1000000}": "position 1: {1000000} is no range of counts",
    "(" * 200 + ")" * 200: "more than 100 groups in groups",
    "(((((a{9}){9}){9}){9}){9}){9}": "needs an automaton of more than",
    "(a|b)*a(a|b){40}": "needs an automaton of more than 10000 states, expected at most max_states",
    "c": "matches no sequence of tokens",
}


@pytest.mark.parametrize("pattern", UNSUPPORTED, ids=lambda pattern: pattern[:20])
def test_what_is_not_supported_is_named(pattern: str) -> None:
    with pytest.raises(ValueError) as error:
        regular_expression(pattern, ALPHABET)
    assert UNSUPPORTED[pattern] in str(error.value)
    assert repr(pattern) in str(error.value) or "needs an automaton" in str(error.value)


def test_max_states() -> None:
    with pytest.raises(ValueError, match="more than 50 states"):
        regular_expression("a{100}", ALPHABET, max_states=50)
    assert regular_expression("a{40}", ALPHABET, max_states=50).num_states == 41


def test_faults_of_arguments_are_named() -> None:
    with pytest.raises(TypeError, match="pattern must be a str, got int"):
        regular_expression(3, ALPHABET)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_states is 0, expected an int of at least 1"):
        regular_expression("a", ALPHABET, max_states=0)
    with pytest.raises(TypeError, match="tokens must be an Alphabet or a sequence"):
        regular_expression("a", "abc")
    with pytest.raises(ValueError, match="unit is 'word', expected"):
        regular_expression("a", ALPHABET, unit="word")
    with pytest.raises(ValueError, match="position 3: there is no token 'QQ'"):
        regular_expression("HH QQ", ["HH"], unit="token")
