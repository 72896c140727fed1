"""Knowledge for a search as weighted automata: language models, lexicons, hotwords, regular expressions."""

from fastctc.scoring.automaton import OTHERWISE, REJECTED, Automaton
from fastctc.scoring.hotwords import hotwords
from fastctc.scoring.ngram import read_arpa
from fastctc.scoring.regular_expression import regular_expression

__all__ = ["OTHERWISE", "REJECTED", "Automaton", "hotwords", "read_arpa", "regular_expression"]
