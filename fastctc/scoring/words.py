"""Words with their places, from the tokens of a hypothesis and the words that its arcs complete."""

from __future__ import annotations

from collections.abc import Sequence

from fastctc.scoring.lexicon_scorer import LexiconScorer
from fastctc.text import Span, TextSpan, text_span

__all__ = ["spell_words"]


def spell_words(
    spans: Sequence[Span], words: Sequence[int], last_word: int, scorer: LexiconScorer, scale: float
) -> list[TextSpan]:
    """Return the words of one hypothesis.

    Args:
        spans: the tokens.
        words: the number of the word that each arc completes, or -1; it may be longer than ``spans``.
        last_word: the same of the end.
        scorer: the words, and the rule of their boundaries.
        scale: length of a frame.
    """
    numbers = [word for word in (*words[: len(spans)], last_word) if word >= 0]
    groups: list[list[Span]] = [[]]
    for span, word in zip(spans, words):
        if span.token == scorer.separator or span.token in scorer.word_begin:
            groups.append([])
        if span.token != scorer.separator:
            groups[-1].append(span)
        if not scorer.has_boundaries and word >= 0:
            groups.append([])
    groups = [group for group in groups if group]
    return [text_span(group, scorer.word(number), scale) for group, number in zip(groups, numbers)]
