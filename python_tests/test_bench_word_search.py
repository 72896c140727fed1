"""bench_word_search.py runs on a folder of speech data, and its parts compute what they claim."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmark_files import Load, results
from conftest import slow
from torch import Tensor

import fastctc
from fastctc.scoring import Lexicon, read_arpa

TOKENS = ["a", "b", "c", "<wb>", "<blank>"]
SPELLINGS = {"ab": "ab", "ba": "ba", "cab": "cab", "bah": "ba"}  # two words are spelled the same
SENTENCES = ["ab cab", "cab ba ab", "ba", "ab ab cab"]
ARPA = """\\data\\
ngram 1=6
ngram 2=3

\\1-grams:
-99\t<s>\t-0.3
-0.9\t</s>
-0.5\tab\t-0.2
-0.7\tba\t-0.1
-1.2\tbah
-0.8\tcab\t-0.4

\\2-grams:
-0.3\t<s> cab
-0.2\tab cab
-0.4\tcab </s>

\\end\\
"""
WORDS = ("--parts", "words", "--quick", "--limit", "2")


def posterior(labels: Sequence[int], classes: int, blank: int, seed: int) -> Tensor:
    """Return log-probabilities of a path with a blank after each label, and some noise."""
    path = torch.tensor([each for label in labels for each in (label, blank)])
    noise = torch.randn(len(path), classes, generator=torch.Generator().manual_seed(seed))
    return (noise + 5 * torch.nn.functional.one_hot(path, classes)).log_softmax(-1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    there = tmp_path / "speech"
    there.mkdir()
    (there / "words.arpa").write_text(ARPA)
    (there / "tokens.txt").write_text("".join(f"{token}\n" for token in TOKENS))
    (there / "references.txt").write_text("".join(f"{sentence}\n" for sentence in SENTENCES))
    lines = (f"{word} {' '.join(spelling)} <wb>\n" for word, spelling in SPELLINGS.items())
    (there / "lexicon.txt").write_text("".join(lines))
    arrays = {}
    for i, sentence in enumerate(SENTENCES):
        labels = [TOKENS.index(t) for word in sentence.split() for t in [*SPELLINGS[word], "<wb>"]]
        arrays[f"voice_{i}"] = posterior(labels, len(TOKENS), 4, seed=i).half().numpy()
    np.savez(there / "phonemes.npz", **arrays)
    return there


def test_word_search(load: Load, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    bench = load("bench_word_search")
    parts = ("--parts", "words", "load")
    assert (
        bench.main([str(folder), *parts, "--quick", "--peers", "none", "--note", "a test", "--out", str(out)])
        == 0
    )
    found = results(out)
    assert found["benchmark"] == "word_search" and found["threads"] == 1 and found["note"] == "a test"
    assert [row["case"] for row in found["results"]] == ["speech", "letters"]
    for row in found["results"]:
        assert not row["refused"] and row["utterances"] == 2
        assert {entry["side"] for entry in row["entries"]} == {"fastctc", "fastctc_cut"}
        for entry in row["entries"]:
            assert entry["frame_us"] == pytest.approx(entry["median_ms"] * 1e3 / row["frames"])
        assert row["entries"][0]["word_error_rate"] == 0
    assert found["results"][0]["words"] == 6  # of the odd sentences
    assert found["load"]["sides"].keys() >= {"fastctc", "saved"}
    (report,) = out.glob("*.md")
    assert report.read_text().count("| fastctc with cuts |") == 4
    assert len(list(out.glob("*.png"))) == 1


@pytest.mark.slow
def test_memory_of_word_search(load: Load, folder: Path) -> None:
    (row, wrong) = load("word_memory").memory_rows(folder, {"speech": ["fastctc", "no such side"]})
    assert row["before"] < row["loaded"] <= row["peak"]
    assert "no such side" in wrong["error"]


def test_tuned_weights_have_the_fewest_errors(load: Load, folder: Path, monkeypatch: Any) -> None:
    bench, decoders, cases = load("bench_word_search"), load("word_decoders"), load("word_cases")
    best, other = decoders.Weights(1.0, 0.0), decoders.Weights(1.0, -50.0)
    monkeypatch.setattr(bench, "GRID", [other, best, decoders.Weights(0.9, 0.0)])
    case = cases.speech(folder, "tuning")
    assert bench.tune(decoders.Fastctc(case), case, 8) == best


@pytest.mark.parametrize("wrong", ["score", *slow("model", "acoustic", "token", "word")])
def test_wrong_word_search_is_not_timed(
    load: Load, monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path, wrong: str
) -> None:
    right = fastctc.beam_search

    def planted(log_probs: Tensor, **options: Any) -> Any:
        found: Any = right(log_probs, **options)
        changes = {
            "score": {"scores": found.scores + 0.01},
            "model": {"model_scores": found.model_scores + 1, "acoustic_scores": found.acoustic_scores - 1},
            "acoustic": {"scores": found.scores + 1, "acoustic_scores": found.acoustic_scores + 1},
            "token": {"tokens": found.tokens.where(found.tokens != 1, 2)},
            "word": {"words": found.words.where(found.words < 0, 0)},
        }
        return found._replace(**changes[wrong])

    def batched(log_probs: Tensor, lengths: Tensor | None = None, **options: Any) -> Any:
        return (
            planted(log_probs, **options)
            if lengths is None
            else planted(log_probs, input_lengths=lengths, **options)
        )

    monkeypatch.setattr(fastctc, "beam_search", batched)
    out = tmp_path / "out"
    assert load("bench_word_search").main([str(folder), *WORDS, "--peers", "none", "--out", str(out)]) == 1
    for row in results(out)["results"]:
        assert row["refused"] and row["notes"] and not row["entries"]


def test_missing_data_is_explained(load: Load, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "tokens.txt").unlink()
    assert load("bench_word_search").main([str(folder), *WORDS]) == 1
    assert "lacks tokens.txt: run `python benchmarks/prepare_speech.py" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["flashlight", "flashlight_sum", "pyctcdecode", "ctc_beam_decoder"])
def test_word_search_of_peers(load: Load, monkeypatch: pytest.MonkeyPatch, folder: Path, name: str) -> None:
    """On easy utterances all agree; such peers need not be installed."""
    decoders, cases, checks = load("word_decoders"), load("word_cases"), load("word_checks")
    monkeypatch.setattr(cases, "STRENGTH", 12.0)
    monkeypatch.setattr(cases, "CONFUSED", 0.0)
    usable, _ = decoders.choose([name])
    if name not in usable:
        pytest.skip(f"{name} cannot be used")
    weights = decoders.Weights(0.5, 0.5)
    for case in [cases.CASES[each](folder, "all") for each in decoders.PEERS[name].cases]:
        searcher, ours = decoders.PEERS[name].make(case), decoders.Fastctc(case)
        found = searcher.tune(16, weights)(searcher.prepare(case.utterances))
        assert found == ours.tune(16, weights)(ours.prepare(case.utterances)) == case.references
        if case.separator is not None:
            margin = checks.margin(ours, case, 16, weights, found)
            assert margin == {"score_margin": 0, "lower": 0, "not_in_lexicon": 0}


def test_peer_that_fails_is_left_out(
    load: Load, monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    bench, decoders = load("bench_word_search"), load("word_decoders")

    class Fails(decoders.Searcher):  # type: ignore[misc, name-defined]
        def tune(self, beam: int, weights: Any) -> Any:
            raise KeyError("no such thing")

    def broken(case: Any) -> Any:
        raise ValueError("no such model")

    planted = {"flashlight": Fails, "flashlight_sum": broken}
    for name, make in planted.items():
        monkeypatch.setitem(decoders.PEERS, name, decoders.Peer(make, ("math",), ("torch",)))
    out = tmp_path / "out"
    assert bench.main([str(folder), *WORDS, "--cases", "speech", "--peers", *planted, "--out", str(out)]) == 0
    (row,) = results(out)["results"]
    assert {entry["side"] for entry in row["entries"]} == {"fastctc", "fastctc_cut"}
    assert any("flashlight failed" in note and "no such thing" in note for note in row["notes"])
    assert any("flashlight_sum failed (no such model)" in note for note in row["notes"])


def test_halves_of_the_sentences(load: Load, folder: Path) -> None:
    cases = load("word_cases")
    for name, make in cases.CASES.items():
        halves = [
            [" ".join(words) for words in make(folder, half).references] for half in ("tuning", "report")
        ]
        assert halves == [SENTENCES[::2], SENTENCES[1::2]], name
        assert len(make(folder, "all").utterances) == len(SENTENCES)
        assert all(torch.allclose(x.exp().sum(-1), torch.ones(())) for x in make(folder, "all").utterances)


@pytest.mark.parametrize(
    ("reference", "found", "expected"),
    [
        ("", "", 0),
        ("a b c", "", 3),
        ("", "a", 1),
        ("a b c", "a c", 1),
        ("a b", "b a", 2),
        ("a b c", "a x c d", 2),
    ],
)
def test_word_errors(load: Load, reference: str, found: str, expected: int) -> None:
    cases = load("word_cases")
    assert cases.errors(reference.split(), found.split()) == expected
    if reference:
        rate = expected / len(reference.split())
        assert cases.word_error_rate([reference.split()], [found.split()]) == pytest.approx(rate)


def test_token_model_is_a_probability(load: Load, tmp_path: Path) -> None:
    """After every context of at most two tokens, tokens and the end have the sum 1."""
    models, path = load("token_models"), tmp_path / "tokens.arpa"
    classes = 5
    models.write_arpa(path, classes)
    model = read_arpa(path, [None, *models.names(classes)[1:]])
    beginnings = [y for n in range(3) for y in itertools.product(range(1, classes), repeat=n)]
    without_end = read_arpa(path, [None, *models.names(classes)[1:]], eos=False)
    for y in beginnings:
        begun = without_end.score(y)
        following = [without_end.score([*y, token]) - begun for token in range(1, classes)]
        assert sum(map(math.exp, [*following, model.score(y) - begun])) == pytest.approx(1, abs=1e-5)
    assert len(models.draw_hotwords(classes)) == models.HOTWORDS


def test_token_models_are_searched_right(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    search, models = load("token_search"), load("token_models")
    monkeypatch.setattr(models, "HOTWORDS", 50)
    rows = search.token_rows({}, 0.0, True)
    assert [(row["shape"], row["input"], row["refused"]) for row in rows] == [
        ("a", "peaked", False),
        ("a", "flat", False),
    ]
    for row in rows:
        assert row["over_none"].keys() == {"ngram", "hotwords"}
        assert row["sides"].keys() == {"none", "ngram", "hotwords"}


def packed(rows: list[list[int]], widths: list[int]) -> bytes:
    """Return records of bits, lowest first, with a guard, as PocketSphinx's trie has them."""
    bits, at = 0, 0
    for row in rows:
        for value, width in zip(row, widths, strict=True):
            bits |= value << at
            at += width
    return bits.to_bytes((len(rows) * sum(widths) + 7) // 8 + 8, "little")


def sphinx_trie() -> bytes:
    """Return a trie of "a" and "b" with the 2-grams "b a" and "a b", and the 3-gram "b a b"."""
    words, tables = ["a", "b"], np.zeros((3, 1 << 16), np.float32)
    unit = math.log10(1.0001)
    tables[0, [7, 9]] = [-0.25 / unit, -0.5 / unit]
    tables[1, 3] = -0.125 / unit
    tables[2, 5] = -0.75 / unit
    singles = np.zeros(3, [("p", "<f4"), ("b", "<f4"), ("next", "<u4")])
    singles["p"], singles["b"] = [-1 / unit, -2 / unit, 0], [-0.5 / unit, 0, 0]
    singles["next"] = [0, 1, 2]
    pairs = [[1, 7 << 16 | 3, 0], [0, 9 << 16, 0], [0, 0, 1]]  # the word before, the places, the first 3-gram
    triples = [[1, 5], [0, 0]]
    text = b"".join(word.encode() + b"\0" for word in words)
    counts = np.array([2, 2, 1], "<u4").tobytes()
    return b"".join(
        [b"Trie Language Model", b"\3", counts, bytes(4), tables.tobytes(), singles.tobytes()]
        + [packed(pairs, [2, 32, 1]), packed(triples, [2, 16]), len(text).to_bytes(4, "little"), text]
    )


def test_arpa_of_a_sphinx_model(load: Load, tmp_path: Path) -> None:
    source, target = tmp_path / "words.bin", tmp_path / "words.arpa"
    source.write_bytes(sphinx_trie())
    assert load("sphinx_arpa").write_arpa(source, target) == ["a", "b"]
    assert target.read_text().split("\n\n") == [
        "\\data\\\nngram 1=2\nngram 2=2\nngram 3=1",
        "\\1-grams:\n-1.00000\ta\t-0.50000\n-2.00000\tb\t0.00000",
        "\\2-grams:\n-0.25000\tb a\t-0.12500\n-0.50000\ta b\t0.00000",
        "\\3-grams:\n-0.75000\tb a b",
        "\\end\\\n",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: b"x" + data[1:], "begins with b'xrie Language Model', expected b'Trie Language Model'"),
        (lambda data: data[:19] + b"\4" + data[20:], "has the order 4, expected 3"),
        (lambda data: data[:500_000], "has 500000 bytes, expected at least"),
        (lambda data: data.replace(b"a\0b\0", b"a-b\0"), "has 1 words, expected 2"),
    ],
    ids=["magic", "order", "cut off", "words"],
)
def test_damaged_sphinx_model(load: Load, tmp_path: Path, change: Any, message: str) -> None:
    source, target = tmp_path / "words.bin", tmp_path / "words.arpa"
    source.write_bytes(change(sphinx_trie()))
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        load("sphinx_arpa").write_arpa(source, target)
    assert not target.exists()


def test_pronunciations(load: Load, tmp_path: Path) -> None:
    """The vowel without stress has two forms; spellings have numbers; other words are left out."""
    dictionary = tmp_path / "cmudict.dict"
    dictionary.write_text("the DH AH\nthe(2) DH IY\nbee B IY\nother B\n")
    prepare = load("prepare_speech")
    lines = list(prepare.pronunciations(dictionary, {"the", "bee"}))
    spelled = [line.split() for line in lines]
    assert [each[0] for each in spelled] == ["the", "the(2)", "the(3)", "bee"]
    assert all(each[-1] == "<wb>" for each in spelled)
    path = tmp_path / "lexicon.txt"
    path.write_text("".join(f"{line}\n" for line in lines))
    names = sorted({name for each in spelled for name in each[1:]})
    assert Lexicon.from_file(path, names).words == ("bee", "the")


def test_what_prepare_speech_lacks_is_named(
    load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare = load("prepare_speech")

    def fails(*arguments: str, expect: str) -> None:
        assert prepare.main([str(tmp_path / "made"), *arguments]) == 1
        assert expect in capsys.readouterr().err

    with monkeypatch.context() as patch:
        patch.setattr(prepare.importlib.util, "find_spec", lambda name: None)
        fails(expect="the package pocketsphinx is not installed")
    monkeypatch.setattr(prepare, "package_file", lambda package, file: tmp_path / file)
    fails("--flite", "no-such-flite", expect="no-such-flite is not installed: `apt-get install flite`")
    fails("--posteriors", str(tmp_path), expect="has 0 files *.npz, expected one")


def test_speech_of_given_posteriors(
    load: Load, monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    prepare, made = load("prepare_speech"), tmp_path / "made"
    files = {"en-us.lm.bin": sphinx_trie(), "cmudict-en-us.dict": b"a AH\nb B IY\nc S IY\n"}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    monkeypatch.setattr(prepare, "package_file", lambda package, file: tmp_path / os.path.basename(file))
    assert prepare.main([str(made), "--posteriors", str(folder)]) == 0
    load("word_cases").check_folder(made)
    words = [line.split()[0] for line in (made / "lexicon.txt").read_text().splitlines()]
    assert words == ["a", "a(2)", "b"]
    assert (made / "tokens.txt").read_text() == (folder / "tokens.txt").read_text()
