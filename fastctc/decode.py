"""Decoding: from log-probabilities to token sequences."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastctc import ops
from fastctc.arguments import (
    Lengths,
    check_count,
    check_nbest,
    check_scores,
    check_search,
    lengths_tensor,
    search_options,
)
from fastctc.ops import LossArguments
from fastctc.text import Alphabet

__all__ = ["DecodeResult", "NBestResult", "beam_search", "greedy_decode"]


class DecodeResult(NamedTuple):
    """What a decoder found: one token sequence for each sample, on the device of its input.

    Leading dimensions are those of the input: (N), or none for a single sample. :class:`NBestResult`, the
    result of a beam search, has a dimension of hypotheses behind them.
    """

    tokens: Tensor  #: (..., T) int64, padded with -1
    lengths: Tensor  #: (...) int64, the number of tokens
    scores: Tensor  #: (...) natural-log probability
    timesteps: Tensor  #: (..., T) int64, the first frame of each token's run on the best path, padded with -1
    confidences: Tensor  #: (..., T) the highest probability of each token in that run, padded with 0

    def to_list(self) -> list[Any]:
        """The tokens as a list of ints for each sample, nested as the leading dimensions are.

        (N) gives N lists, a single sample one. A sample without a result (its score is NaN) has an empty list. This
        waits for the device.
        """
        nested: list[Any] = _cut(self.tokens.tolist(), self.lengths.tolist())
        return nested

    def to_text(self, alphabet: Alphabet | Sequence[str]) -> Any:
        """The tokens as text, nested as in :meth:`to_list`: one str for a single sample, a list of N for (N).

        Args:
            alphabet: an :class:`fastctc.Alphabet`, or the string of each class in order, the blank's among
                them: the pieces of a vocabulary, which are joined without a space, or a str of one character
                per class.

        Raises:
            ValueError: a token that is no class of the alphabet.
        """
        return _spell(self.to_list(), self.lengths.dim(), alphabet)


class NBestResult(DecodeResult):
    """What a beam search found: a :class:`DecodeResult` whose last leading dimension is that of the hypotheses.

    So ``tokens`` is (N, nbest, T), or (nbest, T) for a single sample, best first. Where there are fewer
    hypotheses than ``nbest``, the others have no tokens and the score -inf.
    """

    __slots__ = ()

    def to_list(self) -> list[Any]:
        """The tokens as a list of ints for each hypothesis, nested as the leading dimensions are.

        (N, nbest) gives N lists of the hypotheses there are, at most nbest, best first; a single sample gives
        one such list. Hypotheses that do not exist (score -inf) are left out, and so are all of a sample with
        the score NaN.
        """
        nested: list[Any] = _cut(self.tokens.tolist(), self.lengths.tolist(), self.scores.tolist())
        return nested

    def best(self) -> DecodeResult:
        """The best hypothesis of each sample alone: ``tokens`` (N, T), ``lengths`` (N), and so on."""
        hypotheses = self.lengths.dim() - 1
        return DecodeResult(*(each.select(hypotheses, 0) for each in self))


def _cut(tokens: Any, lengths: Any, scores: Any = None) -> Any:
    """Nested lists of tokens without their padding; with scores, of those that are more than -inf."""
    if isinstance(lengths, int):
        return tokens[:lengths]
    if scores is None:
        return [_cut(*pair) for pair in zip(tokens, lengths)]
    return [_cut(*each) for each in zip(tokens, lengths, scores) if not _is_missing(each[2])]


def _is_missing(score: Any) -> bool:
    return isinstance(score, float) and not score > -math.inf


def _spell(tokens: list[Any], depth: int, alphabet: Alphabet | Sequence[str]) -> Any:
    if depth > 0:
        return [_spell(each, depth - 1, alphabet) for each in tokens]
    if isinstance(alphabet, Alphabet):
        return alphabet.decode(tokens)
    for token in tokens:
        if token >= len(alphabet):
            raise ValueError(f"there is a token {token}, but alphabet has only {len(alphabet)} strings")
    return "".join(alphabet[token] for token in tokens)


def greedy_decode(
    log_probs: Tensor,
    input_lengths: Lengths | None = None,
    *,
    blank: int = 0,
    time_major: bool = False,
    from_logits: bool = False,
) -> DecodeResult:
    """Greedy (best path) decoding: the best class of each frame, repeats merged, blanks dropped.

    Nothing waits for the device, so this can be captured in a CUDA graph. (Graves et al., ICML 2006, section
    3.2.)

    Args:
        log_probs: (N, T, C), or (T, N, C) if ``time_major``, or (T, C) for a single sample; float16, bfloat16,
            float32 or float64; natural-log probabilities, or logits if ``from_logits``. Any strides.
        input_lengths: (N) frames of each sample; all T if None. A tensor on any device, a sequence or an int.
        blank: the index of the blank class.
        time_major: the first dimension is time.
        from_logits: score under the log-softmax of ``log_probs``.

    Returns:
        ``tokens`` (N, T) and ``timesteps`` (N, T), int64 and padded with -1, ``lengths`` (N) int64; ``scores``
        (N), the natural-log probability of the best path (a lower bound of that of the tokens), and
        ``confidences`` (N, T), the highest probability of each token in its run, padded with 0, in float64 for
        float64 input, else float32. Without the N dimension for a single sample. Ties go to the lowest class. A
        sample with a NaN in a frame that is used has no tokens and the score NaN.

    Raises:
        TypeError: log_probs is not floating-point, or input_lengths are not integers.
        ValueError: wrong dimensions; ``blank`` or (on the CPU) a length out of range.

    >>> import torch, fastctc
    >>> log_probs = torch.eye(3)[[1, 1, 0, 1, 2]].log_softmax(-1)
    >>> result = fastctc.greedy_decode(log_probs)
    >>> result.to_list(), result.timesteps.tolist(), result.to_text("-ab")
    ([1, 1, 2], [0, 3, 4, -1, -1], 'aab')
    """
    check_scores(log_probs, blank)
    input, lengths = _batch(log_probs, input_lengths, time_major)
    result = DecodeResult(*ops.greedy_decode(input, lengths, blank, from_logits))
    return DecodeResult(*(t.squeeze(0) for t in result)) if log_probs.dim() == 2 else result


def beam_search(
    log_probs: Tensor,
    input_lengths: Lengths | None = None,
    *,
    beam_size: int = 10,
    nbest: int = 1,
    blank: int = 0,
    time_major: bool = False,
    from_logits: bool = False,
    exact_scores: bool = False,
    beam_threshold: float | None = None,
    token_threshold: float | None = None,
    blank_skip: float | None = None,
) -> NBestResult:
    """CTC prefix beam search: the most probable token sequences, summed over the paths that spell them.

    After each frame the beam holds the ``beam_size`` most probable prefixes, each with the probability of all
    paths through the beam that spell it: first the paths are merged, then the beam is cut. With ``beam_size``
    no less than the number of possible sequences it is exact, and a larger one finds no worse in general.
    (Graves, "Supervised Sequence Labeling with Recurrent Neural Networks", 2012, section 7.5.3; Hannun et al.,
    "First-Pass Large Vocabulary Continuous Speech Recognition using Bi-Directional Recurrent DNNs", 2014,
    arXiv:1408.2873.)

    The result of a sample is the same, to the bit, whatever surrounds it: its batch, padding, memory layout,
    the number of threads. On CUDA nothing waits for the device, so this can be captured in a CUDA graph.

    Prefixes of equal score are ordered: those that were in the beam before come before new ones; the former
    among themselves as before; the latter by the rank of the prefix they extend, then by the probability of
    their last token in the frame, then by that token.

    Args:
        log_probs: (N, T, C), or (T, N, C) if ``time_major``, or (T, C) for a single sample; float16, bfloat16,
            float32 or float64; natural-log probabilities, or logits if ``from_logits``. Any strides, no copy is
            made. ``-inf`` is a probability of zero. Frames from ``input_lengths[n]`` on are never read.
        input_lengths: (N) frames of each sample; all T if None. A tensor on any device, a sequence or an int.
        beam_size: prefixes in the beam, at most 1024 on CUDA.
        nbest: hypotheses to return, at most ``beam_size``.
        blank: the index of the blank class.
        time_major: the first dimension is time.
        from_logits: search under the log-softmax of ``log_probs``.
        exact_scores: replace the score of each hypothesis by its natural-log probability
            over all of its paths, those outside of the beam too, and sort by that. It is minus
            :func:`fastctc.ctc_loss`, which is called once for each of the nbest.
        beam_threshold: prefixes whose score is more than this below the best are dropped from the beam.
        token_threshold: classes whose log-probability is more than this below that of the best class of their
            frame extend no prefix in that frame.
        blank_skip: a probability above 0, at most 1. Where the blank has more, the frame counts as blank for
            certain: no path emits a token in it. The frame is not dropped, so it separates repeated tokens
            like any blank.

    The last three save time and can lose hypotheses; None is no cut. The first two are distances of natural
    logarithms.

    Returns:
        ``tokens`` and ``timesteps`` (N, nbest, T), int64 and padded with -1; ``lengths`` (N, nbest) int64;
        ``scores`` (N, nbest), the natural-log probability of the tokens, in float64 for float64 input, else
        float32, best first; ``confidences`` (N, nbest, T) of the same type, padded with 0. All on the device of
        ``log_probs``, and without the N dimension for a single sample.

        A score without ``exact_scores`` leaves out paths that the beam has dropped: it is a lower bound.
        ``timesteps`` are the first frames of the tokens' runs on the best path that spells the hypothesis
        (within the beam), so they increase strictly; ``confidences`` are the highest probabilities of the
        tokens in these runs. Where there are fewer than nbest hypotheses, the others have length 0 and the
        score -inf. A sample with a NaN in a frame that is used has no hypotheses and the scores NaN; the others
        are not affected.

    Raises:
        TypeError: log_probs is not floating-point, input_lengths are not integers, or an option is of another
            type.
        ValueError: wrong dimensions; an option or (on the CPU) a length out of range; T * beam_size is 2^31 or
            more; (on the CPU) log-probabilities above 0.01, that is, logits without ``from_logits`` or
            probabilities. On CUDA such samples get the scores NaN: see :func:`fastctc.debug`.

    >>> import torch, fastctc
    >>> log_probs = torch.tensor([[0.6, 0.4], [0.6, 0.4]]).log()  # of the blank and "a"
    >>> fastctc.greedy_decode(log_probs).to_text("-a")  # the best path is blank, blank: 0.36
    ''
    >>> result = fastctc.beam_search(log_probs, nbest=2)  # but three paths spell "a": 0.24 + 0.24 + 0.16
    >>> result.to_text("-a"), [round(p, 2) for p in result.scores.exp().tolist()]
    (['a', ''], [0.64, 0.36])
    >>> result.best().to_text("-a")
    'a'
    """
    check_scores(log_probs, blank)
    check_count(beam_size, "beam_size")
    check_nbest(nbest, beam_size)
    options = search_options(blank, from_logits, beam_threshold, token_threshold, blank_skip)
    input, lengths = _batch(log_probs, input_lengths, time_major)
    arguments = (input, lengths, beam_size, nbest, *options)
    result = NBestResult(*ops.beam_search(*arguments))
    check_search(result.scores, *arguments)
    if exact_scores:
        result = _with_exact_scores(result, input, lengths, blank, from_logits)
    return NBestResult(*(t.squeeze(0) for t in result)) if log_probs.dim() == 2 else result


def _batch(log_probs: Tensor, input_lengths: Lengths | None, time_major: bool) -> tuple[Tensor, Tensor]:
    """The input as (N, T, C), and its lengths (N)."""
    if log_probs.dim() == 2:
        log_probs = log_probs.unsqueeze(0)
    elif time_major:
        log_probs = log_probs.transpose(0, 1)
    batch, frames, _ = log_probs.shape
    if input_lengths is None:
        lengths = torch.full((batch,), frames, dtype=torch.int64, device=log_probs.device)
    else:
        lengths = lengths_tensor(input_lengths, "input_lengths", batch, log_probs.device)
    return log_probs.detach(), lengths


def _with_exact_scores(
    result: NBestResult, input: Tensor, input_lengths: Tensor, blank: int, from_logits: bool
) -> NBestResult:
    """The hypotheses scored by the loss and sorted again; rank by rank, so that the input needs no copies."""
    longest = input.shape[1]
    if input.device.type == "cpu" and not torch.compiler.is_compiling() and result.lengths.numel() > 0:
        longest = int(result.lengths.max())  # known without waiting; saves memory
    losses = []
    for rank in range(result.lengths.shape[1]):
        arguments = LossArguments(
            input=input.transpose(0, 1),
            targets=result.tokens[:, rank, :longest].contiguous(),
            input_lengths=input_lengths,
            target_lengths=result.lengths[:, rank].contiguous(),
            class_bias=None,
            max_length=longest,
            blank=blank,
            star=-1,
            delay_penalty=0.0,
            from_logits=from_logits,
        )
        loss, *_ = ops.ctc_loss(*arguments, False)
        losses.append(loss)
    found = result.scores > -torch.inf  # not NaN either
    scores = torch.where(found, -torch.stack(losses, 1), result.scores)
    order = torch.where(found, scores, -torch.inf).sort(dim=1, descending=True, stable=True).indices
    result = NBestResult(result.tokens, result.lengths, scores, result.timesteps, result.confidences)

    def sort(each: Tensor) -> Tensor:
        index = order if each.dim() == 2 else order[:, :, None].expand(each.shape)
        return each.gather(1, index)

    return NBestResult(*(sort(each) for each in result))
