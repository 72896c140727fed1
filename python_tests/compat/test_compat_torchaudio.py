"""torchaudio's ctc_decoder by the definition of its scores, with the examples of its tests."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from compat_files import WORDS, Reading, log10_of, log_sum, sums_of_paths, write_arpa, write_lines

from fastctc.compat.torchaudio import CTCDecoder, CTCHypothesis, ctc_decoder
from fastctc.scoring import read_arpa

TOKENS = ["-", "|", "a", "b"]
SEPARATED = ["ab a b |", "ba b a |", "b b |", "b b b |"]
OPTIONAL = [
    "ab a b",
    "ba b a |",
    "b b",
    "ab b | a",
    "c b",
]  # silence within a spelling, at its end, or not at all
LN_10 = math.log(10)


def readings_of(lexicon: Sequence[str], weigh: Any, unk_score: float = -math.inf) -> Any:
    """Return the function from tokens to the words that they spell, with silence around words.

    If all spellings end with silence, the end of the tokens stands for it, too.
    """
    spellings = [(word, tuple(map(TOKENS.index, names))) for word, *names in map(str.split, lexicon)]

    def split(tokens: tuple[int, ...]) -> Iterator[tuple[str, ...]]:
        if not tokens:
            yield ()
        elif tokens[0] == 1:
            yield from split(tokens[1:])
        for word, labels in spellings:
            if tokens[: len(labels)] == labels:
                yield from ((word, *rest) for rest in split(tokens[len(labels) :]))
        if unk_score > -math.inf and 1 in tokens[1:] and tokens[0] != 1:
            end = tokens.index(1) + 1
            if all(labels != tokens[:end] for _, labels in spellings):
                yield from (("<unk>", *rest) for rest in split(tokens[end:]))

    def readings(tokens: tuple[int, ...]) -> Iterator[Reading]:
        separated = all(labels[-1] == 1 for _, labels in spellings)
        for words in split((*tokens, 1) if separated and tokens[-1:] != (1,) else tokens):
            unknown = words.count("<unk>")
            yield words, weigh(words) + (unknown * unk_score if unknown else 0.0)

    return readings


@pytest.mark.parametrize("lexicon", [SEPARATED, OPTIONAL], ids=["separated", "optional"])
@pytest.mark.parametrize("with_model", [False, True], ids=["", "model"])
@pytest.mark.parametrize("unk_score", [-math.inf, -0.6])
@pytest.mark.parametrize("seed", range(2))
def test_scores_equal_all_paths(
    tmp_path: Path, lexicon: list[str], with_model: bool, unk_score: float, seed: int
) -> None:
    """Emissions of all paths + lm_weight * log10 P + word_score * words + unk_score * unknown words + silence."""
    if unk_score > -math.inf and lexicon is OPTIONAL:
        pytest.skip("unknown words need separators")
    lm_weight, word_score, sil_score = 1.7, -0.4, 0.3
    decoder = ctc_decoder(
        lexicon=write_lines(tmp_path / "lexicon.txt", lexicon),
        tokens=TOKENS,
        lm=write_arpa(tmp_path / "lm.arpa", WORDS) if with_model else None,
        nbest=200,
        beam_size=1000,
        beam_threshold=math.inf,
        lm_weight=lm_weight,
        word_score=word_score,
        unk_score=unk_score,
        sil_score=sil_score,
        log_add=True,
    )
    emissions = 2 * torch.randn(5, 4, generator=torch.Generator().manual_seed(seed))  # not normalized

    def weigh(words: tuple[str, ...]) -> float:
        model = lm_weight * log10_of(words, WORDS) if with_model else 0.0
        return model + word_score * (len(words) - words.count("<unk>"))

    with_silence = emissions.clone()
    with_silence[:, 1] += sil_score
    expected = sums_of_paths(with_silence, 0, readings_of(lexicon, weigh, unk_score))
    (found,) = decoder(emissions.unsqueeze(0))
    assert {tuple(each.words): each.score for each in found} == pytest.approx(expected, abs=1e-4)
    scores = [each.score for each in found]
    assert scores == sorted(scores, reverse=True)


FOOBAR = ["-", "|", "f", "o", "b", "a", "r"]
FOOBAR_WORDS = ["foo f o o |", "bar b a r |", "foobar f o o b a r |"]
FOOBAR_MODEL = {
    ("<unk>",): (-0.9, 0.0),
    ("<s>",): (0.0, -0.3),
    ("</s>",): (-0.57, 0.0),
    ("foo",): (-0.47, -0.3),
    ("bar",): (-0.57, -0.3),
    ("<s>", "foo"): (-0.38, 0.0),
    ("foo", "bar"): (-0.59, 0.0),
}


def foobar_decoder(tmp_path: Path, use_lexicon: bool = True, **options: Any) -> CTCDecoder:
    lexicon = write_lines(tmp_path / "lexicon.txt", FOOBAR_WORDS) if use_lexicon else None
    return ctc_decoder(lexicon=lexicon, **{"tokens": FOOBAR} | options)


def foobar_emissions() -> torch.Tensor:
    """Return scores as torchaudio's tests have them: of one class more than there are tokens, and all positive."""
    return torch.rand(4, 15, 8, generator=torch.Generator().manual_seed(0))


def emissions_of(path: Sequence[int], classes: int = 7) -> torch.Tensor:
    return torch.eye(classes)[list(path)].mul(20).log_softmax(-1).unsqueeze(0)


@pytest.mark.parametrize("use_file", [True, False])
@pytest.mark.parametrize("with_model", [True, False])
@pytest.mark.parametrize("use_lexicon", [True, False])
def test_torchaudio_example_of_shapes(
    tmp_path: Path, use_file: bool, with_model: bool, use_lexicon: bool
) -> None:
    tokens = write_lines(tmp_path / "tokens.txt", FOOBAR) if use_file else FOOBAR
    lm = write_arpa(tmp_path / "lm.arpa", FOOBAR_MODEL) if with_model else None
    results = foobar_decoder(tmp_path, use_lexicon, tokens=tokens, lm=lm)(foobar_emissions())
    assert [len(hypotheses) for hypotheses in results] == [1] * 4
    for (best,) in results:
        assert isinstance(best, CTCHypothesis)
        assert best.tokens.shape == best.timesteps.shape
        assert best.tokens.dtype == torch.int64 and best.timesteps.dtype == torch.int32
        assert isinstance(best.score, float) and bool(best.words) == use_lexicon


def test_torchaudio_example_without_a_model(tmp_path: Path) -> None:
    """No model, and one of weight 0, have the same results."""
    lm = write_arpa(tmp_path / "lm.arpa", FOOBAR_MODEL)
    without = foobar_decoder(tmp_path, nbest=5)(foobar_emissions())
    weightless = foobar_decoder(tmp_path, nbest=5, lm=lm, lm_weight=0)(foobar_emissions())
    for one, other in zip(without, weightless):
        assert [each.words for each in one] == [each.words for each in other]
        assert [each.score for each in one] == pytest.approx([each.score for each in other], abs=1e-5)


def test_torchaudio_example_of_timesteps(tmp_path: Path) -> None:
    """The path f f - o o o - o, with silence before its first and after its last frame."""
    decoder = foobar_decoder(tmp_path, use_lexicon=False)
    ((best,),) = decoder(emissions_of([2, 2, 0, 3, 3, 3, 0, 3]))
    assert best.tokens.tolist() == [1, 2, 3, 3, 1]
    assert best.timesteps.tolist() == [0, 1, 4, 8, 9]
    assert decoder.idxs_to_tokens(best.tokens) == ["|", "f", "o", "o", "|"]
    assert best.words == []


@pytest.mark.parametrize(
    ("path", "tokens", "timesteps"),
    [
        ([1, 2], [1, 2, 1], [0, 2, 3]),  # silence from the first frame on is the silence before it
        ([0, 1, 2], [1, 1, 2, 1], [0, 2, 3, 4]),  # after a blank it is another one
        ([2, 1, 1], [1, 2, 1], [0, 1, 2]),
        ([2, 1, 0], [1, 2, 1, 1], [0, 1, 2, 4]),
        ([1, 1], [1], [0]),
        ([0, 0], [1, 1], [0, 3]),
        ([], [1], [0]),
    ],
)
def test_silence_around_the_path(
    tmp_path: Path, path: list[int], tokens: list[int], timesteps: list[int]
) -> None:
    ((best,),) = foobar_decoder(tmp_path, use_lexicon=False)(emissions_of(path))
    assert (best.tokens.tolist(), best.timesteps.tolist()) == (tokens, timesteps)


def test_torchaudio_example_of_names(tmp_path: Path) -> None:
    assert foobar_decoder(tmp_path).idxs_to_tokens(torch.tensor([1, 2, 1, 3, 5])) == ["|", "f", "|", "o", "a"]


def test_several_names_of_a_token(tmp_path: Path) -> None:
    """A line of the file is one class. Its first name is the name of results."""
    tokens = write_lines(tmp_path / "tokens.txt", ["-", "|", "f F", "o", "", "b", "a", "r"])
    lexicon = write_lines(tmp_path / "words.txt", ["Foo F o o |", "oof  o o f |"])
    decoder = ctc_decoder(lexicon=lexicon, tokens=tokens)
    ((best,),) = decoder(emissions_of([2, 3, 0, 3, 1]))
    assert best.words == ["Foo"] and decoder.idxs_to_tokens(best.tokens) == ["|", "f", "o", "o", "|"]


@pytest.mark.parametrize("use_lexicon", [True, False])
@pytest.mark.parametrize("chunk", [1, 4, 15])
def test_a_stream_equals_the_whole(tmp_path: Path, use_lexicon: bool, chunk: int) -> None:
    decoder = foobar_decoder(tmp_path, use_lexicon, nbest=3, sil_score=0.5)
    emissions = foobar_emissions()[:1]
    for _ in range(2):  # a decoder can begin again
        decoder.decode_begin()
        for part in emissions[0].split(chunk):
            decoder.decode_step(part)
        decoder.decode_end()
        found = decoder.get_final_hypothesis()
        (expected,) = decoder(emissions)
        assert [each.words for each in found] == [each.words for each in expected]
        assert [each.score for each in found] == pytest.approx([each.score for each in expected], abs=1e-5)
        for one, other in zip(found, expected):
            assert one.tokens.equal(other.tokens) and one.timesteps.equal(other.timesteps)


def test_a_stream_without_frames(tmp_path: Path) -> None:
    decoder = foobar_decoder(tmp_path)
    decoder.decode_begin()
    assert decoder.get_final_hypothesis()[0].tokens.tolist() == [1]


@pytest.mark.parametrize("step", ["decode_end", "get_final_hypothesis", "decode_step"])
def test_a_stream_has_to_begin(tmp_path: Path, step: str) -> None:
    arguments = [emissions_of([0])[0]] if step == "decode_step" else []
    with pytest.raises(RuntimeError, match=f"{step} needs a stream: call decode_begin first"):
        getattr(foobar_decoder(tmp_path), step)(*arguments)


def test_frames_beyond_lengths_are_not_read(tmp_path: Path) -> None:
    decoder = foobar_decoder(tmp_path, nbest=3)
    emissions = foobar_emissions()
    lengths = [15, 3, 0, 9]
    padded = emissions.clone()
    for row, length in zip(padded, lengths):
        row[length:] = math.nan
    together = decoder(padded, torch.tensor(lengths))
    for number, length in enumerate(lengths):
        (alone,) = decoder(emissions[number : number + 1, :length])
        assert [each.words for each in alone] == [each.words for each in together[number]]
        assert [each.score for each in alone] == pytest.approx([each.score for each in together[number]])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_emissions_of_all_dtypes_and_strides(tmp_path: Path, dtype: torch.dtype) -> None:
    decoder = foobar_decoder(tmp_path)
    emissions = foobar_emissions().to(dtype)
    strided = emissions.transpose(1, 2).contiguous().transpose(1, 2)
    expected = [best.score for (best,) in decoder(emissions.float())]
    assert [best.score for (best,) in decoder(strided)] == pytest.approx(expected, abs=1e-4)


def test_lm_of_other_kinds(tmp_path: Path) -> None:
    """A path object, and an automaton, equal the path as a str."""
    lm = write_arpa(tmp_path / "lm.arpa", FOOBAR_MODEL)
    emissions = foobar_emissions()
    results = [foobar_decoder(tmp_path, lm=each)(emissions) for each in (lm, Path(lm), read_arpa(lm))]
    scores = [[best.score for (best,) in each] for each in results]
    assert scores[0] == scores[1] == scores[2]


def test_lm_dict_has_the_words_of_the_lexicon(tmp_path: Path) -> None:
    complete = write_lines(tmp_path / "dict.txt", ["foobar", "<unk>", "bar", "foo"])
    expected = foobar_decoder(tmp_path)(foobar_emissions())
    found = foobar_decoder(tmp_path, lm_dict=complete)(foobar_emissions())
    assert [best.words for (best,) in found] == [best.words for (best,) in expected]
    lacking = write_lines(tmp_path / "lacking.txt", ["foobar", "<unk>", "bar"])
    with pytest.raises(
        ValueError, match=r"lm_dict is '.*lacking.txt', which lacks 'foo', a word of the lexicon"
    ):
        foobar_decoder(tmp_path, lm_dict=lacking)


# What differs from torchaudio, by the names of docs/migrating.md.


def test_difference_sums_over_paths(tmp_path: Path) -> None:
    """torchaudio takes the best path without log_add: here -1.2, of the path a a."""
    emissions = torch.tensor([[[-1.1, -50, -0.6, -50], [-1.1, -50, -0.6, -50], [-50, 0, -50, -50]]])
    lexicon = write_lines(tmp_path / "lexicon.txt", ["a a |"])
    for log_add in (True, False):
        ((best,),) = ctc_decoder(lexicon=lexicon, tokens=TOKENS, log_add=log_add)(emissions)
        assert best.score == pytest.approx(log_sum([-1.2, -1.7, -1.7]), abs=1e-5)


def test_difference_token_models_without_a_lexicon(tmp_path: Path) -> None:
    """In torchaudio the tokens of such a model are out of order."""
    model = {
        ("<unk>",): (-1.0, 0.0),
        ("<s>",): (-99.0, 0.0),
        ("</s>",): (-0.5, 0.0),
        ("a",): (-0.1, 0.0),
        ("b",): (-2.0, 0.0),
        ("|",): (-3.0, 0.0),
        ("a", "a"): (-0.1, 0.0),
    }
    lm = write_arpa(tmp_path / "lm.arpa", model)
    decoder = ctc_decoder(lexicon=None, tokens=TOKENS, lm=lm, lm_weight=1.0)
    for token, score in (("a", -0.6), ("b", -2.5), ("|", -3.5)):
        ((best,),) = decoder(torch.where(torch.arange(4) == TOKENS.index(token), 0.0, -50.0).view(1, 1, 4))
        assert best.score == pytest.approx(score, abs=1e-5)


def test_difference_more_than_six_homophones(tmp_path: Path) -> None:
    words = [f"w{number}" for number in range(9)]
    lexicon = write_lines(tmp_path / "lexicon.txt", [f"{word} a b |" for word in words])
    decoder = ctc_decoder(lexicon=lexicon, tokens=TOKENS, nbest=20)
    (found,) = decoder(emissions_of([2, 3, 1], 4))
    assert sorted(each.words[0] for each in found if each.words) == words


def test_difference_words_without_silence_repeat_their_last_token(tmp_path: Path) -> None:
    """Frames a, a, b, b spell "ab": ln of the sum of all such paths is -0.125."""
    lexicon = write_lines(tmp_path / "lexicon.txt", ["ab a b"])
    probabilities = torch.tensor([[0.05, 0.0, 0.9, 0.05], [0.05, 0.0, 0.9, 0.05]] * 2)
    probabilities[2:, 2:] = probabilities[2:, 2:].flip(-1)
    emissions = probabilities.log().unsqueeze(0)
    ((best,),) = ctc_decoder(lexicon=lexicon, tokens=TOKENS)(emissions)
    paths = [
        sum(math.log(float(row[token])) for row, token in zip(probabilities, path))
        for path in itertools.product((0, 2, 3), repeat=4)
        if [token for token, _ in itertools.groupby(path) if token] == [2, 3]
    ]
    assert best.words == ["ab"] and best.score == pytest.approx(log_sum(paths), abs=1e-5)


@pytest.mark.parametrize("nbest", [1, 5])
def test_spellings_of_a_word(tmp_path: Path, nbest: int) -> None:
    """With log_add they add up, otherwise the best one counts. They are one hypothesis in both cases."""
    lexicon = write_lines(tmp_path / "lexicon.txt", ["ab a b |", "ab b a |", "b b |"])
    emissions = torch.tensor([[-3, -50, -1, -1.5], [-3, -50, -1.2, -1.1], [-50, 0, -50, -50]]).unsqueeze(0)
    for log_add, score in ((True, log_sum([-1 - 1.1, -1.5 - 1.2])), (False, -1 - 1.1)):
        decoder = ctc_decoder(lexicon=lexicon, tokens=TOKENS, nbest=nbest, log_add=log_add)
        (found,) = decoder(emissions)
        scores = [each.score for each in found if each.words == ["ab"]]
        assert scores == pytest.approx([score], abs=1e-5)


def test_difference_unknown_words_are_any_tokens(tmp_path: Path) -> None:
    """In torchaudio an unknown word is a beginning of a known one."""
    decoder = foobar_decoder(tmp_path, unk_score=-3.0, unk_word="???", word_score=2.0)
    ((best,),) = decoder(emissions_of([2, 3, 0, 3, 1, 6, 5, 1]))
    assert best.words == ["foo", "???"]
    assert best.score == pytest.approx(2.0 - 3.0, abs=1e-3)


def test_difference_a_word_without_its_silence(tmp_path: Path) -> None:
    """torchaudio requires silence after the word at the end, or else leaves that word out."""
    emissions = torch.full((1, 4, 7), -math.inf)
    emissions[0, range(4), [2, 3, 0, 3]] = 0.0
    ((best,),) = foobar_decoder(tmp_path)(emissions)
    assert best.words == ["foo"] and best.score == pytest.approx(0.0)


def test_difference_only_beginnings_of_words(tmp_path: Path) -> None:
    """Hypotheses without a complete word come with the score -inf, torchaudio's with a finite one."""
    emissions = torch.full((1, 2, 7), -math.inf)
    emissions[0, range(2), [2, 3]] = 0.0
    ((best,),) = foobar_decoder(tmp_path)(emissions)
    assert best.words == [] and best.score == -math.inf and best.tokens.tolist() == [1, 2, 3, 1]


def test_difference_cut_of_tokens(tmp_path: Path) -> None:
    emissions = foobar_emissions()
    one, other = (foobar_decoder(tmp_path, beam_size_token=each)(emissions) for each in (None, 2))
    assert [best.score for (best,) in one] == [best.score for (best,) in other]
