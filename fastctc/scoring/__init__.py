"""Knowledge for a search as weighted automata: language models, lexicons, hotwords, regular expressions.

A sequence y of labels has the score ln P_CTC(y | x) + A(y), with A(y) the sum of the weights that scorers give it.

| knowledge | made by | the weight of y |
| --- | --- | --- |
| n-grams of tokens or words | :func:`read_arpa` | ln P(y), with backoff |
| hotwords, phrases | :func:`hotwords` | the bonuses of all occurrences |
| a format | :func:`regular_expression` | 0 if the expression matches, -inf if not |
| words, with a model of words | :class:`Lexicon`, :class:`LexiconScorer` | ln P(words), a bonus for each word |
| arcs of your own | :meth:`Automaton.from_arcs` | the weights of the arcs |
| anything in Python, such as a neural model | :class:`CallbackScorer` | the weights that it returns |

:func:`write_ngrams` estimates an n-gram model from texts. :func:`rescore` adds the scores of a model to the
hypotheses of a search.

:func:`brute_force_search` and :func:`beam_search_with_scorers` define what a search finds with them. They are slow.

>>> import torch
>>> from fastctc import Alphabet
>>> alphabet = Alphabet("act ")  # blank, a, c, t, space
>>> log_probs = torch.tensor(
...     [[0.1, 0.1, 0.8, 0.0, 0.0], [0.1, 0.8, 0.1, 0.0, 0.0], [0.1, 0.0, 0.5, 0.4, 0.0]]
... ).log()
>>> alphabet.decode(brute_force_search(log_probs, [])[0].tokens)
'cac'
>>> words = LexiconScorer(Lexicon.from_words(["act", "cat"], alphabet), separator=4)
>>> best = brute_force_search(log_probs, [words])[0]
>>> alphabet.decode(best.tokens), best.words
('cat', (('cat',),))
"""

from fastctc.scoring.automaton import OTHERWISE, REJECTED, Automaton
from fastctc.scoring.callback import CallbackScorer
from fastctc.scoring.estimate import write_ngrams
from fastctc.scoring.hotwords import hotwords
from fastctc.scoring.lexicon import Lexicon
from fastctc.scoring.lexicon_scorer import UNKNOWN_WORD, LexiconScorer
from fastctc.scoring.ngram import read_arpa
from fastctc.scoring.regular_expression import regular_expression
from fastctc.scoring.rescore import rescore
from fastctc.scoring.scorer import Arc, AutomatonScorer, End, Scorer
from fastctc.scoring.search_reference import Hypothesis, beam_search_with_scorers, brute_force_search

__all__ = [
    "OTHERWISE",
    "REJECTED",
    "UNKNOWN_WORD",
    "Arc",
    "Automaton",
    "AutomatonScorer",
    "CallbackScorer",
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
    "rescore",
    "write_ngrams",
]
