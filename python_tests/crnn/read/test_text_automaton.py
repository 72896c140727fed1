"""The automaton of a list of texts accepts these and no others, and is the smallest one."""

import itertools
import random
import re

import pytest

from fastctc.crnn.formulas import CHARACTERS, FormulaConstraint, holds, is_formula
from fastctc.crnn.read.constraint import text_list
from fastctc.crnn.read.grammar import automaton_of_texts
from fastctc.scoring import Automaton, AutomatonScorer, regular_expression
from fastctc.text import Alphabet


def accepted(automaton: Automaton) -> list[tuple[int, ...]]:
    """Return all sequences that an automaton without circles accepts with the weight 0."""
    first, labels, targets = (
        getattr(automaton, name).tolist() for name in ("first_arc", "label", "next_state")
    )
    found, open_ = [], [(automaton.start, ())]
    while open_:
        state, sequence = open_.pop()
        if float(automaton.final_weight[state]) == 0:
            found.append(sequence)
        open_ += [(targets[a], (*sequence, labels[a])) for a in range(first[state], first[state + 1])]
    return found


@pytest.mark.parametrize("seed", range(30))
def test_random_lists(seed):
    rng, alphabet = random.Random(seed), Alphabet("abc", blank=seed % 4)
    texts = tuple({"".join(rng.choices("abc", k=rng.randint(0, 5))) for _ in range(1 + seed)})
    automaton = automaton_of_texts(texts, alphabet)
    assert sorted(accepted(automaton)) == sorted(tuple(alphabet.encode(text)) for text in texts)
    if "" not in texts:
        smallest = regular_expression("|".join(map(re.escape, texts)), alphabet)
        assert automaton.num_states == smallest.num_states
    for shuffled in itertools.islice(itertools.permutations(texts), 3):
        assert automaton_of_texts(shuffled, alphabet) == automaton


def test_formulas():
    alphabet = Alphabet(CHARACTERS)
    texts = FormulaConstraint().all_texts()
    automaton = automaton_of_texts(texts, alphabet)
    assert len(accepted(automaton)) == len(set(texts)) == 54_000
    assert automaton.num_states < 3000
    scorer, rng = AutomatonScorer(automaton), random.Random(0)
    for text in rng.sample(texts, 300):
        changed = list(text)
        changed[rng.randrange(len(text))] = rng.choice(CHARACTERS)
        changed = "".join(changed)
        allowed = holds(changed) or (is_formula(changed) and "=" not in changed)
        state = scorer.begin()
        for label in alphabet.encode(changed):
            state = scorer.step(state, label)[0] if state >= 0 else -1
        assert (state >= 0 and scorer.final_weight[state] == 0) == allowed, changed


def test_a_list_is_built_once():
    alphabet = Alphabet(CHARACTERS)
    assert FormulaConstraint().all_texts() is FormulaConstraint().all_texts()
    assert text_list(FormulaConstraint(), alphabet) is text_list(FormulaConstraint(), Alphabet(CHARACTERS))
