"""pyctcdecode's decoder by the definition of its scores, with the examples of its tests."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compat_files import BUGS, WORDS, Reading, log10_of, sums_of_paths, write_arpa

from fastctc.compat.pyctcdecode import (
    Alphabet,
    BatchOutputBeam,
    BeamSearchDecoderCTC,
    LanguageModel,
    OutputBeam,
    build_ctcdecoder,
)
from fastctc.scoring import read_arpa

LABELS = [" ", "b", "g", "n", "s", "u", "y", ""]
EVERYTHING = {"beam_width": 2000, "beam_prune_logp": -math.inf, "token_min_logp": -math.inf}


def path(*labels: str) -> np.ndarray:
    """Return the probabilities of one path."""
    return np.eye(len(LABELS))[[LABELS.index(label) for label in labels]]


BUNNY = path("b", "u", "n", "", "n", "y")
AMBIGUOUS = np.vstack([path("b", "u", "g", "s", "", "") * 0.49 + BUNNY * 0.51, path(" "), BUNNY])


def logits_of(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.clip(probabilities, 1e-15, 1))


LOGITS = logits_of(AMBIGUOUS)  # "bunny bunny" is a bit more probable than "bugs bunny"


@pytest.fixture
def bugs(tmp_path: Path) -> str:
    """Return a model in which "bugs bunny" is by far more probable."""
    return write_arpa(tmp_path / "bugs.arpa", BUGS)


Weigh = Callable[[list[str]], float]


@pytest.mark.parametrize("labels", [["", "a", "b", " "], ["", "b", "▁a", "▁"], ["", "a", "b"]])
@pytest.mark.parametrize("unigrams", [None, ["ab", "b", "x"], []])
@pytest.mark.parametrize("boundary", [True, False])
@pytest.mark.parametrize("seed", range(2))
def test_scores_equal_all_paths(
    tmp_path: Path, labels: list[str], unigrams: list[str] | None, boundary: bool, seed: int
) -> None:
    """alpha * ln 10 * (log10 P + unk_score_offset of unknown words) + beta * words, over all paths."""
    alpha, beta, offset = 0.8, 0.4, -0.9
    lm = write_arpa(tmp_path / "lm.arpa", WORDS)
    decoder = build_ctcdecoder(labels, lm, unigrams, alpha, beta, offset, boundary)
    known = {word for (word, *more) in WORDS if not more}
    known &= set(unigrams) if unigrams else known

    def weigh(words: list[str]) -> float:
        log10 = log10_of(words, WORDS) if boundary else inner_log10(words)
        unknown = sum(word not in known for word in words)
        return alpha * math.log(10) * (log10 + offset * unknown) + beta * len(words)

    logits = torch.randn(5, len(labels), generator=torch.Generator().manual_seed(seed)).double()
    log_probs = logits.log_softmax(1)
    readings = texts_of(build_ctcdecoder(labels)._alphabet, weigh)
    expected = sums_of_paths(log_probs, 0, readings)
    acoustic = sums_of_paths(log_probs, 0, lambda tokens: ((text, 0.0) for text, _ in readings(tokens)))
    found = decoder.decode_beams(logits, **EVERYTHING)
    assert {(beam.text,): beam.lm_score for beam in found} == pytest.approx(expected, abs=1e-5)
    assert {(beam.text,): beam.logit_score for beam in found} == pytest.approx(acoustic, abs=1e-5)


def inner_log10(words: Sequence[str]) -> float:
    """Return log10 P(words) without the boundaries of a text."""
    total, before = 0.0, None
    for word in words:
        word = word if (word,) in WORDS else "<unk>"
        if (before, word) in WORDS:
            total += WORDS[before, word][0]  # type: ignore[index]
        else:
            total += WORDS[(word,)][0] + (0.0 if before is None else WORDS[(before,)][1])
        before = word
    return total


def texts_of(alphabet: Alphabet, weigh: Weigh) -> Callable[[tuple[int, ...]], Iterator[Reading]]:
    """Return the function from tokens to their one text and its weight. A piece that begins no word is unknown."""
    inner = (
        {number for number, label in enumerate(alphabet.labels) if "▁" not in label}
        if alphabet.is_bpe
        else set()
    )

    def readings(tokens: tuple[int, ...]) -> Iterator[Reading]:
        text = alphabet.text(tokens)
        words = text.split()
        yield (text,), weigh(["?", *words[1:]] if set(tokens[:1]) & inner else words)

    return readings


def test_pyctcdecode_example_of_models(bugs: str) -> None:
    alphabet = Alphabet.build_alphabet(LABELS)
    assert BeamSearchDecoderCTC(alphabet).decode(LOGITS) == "bunny bunny"
    for unigrams, options, text in (
        (None, {"alpha": 0.0}, "bunny bunny"),
        (None, {"alpha": 1.0}, "bugs bunny"),
        ([], {"alpha": 1.0}, "bugs bunny"),
        (["bunny"], {"alpha": 1.0, "unk_score_offset": 0.0}, "bugs bunny"),
        (["bunny"], {"alpha": 1.0, "unk_score_offset": -10.0}, "bunny bunny"),
    ):
        model = LanguageModel(bugs, unigrams, **options)
        assert BeamSearchDecoderCTC(alphabet, model).decode(LOGITS) == text


def test_pyctcdecode_example_of_batches(bugs: str) -> None:
    decoder = build_ctcdecoder(LABELS, bugs, ["bugs", "bunny"])
    assert decoder.decode_batch(None, [LOGITS] * 5) == ["bugs bunny"] * 5
    beams = decoder.decode_beams_batch(None, [LOGITS] * 5)
    for (beam,) in beams:
        assert isinstance(beam, BatchOutputBeam)
        assert beam[:2] == ("bugs bunny", [("bugs", (0, 4)), ("bunny", (7, 13))])
        assert beam[2:] == pytest.approx((-2.853399551509947, 0.14660044849005294), abs=1e-6)


def test_batches_equal_single_texts() -> None:
    """Also batches of more utterances than one search takes, of different lengths."""
    rng = np.random.default_rng(0)
    logits = [rng.normal(size=(rng.integers(0, 9), len(LABELS))) for _ in range(70)]
    decoder = build_ctcdecoder(LABELS)
    assert decoder.decode_batch(None, iter(logits)) == [decoder.decode(each) for each in logits]


@pytest.mark.parametrize("seed", range(20))
def test_decode_is_the_first_of_the_beams(seed: int) -> None:
    """Flat logits, where many hypotheses with the same text add up."""
    logits = torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) * 0.5
    decoder = build_ctcdecoder([" ", "a", "b", ""])
    beams = decoder.decode_beams(logits)
    assert len(beams) > 10
    assert decoder.decode(logits) == beams[0].text


def test_pyctcdecode_example_of_beams(bugs: str) -> None:
    beams = build_ctcdecoder(LABELS).decode_beams(LOGITS)
    assert len(beams) == 16
    assert isinstance(beams[0], OutputBeam)
    assert [beams[0].text, beams[-1].text] == ["bunny bunny", "bugs bunny"]
    assert beams[0].last_lm_state is None and beams[0].logit_score == beams[0].lm_score
    assert [beam.text for beam in build_ctcdecoder(LABELS, bugs).decode_beams(LOGITS)] == ["bugs bunny"]
    decoder = build_ctcdecoder(LABELS, bugs, unk_score_offset=0.0)
    beams = decoder.decode_beams(LOGITS, beam_prune_logp=-25.0)
    assert len(beams) == 16
    assert [beam.text for beam in beams[:2]] == ["bugs bunny", "bunny bunny"]


def test_pyctcdecode_example_of_frames() -> None:
    decoder = build_ctcdecoder(LABELS)
    beams = decoder.decode_beams(LOGITS)
    assert beams[0].text_frames == [("bunny", (0, 6)), ("bunny", (7, 13))]
    assert beams[-1].text_frames == [("bugs", (0, 4)), ("bunny", (7, 13))]
    stretched = path(" ", "", "b", "u", "n", "", "n", "n", "y", "", " ", " ")
    assert decoder.decode_beams(stretched)[0].text_frames == [("bunny", (2, 9))]


def test_pyctcdecode_example_of_pieces() -> None:
    pieces = ["▁bugs", "▁bun", "ny", ""]
    probabilities = np.eye(4)[[3, 0, 1, 2, 2, 3]]
    beam = build_ctcdecoder(pieces).decode_beams(probabilities)[0]
    assert beam[:3] == ("bugs bunny", None, [("bugs", (1, 2)), ("bunny", (2, 5))])


def test_pyctcdecode_example_of_pieces_instead_of_letters() -> None:
    """Letters with "##", and a "▁" in place of the space, decode as letters do."""
    letters = LABELS[1:-1]
    pieces = ["▁⁇▁", "▁", *(f"##{letter}" for letter in letters)]
    logits = np.hstack([np.full((len(LOGITS), 1), -100.0), LOGITS])
    assert build_ctcdecoder(pieces).decode(logits) == "bunny bunny"


def test_pyctcdecode_example_of_token_pruning(bugs: str) -> None:
    """Only the best class of each frame is left."""
    decoder = build_ctcdecoder(LABELS, bugs)
    assert decoder.decode(LOGITS) == "bugs bunny"
    assert decoder.decode(LOGITS, token_min_logp=0.0) == "bunny bunny"


def test_pyctcdecode_example_of_history_pruning() -> None:
    logits = logits_of(np.vstack([AMBIGUOUS] + [np.vstack([path(" "), BUNNY])] * 5))
    decoder = build_ctcdecoder(LABELS)
    beams, pruned = (decoder.decode_beams(logits, prune_history=each) for each in (False, True))
    assert (len(beams), len(pruned)) == (16, 1)
    assert beams[0] == pruned[0]


def test_pyctcdecode_example_of_states(bugs: str) -> None:
    """The model continues from the end of the part before."""
    ambiguous = path("b", "u", "g", "s", "", "") * 0.51 + BUNNY * 0.49
    first = np.vstack([path("b", "u", "g", "s")])
    whole = np.vstack([first, path(" "), ambiguous])
    assert build_ctcdecoder(LABELS).decode(whole) == "bugs bugs"
    decoder = build_ctcdecoder(LABELS, bugs, ["bugs", "bunny"])
    assert decoder.decode(whole) == "bugs bunny"
    assert decoder.decode(first) + " " + decoder.decode(whole[4:]) == "bugs bugs"
    beam = decoder.decode_beams(first)[0]
    second = decoder.decode_beams(whole[4:], lm_start_state=beam.last_lm_state)[0]
    assert (beam.text, second.text) == ("bugs", "bunny")
    assert decoder.decode(whole[4:], lm_start_state=beam.last_lm_state) == "bunny"


def test_pyctcdecode_example_of_hotwords(bugs: str) -> None:
    decoder = build_ctcdecoder(LABELS, bugs)
    for hotwords, text in (
        (["bunny"], "bunny bunny"),
        (["bugs", "bunny"], "bugs bunny"),
        (["bugs bunny"], "bugs bunny"),
        ([" "], "bugs bunny"),
    ):
        assert decoder.decode(LOGITS, hotwords=hotwords, hotword_weight=20) == text
    decoder = build_ctcdecoder(LABELS)
    assert decoder.decode(LOGITS) == "bunny bunny"
    assert decoder.decode(LOGITS, hotwords=["bugs"]) == "bugs bunny"


@pytest.mark.parametrize("with_model", [True, False])
def test_hotwords_over_all_paths(tmp_path: Path, with_model: bool) -> None:
    """A bonus for each whole word, known to the model or not."""
    labels = ["", "a", "b", " "]
    lm = write_arpa(tmp_path / "lm.arpa", WORDS) if with_model else None
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).double()
    decoder = build_ctcdecoder(labels, lm)
    plain = {beam.text: beam.lm_score for beam in decoder.decode_beams(logits, **EVERYTHING)}
    hotwords = ["ba ", "aba"]
    found = decoder.decode_beams(logits, hotwords=hotwords, hotword_weight=1.5, **EVERYTHING)
    for beam in found:
        words = beam.text.split()
        bonus = 1.5 * (words.count("ba") + words.count("aba"))
        assert beam.lm_score == pytest.approx(plain[beam.text] + bonus, abs=1e-5), beam.text
    assert len(found) == len(plain) > 50


def test_hotword_score() -> None:
    beams = build_ctcdecoder(LABELS).decode_beams(LOGITS, hotwords=["bunny"], hotword_weight=3.0)
    bonus = {beam.text: beam.lm_score - beam.logit_score for beam in beams}
    assert bonus["bunny bunny"] == pytest.approx(6.0) and bonus["bugs bunny"] == pytest.approx(3.0)


def test_logits_of_all_kinds() -> None:
    """Arrays and tensors; logits, log-probabilities and probabilities."""
    decoder = build_ctcdecoder(LABELS)
    (expected, *_) = decoder.decode_beams(LOGITS)
    logits = LOGITS + np.arange(len(LOGITS))[:, None]
    for each in (logits, torch.tensor(LOGITS), AMBIGUOUS, torch.tensor(LOGITS).float().requires_grad_()):
        beam = decoder.decode_beams(each)[0]
        assert beam.text == expected.text and beam.logit_score == pytest.approx(
            expected.logit_score, abs=1e-5
        )


def test_no_frames(bugs: str) -> None:
    for decoder in (build_ctcdecoder(LABELS), build_ctcdecoder(LABELS, bugs)):
        assert decoder.decode(LOGITS[:0]) == ""
        assert decoder.decode_beams(LOGITS[:0])[0].text_frames == []


@pytest.mark.parametrize("value", [None, 0.5])
def test_reset_params(bugs: str, value: float | None) -> None:
    decoder = build_ctcdecoder(LABELS, bugs, alpha=0.0)
    decoder.reset_params(alpha=value, beta=value, unk_score_offset=value)
    expected = "bunny bunny" if value is None else "bugs bunny"
    assert decoder.decode(LOGITS) == expected


def test_kenlm_models_by_their_path(bugs: str) -> None:
    """A kenlm.Model has the path of its file; an automaton is taken as it is."""

    class Model:
        path = bugs.encode()

    texts = [
        BeamSearchDecoderCTC(Alphabet.build_alphabet(LABELS), LanguageModel(model)).decode(LOGITS)
        for model in (Model(), Path(bugs), read_arpa(bugs))
    ]
    assert texts == ["bugs bunny"] * 3


def test_order(bugs: str, tmp_path: Path) -> None:
    assert LanguageModel(bugs).order == 2


def test_pyctcdecode_example_of_files(bugs: str, tmp_path: Path) -> None:
    folder = tmp_path / "decoder"
    decoder = build_ctcdecoder(LABELS, bugs, ["bugs", "bunny", "other"], alpha=0.7)
    decoder.save_to_dir(folder)
    assert sorted(each.name for each in (folder / "language_model").iterdir()) == [
        "attrs.json",
        "bugs.arpa",
        "unigrams.txt",
    ]
    assert json.loads((folder / "language_model" / "attrs.json").read_text()) == {
        "alpha": 0.7,
        "beta": 1.5,
        "unk_score_offset": -10.0,
        "score_boundary": True,
    }
    assert (folder / "language_model" / "unigrams.txt").read_text() == "bugs\nbunny\n"
    loaded = BeamSearchDecoderCTC.load_from_dir(folder)
    assert loaded.decode_beams(LOGITS) == decoder.decode_beams(LOGITS)
    shutil.rmtree(folder / "language_model")
    assert BeamSearchDecoderCTC.load_from_dir(folder).decode(LOGITS) == "bunny bunny"


# What differs from pyctcdecode, by the names of docs/migrating.md.


def test_difference_spaces_at_the_end(bugs: str) -> None:
    """In pyctcdecode a text that ends with a space has one more word, which is empty and unknown."""
    decoder = build_ctcdecoder(LABELS, bugs)
    spaced = logits_of(np.vstack([path("b", "u", "g", "s", " "), BUNNY, path(" ")]))
    whole = decoder.decode_beams(spaced)[0]
    cut = decoder.decode_beams(spaced[:-1])[0]
    assert whole.text == cut.text == "bugs bunny"
    assert whole.lm_score == pytest.approx(cut.lm_score, abs=1e-6)


def test_difference_phrases_are_whole() -> None:
    """In pyctcdecode each word of a phrase is a hotword."""
    decoder = build_ctcdecoder(LABELS)
    beams = decoder.decode_beams(LOGITS, hotwords=["bugs bunny"], hotword_weight=3.0)
    bonus = {beam.text: beam.lm_score - beam.logit_score for beam in beams}
    assert bonus["bugs bunny"] == pytest.approx(6.0) and bonus["bunny bunny"] == pytest.approx(0.0, abs=1e-6)


def test_difference_hotwords_are_not_cut() -> None:
    """In pyctcdecode token_min_logp cuts what a hotword should rescue."""
    probabilities = path("b", "u", "n", "s")
    probabilities[2] = 0.999 * probabilities[2] + 0.001 * path("g")[0]
    decoder = build_ctcdecoder(LABELS)
    assert decoder.decode(logits_of(probabilities)) == "buns"
    assert decoder.decode(logits_of(probabilities), hotwords=["bugs"]) == "bugs"


def test_difference_words_without_a_backoff_weight(tmp_path: Path) -> None:
    """pyctcdecode takes them for unknown words."""
    lm = Path(write_arpa(tmp_path / "lm.arpa", BUGS))
    lm.write_text(lm.read_text().replace("0.0\tbunny\t0.0\n", "0.0\tbunny\n"))
    text = build_ctcdecoder(LABELS, str(lm)).decode_beams(LOGITS)[0]
    assert text.text == "bugs bunny" and text.lm_score - text.logit_score == pytest.approx(3.0, abs=1e-6)


def test_difference_the_order_of_hotwords_does_not_matter(bugs: str) -> None:
    decoder = build_ctcdecoder(LABELS, bugs)
    one = decoder.decode_beams(LOGITS, hotwords=["bugs", "bunny", "bugs"])
    assert one == decoder.decode_beams(LOGITS, hotwords={"bunny", "bugs"})


def test_difference_hotwords_of_pieces_have_no_end() -> None:
    """With pieces, the beginning of a longer word counts too."""
    pieces = ["▁bugs", "▁bun", "ny", ""]
    decoder = build_ctcdecoder(pieces)
    probabilities = np.eye(4)[[3, 0, 1, 2, 2, 3]]
    beam = decoder.decode_beams(probabilities, hotwords=["bun"], hotword_weight=2.0)[0]
    assert beam.lm_score - beam.logit_score == pytest.approx(2.0, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -0.5}, "alpha is -0.5, expected a number of at least 0"),
        ({"beta": "1"}, "beta must be a number, got str"),
        ({"unk_score_offset": math.inf}, "unk_score_offset must be finite, got inf"),
        ({"lm_score_boundary": 1}, "score_boundary must be a bool, got int"),
        (
            {"kenlm_model_path": 3},
            "kenlm_model must be the path of an ARPA file, a kenlm.Model or a fastctc.Aut",
        ),
        ({"labels": ["x", "y"]}, r"labels is \['x', 'y', ''\], which spell no word of the model"),
    ],
)
def test_errors_of_models(bugs: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        decoder = build_ctcdecoder(**{"labels": LABELS, "kenlm_model_path": bugs} | options)
        decoder.decode(np.zeros((1, 3)))


def test_errors_of_reset_params(bugs: str) -> None:
    decoder = build_ctcdecoder(LABELS, bugs)
    with pytest.raises(ValueError, match="alpha is -1, expected a number of at least 0"):
        decoder.reset_params(alpha=-1, beta=0.0)
    model = LanguageModel(bugs)
    with pytest.raises(TypeError, match="params has 'gamma', expected some of alpha, beta"):
        model.reset_params(gamma=1.0)


@pytest.mark.parametrize(
    ("logits", "options", "message"),
    [
        (np.hstack([LOGITS] * 2), {}, r"logits has shape \(13, 16\), expected \(T, 8\) for 8 labels"),
        (LOGITS[None], {}, r"logits has shape \(1, 13, 8\), expected \(T, 8\)"),
        (np.zeros((2, 8), dtype=np.int64), {}, "logits must be floating-point numbers, got torch.int64"),
        (np.full((2, 8), np.nan), {}, "logits has a NaN"),
        (LOGITS, {"beam_width": 0}, "beam_width is 0"),
        (LOGITS, {"beam_prune_logp": 1.0}, "beam_prune_logp is 1.0, expected a number of at most 0"),
        (LOGITS, {"token_min_logp": "0"}, "token_min_logp must be a number, got str"),
        (LOGITS, {"hotwords": "bugs"}, "hotwords must be a list of words, got the str 'bugs'"),
        (LOGITS, {"hotwords": ["a", 1]}, r"hotwords\[1\] must be a str, got int"),
        (
            LOGITS,
            {"hotwords": ["bugs"], "hotword_weight": math.nan},
            "hotword_weight must be finite, got nan",
        ),
    ],
)
def test_errors_of_input(logits: np.ndarray, options: dict[str, Any], message: str) -> None:
    decoder = build_ctcdecoder(LABELS)
    with pytest.raises((TypeError, ValueError), match=message):
        decoder.decode(logits, **options)


def test_errors_of_folders(bugs: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no alphabet.json, expected a folder of a decoder"):
        BeamSearchDecoderCTC.load_from_dir(tmp_path)
    folder = tmp_path / "decoder"
    decoder = build_ctcdecoder(LABELS, bugs)
    decoder.save_to_dir(folder)
    model = folder / "language_model"
    (model / "bugs.arpa").rename(model / "lm.bin")
    (model / "lm.bin").write_bytes(b"mmap lm http://kheafield.com/code format version 5\n\0" + bytes(100))
    with pytest.raises(ValueError, match=r"lm.bin, .*expected an ARPA file.*KenLM binary"):
        BeamSearchDecoderCTC.load_from_dir(folder)
    (model / "lm.bin").unlink()
    with pytest.raises(ValueError, match=r"expected attrs.json, unigrams.txt and one ARPA file"):
        BeamSearchDecoderCTC.load_from_dir(folder)
    with pytest.raises(
        ValueError, match="kenlm_model is an Automaton, expected an ARPA file for a model to save"
    ):
        LanguageModel(read_arpa(bugs)).save_to_dir(tmp_path / "other")
