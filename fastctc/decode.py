"""Decoding: from log-probabilities to token sequences."""

import torch
from torch import Tensor

from fastctc import (
    decomposition,  # noqa: F401  registers how torch.onnx.export writes greedy decoding
    ops,
)
from fastctc.arguments import (
    Lengths,
    can_be_read,
    check_count,
    check_decoded,
    check_nbest,
    check_scores,
    lengths_tensor,
    search_options,
    with_any_length,
)
from fastctc.decode_result import DecodeResult, NBestResult
from fastctc.errors import refuse_scripting
from fastctc.ops import LossArguments

__all__ = ["DecodeResult", "NBestResult", "beam_search", "greedy_decode"]


@refuse_scripting
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
    blank = check_scores(log_probs, blank)
    input, lengths = _batch(log_probs, input_lengths, time_major)
    arguments = (input, lengths, blank, from_logits)
    found = ops.greedy_decode(*arguments)
    check_decoded(ops.greedy_decode, found[2], *arguments)
    result = DecodeResult(*found, path_scores=found[2])
    return DecodeResult(*(t.squeeze(0) for t in result)) if log_probs.dim() == 2 else result


@refuse_scripting
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
    blank = check_scores(log_probs, blank)
    beam_size = check_count(beam_size, "beam_size")
    nbest = check_nbest(nbest, beam_size)
    options = search_options(blank, from_logits, beam_threshold, token_threshold, blank_skip)
    input, lengths = _batch(log_probs, input_lengths, time_major)
    arguments = (input, lengths, beam_size, nbest, *options)
    result = NBestResult(*ops.beam_search(*arguments))
    check_decoded(ops.beam_search, result.scores, *arguments)
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
    tokens = result.tokens
    if can_be_read(result.lengths) and result.lengths.numel() > 0:
        tokens = tokens[:, :, : int(result.lengths.max())]  # known without waiting; saves memory
    losses = []
    for rank in range(result.lengths.shape[1]):
        arguments = LossArguments(
            input=input.transpose(0, 1),
            targets=tokens[:, rank].contiguous(),
            input_lengths=input_lengths,
            target_lengths=result.lengths[:, rank].contiguous(),
            class_bias=None,
            max_length=tokens.shape[2],
            blank=blank,
            star=-1,
            delay_penalty=0.0,
            from_logits=from_logits,
        )
        loss, *_ = ops.ctc_loss(*with_any_length(arguments), False)
        losses.append(loss)
    found = result.scores > -torch.inf  # not NaN either
    scores = torch.where(found, torch.stack(losses, 1).neg().clamp(max=0), result.scores)
    order = torch.where(found, scores, -torch.inf).sort(dim=1, descending=True, stable=True).indices
    result = result._replace(scores=scores)

    def sort(each: Tensor) -> Tensor:
        index = order if each.dim() == 2 else order[:, :, None].expand(each.shape)
        return each.gather(1, index)

    return NBestResult(*(sort(each) for each in result))
