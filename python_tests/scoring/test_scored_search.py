"""Beam search with scorers: against enumeration, against the reference search, and in all its forms."""

from __future__ import annotations

import copy
import math
import pickle
import random
from pathlib import Path

import pytest
import torch
from automata import random_automaton
from beams import random_log_probs
from conftest import Device
from scorers import BOUNDARIES, Case, accepted, keys, random_case, random_lexicon_scorer, reference_keys
from torch import Tensor

import fastctc
from fastctc import Alphabet, Automaton, ScoredResult
from fastctc.scoring import (
    AutomatonScorer,
    Lexicon,
    LexiconScorer,
    beam_search_with_scorers,
    brute_force_search,
    hotwords,
    regular_expression,
)

CASES = 60  # of each kind

kinds = pytest.mark.parametrize("kind", ["", *BOUNDARIES], ids=["automata", *BOUNDARIES])


def search(case: Case, device: Device, beam_size: int, **options: object) -> ScoredResult:
    scorers = [each.to(device.torch) for each in case.scorers]
    result = fastctc.beam_search(
        case.x.to(device.torch), beam_size=beam_size, blank=case.blank, scorer=scorers, **options
    )
    assert isinstance(result, ScoredResult)
    return result.cpu()


@pytest.mark.slow_emulated
@kinds
def test_all_labelings_equal_enumeration(kind: str, device: Device, tmp_path: Path) -> None:
    """Every labeling and every sequence of arcs, with both parts of its score."""
    several = rejected = 0
    for seed in range(CASES):
        case = random_case(seed, kind, tmp_path, longest=4)
        expected = brute_force_search(case.x, case.references, case.blank)
        room = max(len(expected), 1)
        widest = 1024 if device.runs_cuda_kernels else 2000
        found = search(case, device, beam_size=min(2 * 5 ** len(case.x), widest), nbest=room)
        rejected += not expected
        several += len({each.tokens for each in expected}) < len(expected)
        assert accepted(found) == len(expected)
        if not expected:
            continue
        order = dict(zip(reference_keys(expected, case.scorers), expected))
        assert set(order) == set(keys(found, case.scorers))
        columns = (found.scores, found.acoustic_scores, found.model_scores)
        for key, *values in zip(keys(found, case.scorers), *(each.tolist() for each in columns)):
            one = order[key]
            assert values == pytest.approx([one.score, one.acoustic, one.weight], abs=1e-9), seed
    if kind in ("separator", "none"):
        assert several > 5, "no homophones"
    assert rejected > 0


@pytest.mark.slow_emulated
@kinds
def test_small_beams_equal_the_reference(kind: str, device: Device, tmp_path: Path) -> None:
    """The order of ties counts, too."""
    for seed in range(CASES):
        case = random_case(seed, kind, tmp_path, longest=8)
        beam_size = 1 + seed % 9
        expected = beam_search_with_scorers(case.x, case.references, beam_size=beam_size, blank=case.blank)
        found = search(case, device, beam_size=beam_size, nbest=beam_size)
        best = reference_keys(expected, case.scorers)[:beam_size]
        assert keys(found, case.scorers)[: len(best)] == best, seed
        scores = [each.score for each in expected[:beam_size]]
        assert found.scores[: len(best)].tolist() == pytest.approx(scores, abs=1e-9)
        assert accepted(found) == len(best)


def test_long_rows_equal_the_reference(device: Device) -> None:
    """More tokens than are listed for all prefixes, arcs of improbable ones, labels that the input lacks."""
    changed = 0
    for seed in range(24):
        rng = random.Random(seed)
        classes, beam_size, frames = (
            rng.choice([70, 130, 300]),
            rng.choice([1, 2, 5, 12]),
            rng.randint(1, 4),
        )
        x = random_log_probs(1, frames, classes, seed=seed)[0]
        x = (x * rng.choice([0.02, 1.0, 3.0])).log_softmax(-1).to(rng.choice([torch.float32, torch.float64]))
        if seed % 3 == 0:
            x = (x * 2).round() / 2
        scorers = [
            random_automaton(
                3 * seed + i,
                range(1, classes + 9),
                states=rng.randint(1, 6),
                density=rng.choice([0.01, 0.1, 0.6]),
            )
            for i in range(rng.randint(1, 3))
        ]
        expected = beam_search_with_scorers(
            x.double(), [AutomatonScorer(each) for each in scorers], beam_size=beam_size
        )
        found = fastctc.beam_search(
            x.to(device.torch),
            beam_size=beam_size,
            nbest=beam_size,
            scorer=[each.to(device.torch) for each in scorers],
        ).cpu()
        plain = fastctc.beam_search(x, beam_size=beam_size, nbest=beam_size)
        assert accepted(found) == len(expected)
        assert [tuple(each) for each in found.to_list()][: len(expected)] == [
            each.tokens for each in expected
        ]
        assert found.scores[: len(expected)].tolist() == pytest.approx(
            [each.score for each in expected], rel=1e-5, abs=1e-5
        )
        changed += bool(expected) and plain.to_list()[0] != list(expected[0].tokens)
    assert changed > 6


@kinds
def test_chunks_equal_the_whole(kind: str, device: Device, tmp_path: Path) -> None:
    """Results in between, which end the stream for the scorer, change nothing."""
    for seed in range(CASES // 4):
        case = random_case(seed, kind, tmp_path, longest=12)
        whole = search(case, device, beam_size=7, nbest=5)
        decoder = fastctc.BeamSearchDecoder(
            beam_size=7,
            nbest=5,
            blank=case.blank,
            device=device.torch,
            scorer=[each.to(device.torch) for each in case.scorers],
        )
        rng = random.Random(seed)
        rest = case.x.to(device.torch)
        while len(rest):
            size = rng.randint(1, 4)
            decoder.push(rest[:size])
            rest = rest[size:]
            if rng.random() < 0.3:
                decoder.result()
            if rng.random() < 0.3:
                decoder = copy.deepcopy(decoder)
        if len(case.x):
            assert_same(decoder.result().sample(0).cpu(), whole)


def assert_same(one: ScoredResult, other: ScoredResult) -> None:
    for name, a, b in zip(ScoredResult._fields, one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True, msg=name)


@kinds
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_batches_equal_samples(kind: str, dtype: torch.dtype, device: Device, tmp_path: Path) -> None:
    """The bits of a sample do not depend on the batch, its padding, its layout and the number of threads."""
    case = random_case(3, kind, tmp_path)
    classes = case.x.shape[1]
    x = random_log_probs(5, 12, classes, seed=1).to(dtype).to(device.torch)
    lengths = [12, 0, 7, 1, 9]
    options = {"beam_size": 9, "nbest": 4, "blank": case.blank, "from_logits": True}
    options["scorer"] = [each.to(device.torch) for each in case.scorers]
    whole = fastctc.beam_search(x, lengths, **options)
    assert whole.scores.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert_same(fastctc.beam_search(x, lengths, **options), whole)
    finally:
        torch.set_num_threads(threads)
    turned = x.transpose(0, 1).contiguous()
    assert_same(fastctc.beam_search(turned, lengths, time_major=True, **options), whole)
    for n, length in enumerate(lengths):
        alone = fastctc.beam_search(x[n, :length], **options)
        padded = ScoredResult(*(each[n][..., :length] if each.dim() == 3 else each[n] for each in whole))
        assert_same(alone, padded)


@pytest.mark.parametrize("beam_size", [1, 31, 33, 64, 300])
@kinds
def test_the_best_of_a_larger_beam_scores_no_less_than_its_paths(
    kind: str, beam_size: int, device: Device, tmp_path: Path
) -> None:
    """Scores are sums of both parts, sorted, above the best path's, and below the exact ones."""
    case = random_case(5, kind, tmp_path)
    x = random_log_probs(20, case.x.shape[1], seed=2)
    case = case._replace(x=x)
    found = search(case, device, beam_size=beam_size, nbest=min(beam_size, 8))
    exact = search(case, device, beam_size=beam_size, nbest=min(beam_size, 8), exact_scores=True)
    count = accepted(found)
    assert count == accepted(exact)
    for each in (found, exact):
        both = each.acoustic_scores + each.model_scores
        torch.testing.assert_close(each.scores[:count], both[:count], rtol=0, atol=1e-12)
        assert each.scores[:count].tolist() == sorted(each.scores[:count].tolist(), reverse=True)
        assert bool((each.path_scores <= each.acoustic_scores + 1e-9)[:count].all())
    acoustics = dict(zip(keys(found, case.scorers), found.acoustic_scores.tolist()))
    for key, value in zip(keys(exact, case.scorers), exact.acoustic_scores.tolist()):
        losses = fastctc.ctc_loss(
            x,
            torch.tensor([key[0]], dtype=torch.int64),
            [20],
            [len(key[0])],
            blank=case.blank,
            reduction="none",
        )
        assert value == pytest.approx(-float(losses), abs=1e-9)
        assert acoustics[key] <= value + 1e-9


def test_a_scorer_without_weights_changes_nothing(device: Device) -> None:
    """The tokens, times and confidences of the plain search."""
    anything = Automaton.from_arcs([(0, -1, 0, 0.0)], {0: 0.0}).to(device.torch)
    for seed in range(10):
        x = random_log_probs(3, 30, 12, seed=seed).to(device.torch)
        plain = fastctc.beam_search(x, beam_size=10, nbest=10)
        weighed = fastctc.beam_search(x, beam_size=10, nbest=10, scorer=anything)
        for name, one, other in zip(plain._fields, plain, weighed):
            torch.testing.assert_close(one, other, rtol=0, atol=0, msg=name)
        assert bool((weighed.model_scores == 0).all()) and bool((weighed.words == -1).all())


def test_a_hotword_rescues_what_acoustics_would_cut(device: Device) -> None:
    """Bounds hold for weights above 0: the bonus of a whole word counts where its first letter is improbable."""
    alphabet = Alphabet("abcdefgh")
    x = torch.full((9, 9), -9.0)
    for t, c in enumerate([1, 0, 2, 0, 3, 0, 4, 0, 5]):
        x[t, c] = 0
    x = x.log_softmax(-1).to(device.torch)
    found = fastctc.beam_search(x, beam_size=2, scorer=hotwords({"hbcde": 30.0}, alphabet).to(device.torch))
    assert found.to_text(alphabet) == ["hbcde"]
    assert float(found.model_scores[0]) == pytest.approx(30.0)
    assert float(found.acoustic_scores[0]) == pytest.approx(-9.0, abs=0.1)
    assert fastctc.beam_search(x, beam_size=2).to_text(alphabet) == ["abcde"]


def test_a_grammar_that_nothing_matches_is_flagged(device: Device) -> None:
    """The hypotheses of the beam come with the score -inf where none is accepted, and only there."""
    alphabet = Alphabet("ab")
    x = random_log_probs(2, 2, 3, seed=0).to(device.torch)
    long = regular_expression("aaaa", alphabet).to(device.torch)
    found = fastctc.beam_search(x, beam_size=4, nbest=3, scorer=long)
    assert bool((found.scores == -math.inf).all()) and bool((found.model_scores == -math.inf).all())
    assert sorted(found.lengths[0].tolist(), reverse=True) == [1, 0, 0]
    assert found.to_list() == [[], []]
    either = regular_expression("a?", alphabet).to(device.torch)
    found = fastctc.beam_search(x, beam_size=4, nbest=3, scorer=either)
    assert sorted(map(len, found.to_list()[0])) == [0, 1]


def test_words_have_the_places_of_their_tokens(device: Device) -> None:
    alphabet = Alphabet("act ")
    path = [[2], [2], [0], [1], [3], [4], [4], [0], [1], [3], [3], [0]]
    x = torch.full((12, 5), -7.0).scatter_(1, torch.tensor(path), 0).log_softmax(-1).to(device.torch)
    lexicon = Lexicon.from_words(["act", "cat", "at"], alphabet)
    scorer = LexiconScorer(lexicon, separator=4).to(device.torch)
    found = fastctc.beam_search(x, scorer=scorer, nbest=2)
    words = found.to_words(scorer, scale=0.5)[0]
    assert [(word.text, word.start, word.end) for word in words] == [("cat", 0.0, 2.5), ("at", 4.0, 5.5)]
    assert words[0].confidence == pytest.approx(math.exp(-math.log(1 + 4 * math.exp(-7))), rel=1e-5)
    assert found.best().to_text(alphabet) == "cat at"
    batch = fastctc.beam_search(x[None], scorer=scorer).to_words(scorer)
    assert [word.text for word in batch[0][0]] == ["cat", "at"]


def test_many_candidates_of_equal_score(device: Device) -> None:
    """Equal scores keep their order when the candidates are cut again and again."""
    x = torch.full((4, 400), math.log(1 / 400), dtype=torch.float64)
    equal = Automaton.from_arcs([(0, -1, 0, 0.0)], {0: 0.0})
    expected = fastctc.beam_search(x, beam_size=3, nbest=3).to_list()
    found = fastctc.beam_search(x.to(device.torch), beam_size=3, nbest=3, scorer=equal.to(device.torch))
    assert found.to_list() == expected


def test_special_values(device: Device, tmp_path: Path) -> None:
    case = random_case(1, "separator", tmp_path)
    x = random_log_probs(3, 6, 5, seed=0)
    x[0, 2, 1] = math.nan
    x[1, :, 1:] = -math.inf
    scorers = [each.to(device.torch) for each in case.scorers]
    found = fastctc.beam_search(x.to(device.torch), scorer=scorers, nbest=2).cpu()
    alone = fastctc.beam_search(x[2].to(device.torch), scorer=scorers, nbest=2).cpu()
    assert bool(found.scores[0].isnan().all()) and bool(found.acoustic_scores[0].isnan().all())
    assert found.lengths[0].tolist() == [0, 0]
    assert found.lengths[1, 0] == 0
    assert_same(found.sample(2), alone)


def test_a_result_is_a_named_tuple() -> None:
    """Of 13 fields: as text, pickled, as a dict, with a field replaced."""
    result = fastctc.beam_search(random_log_probs(3, 4, seed=0), scorer=Automaton.from_arcs([], {0: 0.0}))
    assert all(f"{name}=tensor(" in repr(result) for name in ScoredResult._fields)
    assert tuple(result._asdict()) == ScoredResult._fields
    copied = pickle.loads(pickle.dumps(result))
    assert type(copied) is ScoredResult
    assert_same(copied, result)
    other = result._replace(words=result.words + 1)
    assert type(other) is ScoredResult and torch.equal(other.words, result.words + 1)
    assert other.model_scores is result.model_scores


def test_scorers_can_be_moved_and_copied(tmp_path: Path) -> None:
    rng = random.Random(0)
    scorer = random_lexicon_scorer(rng, "none", tmp_path)
    x = random_log_probs(20, 5, seed=0)
    expected = fastctc.beam_search(x, scorer=scorer)
    for other in (pickle.loads(pickle.dumps(scorer)), copy.deepcopy(scorer), scorer.to("cpu")):
        assert_same(fastctc.beam_search(x, scorer=other), expected)


def faults() -> dict[str, tuple[object, type[Exception], str]]:
    grammar = Automaton.from_arcs([], {0: 0.0})
    words = LexiconScorer(Lexicon([("a", [1])]))
    return {
        "type": ("words.txt", TypeError, "scorer must be an Automaton or a LexiconScorer, got str"),
        "part": ([grammar, None], TypeError, r"scorer\[1\] must be an Automaton or a LexiconScorer"),
        "none": ([], ValueError, "scorer has 0 scorers, expected 1 to 3"),
        "many": ([grammar] * 4, ValueError, "scorer has 4 scorers, expected 1 to 3"),
        "lexicons": ([words, words], ValueError, "scorer has 2 LexiconScorers, expected at most one"),
        "device": (
            grammar.to("meta"),
            ValueError,
            r"scorer is on meta, but log_probs is on cpu: use its to\('cpu'\)",
        ),
    }


@pytest.mark.parametrize("fault", faults())
def test_faults_of_scorers_are_named(fault: str) -> None:
    scorer, error, message = faults()[fault]
    with pytest.raises(error, match=message):
        fastctc.beam_search(random_log_probs(4, 5), scorer=scorer)  # type: ignore[arg-type]
    with pytest.raises(error, match=message):
        fastctc.BeamSearchDecoder(scorer=scorer)  # type: ignore[arg-type]


def test_no_memory_is_lost(tmp_path: Path) -> None:
    """The memory of the process stops growing."""
    case = random_case(2, "separator", tmp_path)
    x: Tensor = random_log_probs(8, 5, seed=0)

    def resident() -> int:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1])

    def decode(times: int) -> int:
        for _ in range(times):
            fastctc.beam_search(x, scorer=case.scorers, beam_size=4)
        return resident()

    before = decode(300)
    assert decode(1500) - before < 200  # pages


@pytest.mark.parametrize("beyond", [4, 100_000_000])
@pytest.mark.parametrize("seed", range(6))
def test_labels_that_the_input_lacks_are_never_found(seed: int, beyond: int, device: Device) -> None:
    """A scorer for more classes, and a separator that no frame has: each text is one word."""
    x = random_log_probs(6, 4, seed=seed)
    more = Automaton.from_arcs(
        [(0, 1, 0, -0.5), (0, 2, 1, 0.0), (1, 2, 0, 0.25), (1, beyond, 0, 3.0)], {0: 0.0, 1: -1.0}
    )
    one_word = LexiconScorer(Lexicon([("ab", [1, 2]), ("b", [2]), ("cab", [3, 1, 2])]), separator=beyond)
    for scorer, reference in ((more, AutomatonScorer(more)), (one_word, one_word)):
        expected = brute_force_search(x, [reference])
        found = fastctc.beam_search(
            x.to(device.torch), beam_size=400, nbest=20, scorer=scorer.to(device.torch)
        ).cpu()
        assert isinstance(found, ScoredResult)
        wanted = {each.tokens: each.score for each in expected}
        tokens = [tuple(each) for each in found.to_list()]
        assert len(tokens) == min(20, len(expected)) > 0
        for each, score in zip(tokens, found.scores.tolist()):
            assert score == pytest.approx(wanted[each], abs=1e-4)
