"""Knowledge for a search as weighted automata: language models, lexicons, hotwords, regular expressions."""

from fastctc.scoring.automaton import OTHERWISE, REJECTED, Automaton
from fastctc.scoring.hotwords import hotwords
from fastctc.scoring.lexicon import Lexicon
from fastctc.scoring.lexicon_scorer import UNKNOWN_WORD, LexiconScorer
from fastctc.scoring.ngram import read_arpa
from fastctc.scoring.regular_expression import regular_expression
from fastctc.scoring.scorer import Arc, AutomatonScorer, End, Scorer
from fastctc.scoring.search_reference import Hypothesis, beam_search_with_scorers, brute_force_search

__all__ = [
    "OTHERWISE",
    "REJECTED",
    "UNKNOWN_WORD",
    "Arc",
    "Automaton",
    "AutomatonScorer",
    "End",
    "Hypothesis",
    "Lexicon",
    "LexiconScorer",
    "Scorer",
    "beam_search_with_scorers",
    "brute_force_search",
    "hotwords",
    "read_arpa",
    "regular_expression",
]
