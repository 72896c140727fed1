"""The results of decoders: tensors, and the same as lists, texts and spans."""

import math
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from fastctc.alignment import TokenSpan
from fastctc.scoring.lexicon_scorer import LexiconScorer
from fastctc.scoring.words import spell_words
from fastctc.text import Alphabet

__all__ = ["DecodeResult", "NBestResult", "ScoredResult"]

_Result = TypeVar("_Result", bound="DecodeResult")


class DecodeResult(NamedTuple):
    """One token sequence for each sample, with the place and the confidence of each token.

    All tensors have the leading dimensions of the input: (N), or none for a single sample.
    :class:`NBestResult`, the result of a beam search, has a dimension of hypotheses behind them.

    The best path decides where a token is: the most probable sequence of one class for each frame that spells the
    tokens. The *run* of a token is its consecutive frames on that path, ``timesteps[i]`` to ``ends[i] - 1``.
    All frames between the runs are blank. Log-probabilities are natural, and no score is above 0.

    A result of float64 input is in float64, of any other input in float32. For a beam search, confidences and token
    scores have the precision of float32 in both.
    """

    tokens: Tensor  #: (..., T) int64, padded with -1
    lengths: Tensor  #: (...) int64, the number of tokens
    scores: Tensor  #: (...) log-probability of the tokens; after greedy decoding, of the best path alone
    timesteps: Tensor  #: (..., T) int64, the first frame of each token's run, padded with -1
    confidences: Tensor  #: (..., T) the highest probability of each token in its run, padded with 0
    ends: Tensor  #: (..., T) int64, the frame after the last one of each token's run, padded with -1
    peaks: Tensor  #: (..., T) int64, the first frame that has the token's confidence, padded with -1
    token_scores: Tensor  #: (..., T) the mean log-probability of each token in its run, padded with 0
    path_scores: Tensor  #: (...) log-probability of the best path

    def to_list(self) -> list[Any]:
        """Return the tokens as a list of ints for each sample, nested like the leading dimensions.

        (N) gives N lists, a single sample one. A sample without a result (its score is NaN) has an empty list. This
        call waits for the device.
        """
        nested: list[Any] = _cut(self.tokens.tolist(), self.lengths.tolist())
        return nested

    def to_text(self, alphabet: Alphabet | Sequence[str]) -> Any:
        """Return the tokens as text, nested like :meth:`to_list`: a str for a single sample, a list of N for (N).

        Args:
            alphabet: an :class:`fastctc.Alphabet`, or the string of each class in order, with one for the blank. A
                str has one character for each class. The strings are joined without a space.

        Raises:
            ValueError: a token is no class of the alphabet.
        """
        return _spell(self.to_list(), self.lengths.dim(), alphabet)

    def spans(self) -> list[Any]:
        """Return a :class:`fastctc.TokenSpan` for each token, nested like :meth:`to_list`.

        ``start`` and ``end`` are the run of the token, and ``score`` is its token score. These are the spans that
        :func:`fastctc.merge_tokens` makes of the best path, without an alignment.
        :func:`fastctc.text.word_spans` takes them. This call waits for the device.

        >>> import torch, fastctc
        >>> log_probs = torch.tensor([[0.1, 0.9], [0.5, 0.5], [0.75, 0.25]]).log()
        >>> [(span.token, span.start, span.end) for span in fastctc.greedy_decode(log_probs, blank=1).spans()]
        [(0, 1, 3)]
        """
        columns = (self.tokens, self.timesteps, self.ends, self.token_scores)
        nested: list[Any] = _token_spans(self.to_list(), *(each.tolist() for each in columns[1:]))
        return nested

    def sample(self: _Result, index: int) -> _Result:
        """Return the result of one sample of a batch, without the dimension N.

        Args:
            index: number of the sample; a negative one counts from the end.

        Raises:
            IndexError: there is no such sample.
            ValueError: this is the result of a single sample.
        """
        if self.lengths.dim() == self._sample_dims:
            raise ValueError(
                "sample() needs the result of a batch, but this is the result of a single sample"
            )
        return self._map(lambda each: each[index])

    def to(self: _Result, device: torch.device | str | int, non_blocking: bool = False) -> _Result:
        """Return the result on another device; see :meth:`torch.Tensor.to`."""
        return self._map(lambda each: each.to(device=device, non_blocking=non_blocking))

    def cpu(self: _Result) -> _Result:
        """Return the result on the CPU."""
        return self.to("cpu")

    @property
    def _sample_dims(self) -> int:
        """Return the number of dimensions of ``lengths`` for a single sample."""
        return 0

    def _map(self: _Result, function: Callable[[Tensor], Tensor]) -> _Result:
        return type(self)(*(function(each) for each in self))


class NBestResult(DecodeResult):
    """The result of a beam search: a :class:`DecodeResult` with a last leading dimension for the hypotheses.

    So ``tokens`` is (N, nbest, T), or (nbest, T) for a single sample, best first. If there are fewer hypotheses
    than ``nbest``, the others have no tokens, and their scores and path scores are -inf.
    """

    __slots__ = ()

    def to_list(self) -> list[Any]:
        """Return the tokens as a list of ints for each hypothesis, nested like the leading dimensions.

        (N, nbest) gives N lists of at most nbest hypotheses, best first. A single sample gives one such list.
        Hypotheses that do not exist (score -inf) are left out, and so are all of a sample with the score NaN.
        """
        nested: list[Any] = _cut(self.tokens.tolist(), self.lengths.tolist(), self.scores.tolist())
        return nested

    def best(self) -> DecodeResult:
        """Return the best hypothesis of each sample alone: ``tokens`` (N, T), ``lengths`` (N), and so on."""
        hypotheses = self.lengths.dim() - 1
        return DecodeResult(*(each.select(hypotheses, 0) for each in self))

    def with_model_scores(self, added: Tensor) -> "ScoredResult":
        """Return the hypotheses with other scores, best first: ``added`` is part of their model scores.

        Equal scores keep their order. Missing hypotheses stay missing. See :func:`fastctc.scoring.rescore`.

        Args:
            added: (...) as ``scores``; floating-point, -inf to reject a hypothesis.

        Raises:
            ValueError: ``added`` has another shape.
        """
        if added.shape != self.scores.shape:
            raise ValueError(
                f"added has the shape {tuple(added.shape)}, expected {tuple(self.scores.shape)}, as scores"
            )
        scored = self if isinstance(self, ScoredResult) else _without_model(self)
        added = torch.where(scored.scores > -torch.inf, added.to(scored.scores), 0)
        changed = scored._replace(scores=scored.scores + added, model_scores=scored.model_scores + added)
        exists = changed.scores > -torch.inf  # not NaN either
        order = (
            torch.where(exists, changed.scores, -torch.inf).sort(dim=-1, descending=True, stable=True).indices
        )
        return changed._map(
            lambda each: (
                each.gather(-1, order)
                if each.dim() == order.dim()
                else each.gather(-2, order[..., None].expand(each.shape))
            )
        )

    @property
    def _sample_dims(self) -> int:
        return 1


class ScoredResult(NBestResult):
    """The result of a beam search with a scorer: an :class:`NBestResult` with four more tensors.

    The score of a hypothesis y is ``acoustic_scores`` + ``model_scores``: ln P(y | x), over the paths that the beam
    kept, and A(y), the weights of the scorer with the end of y. So scores can be above 0. Path scores, confidences
    and token scores are acoustic ones.

    A hypothesis that the scorer rejects at its end is left out. If it rejects all of them, the hypotheses of the
    beam are returned instead, and their scores and model scores are -inf.
    """

    __slots__ = ()
    _fields: Any = (*NBestResult._fields, "acoustic_scores", "model_scores", "words", "last_words")

    #: (...) ln P(y | x)
    acoustic_scores: Tensor = property(itemgetter(9))  # type: ignore[assignment]
    #: (...) A(y)
    model_scores: Tensor = property(itemgetter(10))  # type: ignore[assignment]
    #: (..., T) int64, the number of the word that the arc of each token completes, or -1. The number after the last
    #: word of the lexicon stands for a word that it lacks.
    words: Tensor = property(itemgetter(11))  # type: ignore[assignment]
    #: (...) int64, the number of the word that the end of y completes, or -1
    last_words: Tensor = property(itemgetter(12))  # type: ignore[assignment]

    def __new__(cls, *tensors: Tensor) -> "ScoredResult":
        """Return the result of 13 tensors."""
        return tuple.__new__(cls, tensors)

    def __repr__(self) -> str:
        return f"ScoredResult({', '.join(f'{name}={each!r}' for name, each in zip(self._fields, self))})"

    def best(self) -> DecodeResult:
        """Return the best hypothesis of each sample alone, without the four tensors."""
        return NBestResult(*self[: len(NBestResult._fields)]).best()

    def to_words(self, scorer: LexiconScorer, scale: float = 1.0) -> list[Any]:
        """Return the words of each hypothesis with their places, nested like the lists of tokens.

        Each word is a :class:`fastctc.text.TextSpan`, from the run of its first token to the run of its last one.
        This call waits for the device.

        Args:
            scorer: the scorer of the search, which has the words and the rule of their boundaries.
            scale: length of a frame, in the unit of the result: seconds, or columns of an image.
        """
        nested: list[Any] = _words(
            self.spans(), self.words.tolist(), self.last_words.tolist(), self.scores.tolist(), scorer, scale
        )
        return nested

    @classmethod
    def _make(cls, iterable: Iterable[Any]) -> "ScoredResult":  # type: ignore[override]
        return cls(*iterable)

    def _replace(self, **values: Any) -> "ScoredResult":
        return self._make(values.get(name, each) for name, each in zip(self._fields, self))


def _without_model(result: NBestResult) -> ScoredResult:
    """Return a result as one of a search whose model gives everything the weight 0."""
    no_words = torch.full_like(result.tokens, -1), torch.full_like(result.lengths, -1)
    model = torch.where(result.scores > -torch.inf, 0, result.scores)
    return ScoredResult(*result, result.scores, model, *no_words)


# torch.export.save writes the types of a program's outputs by these names.
for _result_type in (DecodeResult, NBestResult, ScoredResult):
    pytree._register_namedtuple(_result_type, serialized_type_name=f"fastctc.{_result_type.__name__}")


def _cut(tokens: Any, lengths: Any, scores: Any = None) -> Any:
    """Return nested lists of tokens without their padding; given scores, only lists with a score above -inf."""
    if isinstance(lengths, int):
        return tokens[:lengths]
    if scores is None:
        return [_cut(*pair) for pair in zip(tokens, lengths)]
    return [_cut(*each) for each in zip(tokens, lengths, scores) if not _is_missing(each[2])]


def _is_missing(score: Any) -> bool:
    return isinstance(score, float) and not score > -math.inf


def _token_spans(tokens: Any, starts: Any, ends: Any, scores: Any) -> Any:
    """Return the spans of nested lists; the lists of tokens have no padding, and may be fewer than the others."""
    nested = any(isinstance(each, list) for each in tokens)
    kind: Any = _token_spans if nested else TokenSpan
    return [kind(*each) for each in zip(tokens, starts, ends, scores)]


def _words(
    spans: Any, words: Any, last_words: Any, scores: Any, scorer: LexiconScorer, scale: float
) -> list[Any]:
    if isinstance(scores, float):
        return spell_words(spans, words, last_words, scorer, scale)
    each = [one for one in zip(words, last_words, scores) if not _is_missing(one[2])]
    return [_words(one, *rest, scorer, scale) for one, rest in zip(spans, each)]


def _spell(tokens: list[Any], depth: int, alphabet: Alphabet | Sequence[str]) -> Any:
    if depth > 0:
        return [_spell(each, depth - 1, alphabet) for each in tokens]
    if isinstance(alphabet, Alphabet):
        return alphabet.decode(tokens)
    for token in tokens:
        if token >= len(alphabet):
            raise ValueError(f"there is a token {token}, but alphabet has only {len(alphabet)} strings")
    return "".join(alphabet[token] for token in tokens)
