"""The executable definition of fastctc's operations, in plain PyTorch and float64.

Everything here is slow and short on purpose. It defines what the compiled operations compute, and the tests
compare them with it. `brute_force` is more basic still: it enumerates every path, without a recursion.
Arguments are not checked here.

Notation: N batch, T frames, C classes, S target length, L = 2S+1 length of the extended label (Graves et al.,
2006, "Connectionist Temporal Classification", section 4.1): a blank, then each label followed by a blank.
"""

# Long file: one oracle for all operations, which share the extended label and the handling of options.

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = [
    "DecodeReference",
    "beam_search_reference",
    "brute_force",
    "collapse",
    "ctc_loss_reference",
    "ctc_posteriors_reference",
    "forced_align_reference",
    "greedy_decode_reference",
    "runs",
]

Lengths = Tensor | Sequence[int] | int
MAX_PATHS = 1 << 18


def ctc_loss_reference(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Lengths,
    target_lengths: Lengths,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
    *,
    from_logits: bool = False,
    focal_gamma: float = 0.0,
    label_priors: Tensor | None = None,
    blank_penalty: float = 0.0,
    delay_penalty: float = 0.0,
    star: int | None = None,
) -> Tensor:
    """Compute what `fastctc.ctc_loss` computes, by the forward recursion in float64.

    The gradient is autograd's derivative of the recursion, to any order. It is the derivative by `log_probs`
    as they are given, and equals minus the posteriors.

    | input | result |
    | --- | --- |
    | target with no alignment (too few frames, or all of its paths at probability 0) | +inf, gradient 0 |
    | the same with `zero_infinity` | 0, gradient 0 |
    | log-probability -inf (masked class) | probability 0, finite gradients |
    | frame t >= input_length | never read, gradient 0, whatever it holds |
    | NaN in a used frame | NaN in that sample only |
    | empty target | -sum_t log p_t(blank) |
    | input length 0 | 0 for an empty target, otherwise +inf |
    | T = 0 or N = 0 | as above, or an empty result |
    | a label equal to the blank | a label like any other, emitted with the blank's probability |

    Args:
        log_probs: (T, N, C) or (T, C), natural-log probabilities, or logits with `from_logits`.
        targets: (N, S) padded, (sum of target_lengths,) concatenated, or (S,) where `log_probs` is (T, C).
        input_lengths: (N,) frames in use.
        target_lengths: (N,) labels in use.
        blank: class index of the blank.
        reduction: "none", "sum", or "mean": the mean over the batch of loss / max(target_length, 1).
        zero_infinity: count an infinite loss as 0.
        from_logits: apply a log-softmax over C first.
        focal_gamma: multiply each loss by (1 - exp(-loss))^gamma; the product is 0 where exp(-loss) is 1 or
            more.
        label_priors: (C,), subtracted from the log-probabilities.
        blank_penalty: subtracted from the blank's log-probability.
        delay_penalty: add delay_penalty * ((frames - 1) / 2 - t) to a path's score for each label that begins
            in frame t.
        star: a label that is emitted with probability 1 in any frame.

    Returns:
        float64, (N,) for reduction "none" (() where `log_probs` is (T, C)), otherwise ().
    """
    batched = log_probs.dim() == 3
    x = log_probs.double() if batched else log_probs.double().unsqueeze(1)
    num_frames, num_samples, _ = x.shape
    frames = _lengths(input_lengths, num_samples, x.device)
    labels = _lengths(target_lengths, num_samples, x.device)
    if star is not None:
        targets = torch.where(targets == star, x.shape[2], targets)  # a column that is added below
    extended = _extended_labels(targets.to(x.device), labels, blank)

    used = torch.arange(num_frames, device=x.device)[:, None] < frames
    x = torch.where(used[:, :, None], x, 0.0)
    if from_logits:
        x = x.log_softmax(dim=2)
    if label_priors is not None:
        x = x - label_priors.detach().to(x)
    x = x - blank_penalty * torch.nn.functional.one_hot(torch.tensor(blank), x.shape[2]).to(x)
    if star is not None:
        x = torch.nn.functional.pad(x, (0, 1), value=0.0)
    emissions = x.gather(2, extended.expand(num_frames, -1, -1))

    alpha = _forward(emissions, extended, used, delay_penalty)
    last_blank = alpha.gather(1, 2 * labels[:, None])
    last_label = alpha.gather(1, (2 * labels[:, None] - 1).clamp(min=0))
    last_label = torch.where(labels[:, None] > 0, last_label, -torch.inf)
    loss = -_log_sum_exp(last_blank, last_label).squeeze(1)

    if zero_infinity:
        loss = torch.where(loss == torch.inf, 0.0, loss)
    if focal_gamma != 0:
        ordinary = (loss > 0) & (loss < torch.inf) | loss.isnan()
        finite = torch.where(ordinary, loss, 1.0)
        weighted = finite * (1.0 - torch.exp(-finite)) ** focal_gamma
        loss = torch.where(ordinary, weighted, torch.where(loss == torch.inf, loss, 0.0))
    if not batched:
        loss, labels = loss.squeeze(0), labels.squeeze(0)
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if reduction == "mean":
        return (loss / labels.clamp(min=1)).mean()
    raise ValueError(f'reduction must be "none", "sum" or "mean", got {reduction!r}')


def ctc_posteriors_reference(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Lengths,
    target_lengths: Lengths,
    blank: int = 0,
    *,
    from_logits: bool = False,
    **options: Any,
) -> Tensor:
    """Compute gamma[n, t, c] = P(the path is at class c in frame t | it spells the target), (N, T, C) float64.

    It is minus the derivative of the loss with respect to log p_t(c). A frame in use sums to 1 over the
    classes and the star. A padding frame and a target with no alignment are 0. (T, C) input gives (T, C).
    `options` are label_priors, blank_penalty, delay_penalty and star.
    """
    x = log_probs.detach().double()
    if from_logits:
        x = x.log_softmax(dim=-1)
    x.requires_grad_()
    with torch.enable_grad():
        loss = ctc_loss_reference(x, targets, input_lengths, target_lengths, blank, "sum", **options)
    (gradient,) = torch.autograd.grad(loss, x)
    return -gradient.transpose(0, 1) if x.dim() == 3 else -gradient


def _lengths(lengths: Lengths, num_samples: int, device: torch.device) -> Tensor:
    return torch.as_tensor(lengths, device=device).to(torch.int64).reshape(num_samples)


def _extended_labels(targets: Tensor, lengths: Tensor, blank: int) -> Tensor:
    """Return blank, label, blank, label, ..., blank, (N, L). Beyond a target's length all are blank."""
    num_samples = len(lengths)
    longest = int(lengths.max()) if num_samples else 0
    position = torch.arange(longest, device=targets.device)
    if targets.dim() == 2:
        index = (
            position.expand(num_samples, -1)
            + targets.shape[1] * torch.arange(num_samples, device=targets.device)[:, None]
        )
    else:
        index = position + (lengths.cumsum(0) - lengths)[:, None]
    inside = position < lengths[:, None]
    extended = torch.full((num_samples, 2 * longest + 1), blank, dtype=torch.int64, device=targets.device)
    padded = extended[:, 1::2]
    padded[inside] = targets.reshape(-1)[index[inside]].to(torch.int64)
    return extended


def _forward(emissions: Tensor, extended: Tensor, used: Tensor, delay_penalty: float) -> Tensor:
    """Return log alpha (N, L) after each sample's last frame, from log emissions (T, N, L).

    Equations 6 and 7 of the paper: a state is reached from itself, from the one before, and from two before
    when both are labels and differ. The recursion starts before the first frame, in the leading blank with
    probability 1. An arc into a label from elsewhere begins it, and is scored by the delay penalty.
    """
    num_samples, num_states = extended.shape
    is_label = torch.arange(num_states, device=extended.device) % 2 == 1
    middle = (used.sum(dim=0)[:, None].double() - 1.0) / 2
    may_skip = torch.zeros_like(extended, dtype=torch.bool)
    may_skip[:, 2:] = is_label[2:] & (extended[:, 2:] != extended[:, :-2])

    alpha = torch.full((num_samples, num_states), -torch.inf, dtype=torch.float64, device=emissions.device)
    alpha[:, 0] = 0.0
    alpha = alpha + emissions[:0].sum(dim=0)  # with no frame at all, still a function of the emissions
    for t in range(len(emissions)):
        one_before = torch.nn.functional.pad(alpha, (1, 0), value=-torch.inf)[:, :-1]
        two_before = torch.nn.functional.pad(alpha, (2, 0), value=-torch.inf)[:, :-2]
        two_before = torch.where(may_skip, two_before, -torch.inf)
        begin = delay_penalty * (middle - t) * is_label
        moved = _log_sum_exp(alpha, one_before + begin, two_before + begin) + emissions[t]
        alpha = torch.where(used[t][:, None], moved, alpha)
    return alpha


def _log_sum_exp(*terms: Tensor) -> Tensor:
    """Return log(sum(exp(term))) of each element. Where all terms are -inf, its derivatives are 0, not NaN."""
    stacked = torch.stack(terms)
    peak = stacked.detach().amax(dim=0)
    dead = peak == -torch.inf
    peak = torch.where(dead, 0.0, peak)
    total = (stacked - peak).exp().sum(dim=0)
    return torch.where(dead, -torch.inf, torch.where(dead, 1.0, total).log() + peak)


def forced_align_reference(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Lengths,
    target_lengths: Lengths,
    blank: int = 0,
    *,
    from_logits: bool = False,
    star: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute what `fastctc.forced_align` computes for (T, N, C) input: int64 paths and float64 scores, (N, T).

    This is Viterbi's recursion in float64. Of equally probable ways into a state it takes: staying, then the
    blank or label just before, then the label two before. At the end it takes the last label, then the last
    blank.
    """
    x = log_probs.detach().double()
    x = x.log_softmax(dim=2) if from_logits else x
    num_frames, num_samples, num_classes = x.shape
    frames = _lengths(input_lengths, num_samples, x.device).tolist()
    labels = _lengths(target_lengths, num_samples, x.device)
    if star is not None:
        targets = torch.where(targets == star, num_classes, targets)
        x = torch.nn.functional.pad(x, (0, 1), value=0.0)
    extended = _extended_labels(targets.to(x.device), labels, blank)
    paths = torch.full((num_samples, num_frames), blank, dtype=torch.int64)
    scores = torch.zeros(num_samples, num_frames, dtype=torch.float64)
    for n in range(num_samples):
        states = extended[n, : 2 * int(labels[n]) + 1].tolist()
        emissions = x[: frames[n], n][:, states]
        path = _best_path(emissions.cpu(), states, blank)
        if path is None:
            nan = bool((emissions.isnan() | (emissions == math.inf)).any())
            scores[n] = math.nan if nan else -math.inf
            continue
        for t, state in enumerate(path):
            label = states[state]
            paths[n, t] = star if star is not None and label == num_classes else label
            scores[n, t] = emissions[t, state]
    return paths.to(x.device), scores.to(x.device)


def _best_path(emissions: Tensor, states: list[int], blank: int) -> list[int] | None:
    """Return the state in each frame, from log emissions (T, L), or None if no path has a probability above 0."""
    if not (emissions < math.inf).all():
        return None
    best = torch.full((len(states),), -math.inf, dtype=torch.float64)
    best[0] = 0.0  # in the leading blank, before the first frame
    may_skip = torch.tensor([s >= 2 and c != blank and c != states[s - 2] for s, c in enumerate(states)])
    never = torch.full((2,), -math.inf, dtype=torch.float64)
    steps = []
    for row in emissions:
        one, two = torch.cat([never[:1], best])[:-1], torch.cat([never, best])[:-2]
        two = torch.where(may_skip, two, -math.inf)
        step = torch.where((two > best) & (two > one), 2, one > best).to(torch.int8)
        best = torch.maximum(torch.maximum(best, one), two) + row
        steps.append(step)
    state = len(states) - 1
    if state > 0 and best[state - 1] >= best[state]:
        state -= 1
    if best[state] == -math.inf:
        return None
    path = []
    for step in reversed(steps):
        path.append(state)
        state -= int(step[state])
    return path[::-1]


class DecodeReference(NamedTuple):
    """The results of a decoder; tokens and timesteps are padded with -1, confidences with 0; natural-log scores."""

    tokens: Tensor  # (N, T), or (N, nbest, T) of the beam search
    lengths: Tensor  # (N), (N, nbest)
    scores: Tensor
    timesteps: Tensor  # like tokens
    confidences: Tensor


# Tokens, score, and for each token the first frame and the highest log-probability of its run on the best path.
Hypothesis = tuple[tuple[int, ...], float, tuple[tuple[int, float], ...]]


def greedy_decode_reference(
    log_probs: Tensor,
    input_lengths: Lengths | None = None,
    *,
    blank: int = 0,
    time_major: bool = False,
    from_logits: bool = False,
) -> DecodeReference:
    """Compute what `fastctc.greedy_decode` computes: the best class per frame, repeats merged, then blanks dropped.

    The best class is the one of highest log-probability, the lowest index where several share it. The score
    is the sum of those log-probabilities over the frames in use: the probability of the path, not of the
    labeling. A token's timestep is the first frame of its run, its confidence its highest probability there.
    A NaN anywhere in a frame in use makes the sample's score NaN.
    """

    def decode(rows: list[list[float]]) -> list[Hypothesis]:
        path = [max(range(len(row)), key=lambda c: (row[c], -c)) for row in rows]
        score = sum(row[c] for row, c in zip(rows, path))
        return [(collapse(path, blank), score, runs(path, rows, blank))]

    result = _decode_batch(log_probs, input_lengths, 1, time_major, from_logits, decode)
    hypothesis = 0 if log_probs.dim() == 2 else 1
    return DecodeReference(*(each.select(hypothesis, 0) for each in result))


def beam_search_reference(
    log_probs: Tensor,
    input_lengths: Lengths | None = None,
    *,
    beam_size: int = 10,
    nbest: int = 1,
    blank: int = 0,
    time_major: bool = False,
    from_logits: bool = False,
    beam_threshold: float = math.inf,
    token_threshold: float = math.inf,
    blank_skip: float = math.inf,
) -> DecodeReference:
    """Compute what `fastctc.beam_search` computes, by dictionaries of prefixes in float64.

    Scores of prefixes that are equal but for rounding may come in another order. A NaN anywhere in a frame in
    use makes the sample's scores NaN.
    """
    log_skip = math.log(blank_skip) if blank_skip < math.inf else math.inf

    def decode(rows: list[list[float]]) -> list[Hypothesis]:
        beam: dict[tuple[int, ...], _Prefix] = {(): _Prefix(blank=0.0, best_blank=(0.0, ()))}
        for t, row in enumerate(rows):
            frame = _Frame(t, row, blank, row[blank] > log_skip, max(row) - token_threshold)
            beam = _next_beam(beam, frame, beam_size, beam_threshold)
        return [(prefix, p.total, p.best[1]) for prefix, p in list(beam.items())[:nbest]]

    return _decode_batch(log_probs, input_lengths, nbest, time_major, from_logits, decode)


# The score of a path, and of each of its tokens the first frame and the peak of its run.
Path = tuple[float, tuple[tuple[int, float], ...]]
NO_PATH: Path = (-math.inf, ())


class _Prefix(NamedTuple):
    """Log-probabilities of all paths that spell a prefix, and the best path, by whether they end in the blank."""

    blank: float = -math.inf
    label: float = -math.inf
    best_blank: Path = NO_PATH
    best_label: Path = NO_PATH

    @property
    def total(self) -> float:
        return _log_add(self.blank, self.label)

    @property
    def best(self) -> Path:
        return self.best_label if self.best_label[0] > self.best_blank[0] else self.best_blank


class _Frame(NamedTuple):
    t: int
    row: list[float]
    blank: int
    is_blank: bool  # for certain
    lowest: float  # token to extend by


def _next_beam(
    beam: dict[tuple[int, ...], _Prefix], frame: _Frame, beam_size: int, beam_threshold: float
) -> dict[tuple[int, ...], _Prefix]:
    """Return the beam after one more frame, best prefix first."""
    candidates = []
    for rank, (prefix, p) in enumerate(beam.items()):
        stays = _stay(prefix, p, beam.get(prefix[:-1]) if prefix else None, prefix[:-1], frame)
        candidates.append(((-stays.total, 0, rank, 0.0, 0), prefix, stays))
        for token, y in enumerate(frame.row):
            longer = (*prefix, token)
            if token == frame.blank or frame.is_blank or y < frame.lowest or longer in beam:
                continue
            reach, (score, path) = _leading_to(token, prefix, p)
            extended = _Prefix(label=reach + y, best_label=(score + y, (*path, (frame.t, y))))
            candidates.append(((-extended.total, 1, rank, -y, token), longer, extended))
    candidates = [each for each in candidates if each[0][0] < math.inf]
    candidates.sort(key=lambda each: each[0])
    return {
        prefix: p
        for key, prefix, p in candidates[:beam_size]
        if -key[0] >= -candidates[0][0][0] - beam_threshold
    }


def _leading_to(token: int, prefix: tuple[int, ...], p: _Prefix) -> tuple[float, Path]:
    """Return what a next token continues: the score and the best path. After the same token both end in a blank."""
    repeats = prefix[-1:] == (token,)
    return (p.blank, p.best_blank) if repeats else (p.total, p.best)


def _stay(
    prefix: tuple[int, ...], p: _Prefix, parent: _Prefix | None, parent_prefix: tuple[int, ...], frame: _Frame
) -> _Prefix:
    """Return a prefix after a frame that adds no token to it."""
    y_blank, (score, path) = frame.row[frame.blank], p.best
    blank, best_blank = p.total + y_blank, (score + y_blank, path)
    if frame.is_blank or not prefix:
        return _Prefix(blank=blank, best_blank=best_blank)
    token = prefix[-1]
    y = frame.row[token]
    reach, best_reach = -math.inf, NO_PATH
    if parent is not None:
        reach, best_reach = _leading_to(token, parent_prefix, parent)
    if best_reach[0] > p.best_label[0]:
        best_label = best_reach[0] + y, (*best_reach[1], (frame.t, y))
    else:
        score, path = p.best_label
        best_label = score + y, (*path[:-1], *((first, max(peak, y)) for first, peak in path[-1:]))
    return _Prefix(blank, _log_add(p.label, reach) + y, best_blank, best_label)


def _log_add(a: float, b: float) -> float:
    larger = max(a, b)
    return larger if larger == -math.inf else larger + math.log1p(math.exp(min(a, b) - larger))


def _decode_batch(
    log_probs: Tensor,
    input_lengths: Lengths | None,
    nbest: int,
    time_major: bool,
    from_logits: bool,
    decode: Callable[[list[list[float]]], list[Hypothesis]],
) -> DecodeReference:
    """Return `decode` of the frames in use of each sample, in tensors. A NaN among them makes all scores NaN."""
    batched = log_probs.dim() == 3
    x = log_probs.detach().double()
    x = x.unsqueeze(0) if not batched else x.transpose(0, 1) if time_major else x
    num_samples, num_frames, _ = x.shape
    if input_lengths is None:
        input_lengths = [num_frames] * num_samples
    frames = _lengths(input_lengths, num_samples, x.device).tolist()

    tokens = torch.full((num_samples, nbest, num_frames), -1, dtype=torch.int64)
    timesteps, confidences = tokens.clone(), torch.zeros(tokens.shape, dtype=torch.float64)
    lengths = torch.zeros(num_samples, nbest, dtype=torch.int64)
    scores = torch.full((num_samples, nbest), -math.inf, dtype=torch.float64)
    for n in range(num_samples):
        rows = x[n, : frames[n]].log_softmax(dim=1) if from_logits else x[n, : frames[n]]
        if rows.isnan().any():
            scores[n] = math.nan
            continue
        for k, (labels, score, runs_of_labels) in enumerate(decode(rows.tolist())):
            scores[n, k], lengths[n, k] = score, len(labels)
            for i, (label, (first, peak)) in enumerate(zip(labels, runs_of_labels)):
                tokens[n, k, i], timesteps[n, k, i], confidences[n, k, i] = label, first, math.exp(peak)
    result = [each.to(x.device) for each in (tokens, lengths, scores, timesteps, confidences)]
    return DecodeReference(*(result if batched else [each[0] for each in result]))


def runs(path: Sequence[int], rows: list[list[float]], blank: int = 0) -> tuple[tuple[int, float], ...]:
    """Return the first frame of the run of each token of a path, and the highest log-probability there."""
    result: list[tuple[int, float]] = []
    frame = 0
    for label, run in itertools.groupby(path):
        first, frame = frame, frame + len(list(run))
        if label != blank:
            result.append((first, max(rows[t][label] for t in range(first, frame))))
    return tuple(result)


def collapse(path: Sequence[int], blank: int = 0) -> tuple[int, ...]:
    """Return the labeling that a path spells: repeats merged, then blanks dropped.

    >>> collapse([0, 1, 1, 0, 1, 2])
    (1, 1, 2)
    """
    return tuple(label for label, _ in itertools.groupby(path) if label != blank)


def brute_force(
    log_probs: Tensor, blank: int = 0, delay_penalty: float = 0.0
) -> dict[tuple[int, ...], tuple[Tensor, Tensor]]:
    """Return every labeling of (T, C) log-probabilities with its log P, (), and its posteriors, (T, C), in float64.

    All C^T paths are enumerated, so T and C must be small. Labelings of probability 0 are listed too, with
    log P = -inf and posteriors 0. A labeling that is absent has no path. A label that begins in frame t adds
    delay_penalty * ((T - 1) / 2 - t) to the score of its path.
    """
    num_frames, num_classes = log_probs.shape
    if num_classes**num_frames > MAX_PATHS:
        raise ValueError(
            f"{num_classes}^{num_frames} paths are too many to enumerate, the limit is {MAX_PATHS}"
        )
    x = log_probs.detach().double().cpu()
    spelled: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for path in itertools.product(range(num_classes), repeat=num_frames):
        spelled.setdefault(collapse(path, blank), []).append(path)

    result = {}
    for labeling, paths in spelled.items():
        path_classes = torch.tensor(paths, dtype=torch.int64).reshape(len(paths), num_frames)
        scores = x[torch.arange(num_frames), path_classes].sum(dim=1)
        before = torch.nn.functional.pad(path_classes, (1, 0), value=blank)[:, :-1]
        begins = (path_classes != blank) & (path_classes != before)
        earliness = (num_frames - 1) / 2 - torch.arange(num_frames, dtype=torch.float64)
        scores += delay_penalty * (begins * earliness).sum(dim=1)
        log_p = scores.logsumexp(dim=0)
        weights = torch.zeros_like(scores) if log_p == -torch.inf else (scores - log_p).exp()
        posteriors = torch.zeros_like(x)
        for t in range(num_frames):
            posteriors[t].index_add_(0, path_classes[:, t], weights)
        result[labeling] = (log_p, posteriors)
    return result
