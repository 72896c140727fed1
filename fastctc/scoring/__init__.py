"""Knowledge for a search as weighted automata: language models, lexicons, hotwords, regular expressions."""

from fastctc.scoring.automaton import OTHERWISE, REJECTED, Automaton
from fastctc.scoring.ngram import read_arpa

__all__ = ["OTHERWISE", "REJECTED", "Automaton", "read_arpa"]
