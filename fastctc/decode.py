"""Decoding: from log-probabilities to token sequences."""

from collections.abc import Callable, Sequence
from typing import Any

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
from fastctc.decode_result import DecodeResult, NBestResult, ScoredResult
from fastctc.errors import refuse_scripting
from fastctc.ops import LossArguments
from fastctc.scoring.callback_search import callback_search, calls_python
from fastctc.scoring.packed import SearchScorer, pack

__all__ = ["DecodeResult", "NBestResult", "ScoredResult", "beam_search", "greedy_decode"]


@refuse_scripting
def greedy_decode(
    log_probs: Tensor,
    input_lengths: Lengths | None = None,
    *,
    blank: int = 0,
    time_major: bool = False,
    from_logits: bool = False,
) -> DecodeResult:
    """Decode the best path: take the best class of each frame, merge repeats, and drop blanks.

    Nothing waits for the device, so this can be captured in a CUDA graph. ``torch.onnx.export(..., dynamo=True)``
    writes it in ONNX operators. (Graves et al., ICML 2006, section 3.2.)

    Args:
        log_probs: (N, T, C), or (T, N, C) if ``time_major``, or (T, C) for a single sample; float16, bfloat16,
            float32 or float64; natural-log probabilities, or logits if ``from_logits``. Any strides.
        input_lengths: (N) frames of each sample; all T if None. A tensor on any device, a sequence or an int.
        blank: the index of the blank class.
        time_major: the first dimension is time.
        from_logits: score under the log-softmax of ``log_probs``.

    Returns:
        A :class:`DecodeResult` on the device of ``log_probs``, without the N dimension for a single sample. Its
        ``scores`` are the natural-log probability of the best path, a lower bound on the probability of the
        tokens. Ties go to the lowest class. A sample has no tokens and the score NaN if a frame in use has a NaN
        or a logit of +inf.

    Raises:
        TypeError: log_probs is not floating-point, or input_lengths are not integers.
        ValueError: wrong dimensions; ``blank`` or (on the CPU) a length out of range; (on the CPU) a best
            log-probability above 0.01, so logits without ``from_logits`` or probabilities. On CUDA such samples
            get the score NaN: see :func:`fastctc.debug`.

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
    scorer: SearchScorer | Sequence[SearchScorer] | None = None,
) -> NBestResult:
    """Find the most probable token sequences, each summed over the paths that spell it: a CTC prefix beam search.

    After each frame the beam holds the ``beam_size`` most probable prefixes. Each has the probability of all paths
    through the beam that spell it: paths are merged before the beam is cut. The search is exact if the beam has
    room for every possible sequence. A frame takes O(W log W) for W prefixes. (Graves, "Supervised
    Sequence Labeling with Recurrent Neural Networks", 2012, section 7.5.3; Hannun et al., "First-Pass Large
    Vocabulary Continuous Speech Recognition using Bi-Directional Recurrent DNNs", 2014, arXiv:1408.2873.)

    The result of a sample has the same bits in every batch, padding and memory layout, and for every number of
    threads. On CUDA nothing waits for the device, so this can be captured in a CUDA graph.

    Prefixes of equal score have this order:

    - Prefixes that were in the beam before come first, in their old order.
    - New prefixes follow, by the rank of the prefix that they extend, then by the probability of their last token
      in the frame, then by that token.

    Args:
        log_probs: (N, T, C), or (T, N, C) if ``time_major``, or (T, C) for a single sample; float16, bfloat16,
            float32 or float64; natural-log probabilities, or logits if ``from_logits``. Any strides, without a
            copy. ``-inf`` is a probability of zero. Frames from ``input_lengths[n]`` on are never read.
        input_lengths: (N) frames of each sample; all T if None. A tensor on any device, a sequence or an int.
        beam_size: prefixes in the beam, at most 1024 on CUDA.
        nbest: hypotheses to return, at most ``beam_size``.
        blank: the index of the blank class.
        time_major: the first dimension is time.
        from_logits: search under the log-softmax of ``log_probs``.
        exact_scores: replace the score of each hypothesis by its natural-log probability over all of its paths,
            also outside of the beam, and sort by that. It is minus :func:`fastctc.ctc_loss`, which is called once
            for each of the nbest.
        beam_threshold: distance of natural logarithms. A prefix this far below the best one leaves the beam.
        token_threshold: distance of natural logarithms. A class this far below the best class of its frame extends
            no prefix in that frame.
        blank_skip: a probability above 0, at most 1. If the blank has more, no path emits a token in the frame.
            The frame still separates repeated tokens.
        scorer: language models, lexicons, hotwords or grammars of :mod:`fastctc.scoring` that weigh the tokens: an
            :class:`fastctc.Automaton`, a :class:`fastctc.scoring.LexiconScorer`, or up to three of them, whose
            weights are added. They are on the device of ``log_probs``. Or a
            :class:`fastctc.scoring.CallbackScorer`, or any number of these and automata: then the search runs in
            Python on the CPU, and is much slower.

    ``beam_threshold``, ``token_threshold`` and ``blank_skip`` save time and can lose hypotheses; None is no cut.

    With a scorer, a sequence y has the score ln P(y | x) + A(y), where A(y) is the sum of its weights. The beam
    holds the prefixes of the best scores so far, and the results are sorted by the score with the end of y. If a
    scorer has several ways to weigh y, such as words that are spelled alike, each way is a hypothesis of its own.

    Returns:
        An :class:`NBestResult` on the device of ``log_probs``, best hypothesis first, without the N dimension for
        a single sample.

        - A score without ``exact_scores`` is a lower bound: it leaves out paths that the beam has dropped.
        - The best path, and with it the run of each token, is the best one within the beam. If two paths have
          the same score, the token ends in the earlier frame and begins in the earlier frame.
        - If there are fewer than nbest hypotheses, the others have length 0 and the score -inf.
        - A sample with a NaN in a frame in use has no hypotheses and the scores NaN. It does not affect others.
        - With a scorer it is a :class:`ScoredResult`, which also has both parts of the scores, and words.

    Raises:
        TypeError: log_probs is not floating-point, input_lengths are not integers, or an option is of another
            type.
        ValueError: wrong dimensions; an option or (on the CPU) a length out of range; T * beam_size is 2^31 or
            more; (on the CPU) log-probabilities above 0.01, so logits without ``from_logits`` or probabilities.
            On CUDA such samples get the scores NaN: see :func:`fastctc.debug`.

    >>> import torch, fastctc
    >>> log_probs = torch.tensor([[0.6, 0.4], [0.6, 0.4]]).log()  # of the blank and "a"
    >>> fastctc.greedy_decode(log_probs).to_text("-a")  # the best path is blank, blank: 0.36
    ''
    >>> result = fastctc.beam_search(log_probs, nbest=2)  # but three paths spell "a": 0.24 + 0.24 + 0.16
    >>> result.to_text("-a"), [round(p, 2) for p in result.scores.exp().tolist()]
    (['a', ''], [0.64, 0.36])
    >>> result.best().to_text("-a")
    'a'
    >>> empty_or_twice = fastctc.scoring.regular_expression("|aa", fastctc.Alphabet("a"))
    >>> fastctc.beam_search(log_probs, scorer=empty_or_twice).best().to_text("-a")
    ''
    """
    blank = check_scores(log_probs, blank)
    beam_size = check_count(beam_size, "beam_size")
    nbest = check_nbest(nbest, beam_size)
    options = search_options(blank, from_logits, beam_threshold, token_threshold, blank_skip)
    input, lengths = _batch(log_probs, input_lengths, time_major)
    arguments: tuple[Any, ...] = (input, lengths, beam_size, nbest, *options)
    search: Callable[..., tuple[Tensor, ...]] = ops.beam_search
    kind: type[NBestResult] = NBestResult
    if scorer is not None:
        kind = ScoredResult
        if calls_python(scorer):
            search, arguments = callback_search, (*arguments, scorer)
        else:
            search, arguments = ops.scored_search, (*arguments, *pack(scorer, input.device))
    result = kind(*search(*arguments))
    check_decoded(search, result.scores, *arguments)
    if exact_scores:
        result = _with_exact_scores(result, input, lengths, blank, from_logits)
    return kind(*(t.squeeze(0) for t in result)) if log_probs.dim() == 2 else result


def _batch(log_probs: Tensor, input_lengths: Lengths | None, time_major: bool) -> tuple[Tensor, Tensor]:
    """Return the input as (N, T, C), and its lengths (N)."""
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
    """Score the hypotheses by the loss and sort them again. Going rank by rank needs no copies of the input."""
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
    exact = torch.stack(losses, 1).neg().clamp(max=0)
    if isinstance(result, ScoredResult):
        acoustic = torch.where(found, exact, result.acoustic_scores)
        result = result._replace(acoustic_scores=acoustic)
        exact = exact + result.model_scores
    scores = torch.where(found, exact, result.scores)
    order = torch.where(found, scores, -torch.inf).sort(dim=1, descending=True, stable=True).indices
    result = result._replace(scores=scores)

    def sort(each: Tensor) -> Tensor:
        index = order if each.dim() == 2 else order[:, :, None].expand(each.shape)
        return each.gather(1, index)

    return type(result)(*(sort(each) for each in result))
