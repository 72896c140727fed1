"""Whether fastctc's search for words is right, and how good the hypotheses of a peer are by fastctc's measure."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

import fastctc
from fastctc.scoring import LexiconScorer, beam_search_with_scorers
from word_cases import Case, Words
from word_decoders import Fastctc, Weights

BEAM = 8  # of the comparison with the reference, whose time grows with beam, frames and classes
FRAMES = 200  # that the reference does at most
TOLERANCE = 1e-6  # of a score, relatively and absolutely


def exact_log_prob(log_probs: Tensor, tokens: list[int], blank: int) -> float:
    """Return ln P(tokens | x) of log-probabilities (T, C) over all paths, in float64."""
    targets = torch.tensor([tokens], dtype=torch.int64)
    lengths = [len(log_probs)], [len(tokens)]
    loss = fastctc.ctc_loss(log_probs.double()[:, None], targets, *lengths, blank=blank, reduction="none")
    return -float(loss)


def model_weight(scorer: LexiconScorer, words: list[str]) -> float:
    """Return the weight of words of the lexicon by the model alone, with the bonus of each."""
    number = {word: i for i, word in enumerate(scorer.lexicon.words)}
    labels = scorer.model_label[[number[word] for word in words]].tolist() if words else []
    return float(scorer.model.score(labels)) + len(words) * scorer.word_bonus


def near(a: float, b: float) -> bool:
    return a == b or abs(a - b) <= TOLERANCE * (1 + abs(b))


def unlike_reference(case: Case, scorer: LexiconScorer) -> list[str]:
    """Return the faults of the n-best of the shortest utterance, compared with the plain reference."""
    log_probs = min(case.utterances, key=len)[:FRAMES]
    expected = beam_search_with_scorers(log_probs, [scorer], beam_size=BEAM, blank=case.blank)
    found: Any = fastctc.beam_search(log_probs, beam_size=BEAM, nbest=BEAM, blank=case.blank, scorer=scorer)
    if not expected:  # flagged hypotheses, all with the score -inf
        return ["a hypothesis is rejected at its end and has a score"] if found.to_list() else []
    words = [[word.text for word in each] for each in found.to_words(scorer)]
    same = [tuple(tokens) for tokens in found.to_list()] == [each.tokens for each in expected]
    wrong = []
    if not same or words != [list(each.words[0]) for each in expected]:
        wrong.append(f"the n-best of {len(log_probs)} frames is not the reference's")
    elif not all(map(near, found.scores.tolist(), [each.score for each in expected])):
        wrong.append(f"the scores of {len(log_probs)} frames are not the reference's")
    return wrong


def faults(ours: Fastctc, case: Case, weights: Weights, quick: bool) -> list[str]:
    """Return the faults of fastctc's best hypotheses."""
    scorer = ours.scorer(weights)
    wrong = unlike_reference(case, scorer)
    batch = ours.prepare(case.utterances[: 2 if quick else None])
    found: Any = fastctc.beam_search(*batch, beam_size=BEAM, blank=case.blank, scorer=scorer)
    for n, (hypotheses, texts) in enumerate(zip(found.to_list(), found.to_words(scorer), strict=True)):
        if not hypotheses:
            continue
        words = [word.text for word in texts[0]]
        score, acoustic, model = (
            float(each[n, 0]) for each in (found.scores, found.acoustic_scores, found.model_scores)
        )
        exact = exact_log_prob(case.utterances[n], hypotheses[0], case.blank)
        if not near(model, model_weight(scorer, words)):
            wrong.append(f"utterance {n} has the model score {model}, expected {model_weight(scorer, words)}")
        if acoustic > exact + TOLERANCE * (1 + abs(exact)):
            wrong.append(f"utterance {n} has the acoustic score {acoustic}, but ln P is {exact}")
        if not near(score, acoustic + model):
            wrong.append(f"utterance {n} has the score {score}, expected {acoustic + model}")
    return wrong


def objective(case: Case, scorer: LexiconScorer, number: int, words: list[str]) -> float:
    """Return ln P(y | x) + A(y) of the words of an utterance, where a separator follows each word.

    A word that the lexicon lacks, and more tokens than frames, give -inf.
    """
    assert case.separator is not None
    if not set(words) <= case.lexicon.keys():
        return -math.inf
    tokens: list[int] = []
    for word in words:
        tokens += [*case.lexicon[word][0], case.separator]
    return exact_log_prob(case.utterances[number], tokens, case.blank) + model_weight(scorer, words)


def margin(ours: Fastctc, case: Case, beam: int, weights: Weights, theirs: Words) -> dict[str, Any]:
    """Return how much better fastctc's words are than a peer's by the score of the peer's weights.

    Returns:
        The mean of score differences in nats, over the utterances with a finite score on both sides; how often
        fastctc's score is lower; and how often the peer's words are not in the lexicon.
    """
    scorer = ours.scorer(weights)
    found = ours.tune(beam, weights)(ours.prepare(case.utterances))
    pairs = [
        (objective(case, scorer, n, a), objective(case, scorer, n, b))
        for n, (a, b) in enumerate(zip(found, theirs, strict=True))
    ]
    both = [a - b for a, b in pairs if math.isfinite(a) and math.isfinite(b)]
    return {
        "score_margin": sum(both) / len(both) if both else math.nan,
        "lower": sum(difference < -TOLERANCE for difference in both),
        "not_in_lexicon": sum(b == -math.inf for _, b in pairs),
    }
