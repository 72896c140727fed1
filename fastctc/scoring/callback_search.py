"""The prefix beam search with scorers in Python: batched tensors, and one call of each scorer per frame.

Its definition is :func:`fastctc.scoring.beam_search_with_scorers`, for scorers with one arc per token.
In the shapes, N is the batch, T frames, C classes, W slots of a beam, K hypotheses, B pairs of a slot and a token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from fastctc import ops
from fastctc.errors import ArgumentTypeError
from fastctc.scoring.automaton import Automaton
from fastctc.scoring.callback import ROUNDING, CallbackScorer
from fastctc.scoring.path_runs import describe_paths

__all__ = ["callback_search", "calls_python"]

EMPTY, ORPHAN = -2, -3  # the number of an empty slot, and of its parent; the empty prefix has the parent -1


@torch.no_grad()
def callback_search(
    input: Tensor,
    input_lengths: Tensor,
    beam_size: int,
    nbest: int,
    blank: int,
    from_logits: bool,
    beam_threshold: float,
    token_threshold: float,
    blank_skip: float,
    scorer: CallbackScorer | Sequence[CallbackScorer | Automaton],
) -> tuple[Tensor, ...]:
    """Return the 13 tensors of a :class:`fastctc.ScoredResult`, on the device of the input.

    The arguments are the same as for ``fastctc.ops.beam_search``, and the scorer. It runs on the CPU.

    Raises:
        ValueError: the errors of :func:`fastctc.greedy_decode` for values of the input and lengths. Or a scorer
            returned what :class:`CallbackScorer` forbids.
    """
    device, scalar = input.device, torch.float64 if input.dtype == torch.float64 else torch.float32
    input, input_lengths = input.cpu(), input_lengths.cpu()
    is_nan = ops.greedy_decode(input, input_lengths, blank, from_logits)[2].isnan()  # raises for wrong values
    log_probs = input.double().log_softmax(2) if from_logits else input.double()
    log_probs = _with_certain_blanks(log_probs, input_lengths, blank, blank_skip, is_nan)
    search = _Search(log_probs, _callbacks(scorer), beam_size, blank, token_threshold)
    for t in range(log_probs.shape[1]):
        search.advance(t, beam_threshold)

    score, acoustic, model, path_scores, places = search.hypotheses(nbest)
    paths = search.paths(places)
    exists = (acoustic > -math.inf) & ~is_nan[:, None]
    paths[~exists] = blank
    tokens, lengths, timesteps, confidences, ends, peaks, token_scores = describe_paths(
        paths, log_probs, blank
    )
    for each in (score, acoustic, model, path_scores):
        each[~exists] = -math.inf
        each[is_nan] = math.nan
    no_words = (torch.full_like(tokens, -1), torch.full_like(lengths, -1))
    tensors = (tokens, lengths, score, timesteps, confidences, ends, peaks, token_scores, path_scores)
    found = (*tensors, acoustic, model, *no_words)
    return tuple(each.to(device, scalar if each.is_floating_point() else each.dtype) for each in found)


def calls_python(scorer: object) -> bool:
    """Return True if a scorer, or one of several, is a :class:`CallbackScorer`."""
    parts = scorer if isinstance(scorer, (list, tuple)) else [scorer]
    return any(isinstance(each, CallbackScorer) for each in parts)


def _callbacks(scorer: CallbackScorer | Sequence[CallbackScorer | Automaton]) -> list[CallbackScorer]:
    parts: Sequence[object] = scorer if isinstance(scorer, (list, tuple)) else [scorer]
    result = []
    for place, part in enumerate(parts):
        if isinstance(part, Automaton):
            part = CallbackScorer.of(part)
        if not isinstance(part, CallbackScorer):
            raise ArgumentTypeError(
                f"scorer[{place}] is beside a CallbackScorer and must be an Automaton or a CallbackScorer,"
                f" got {type(part).__name__}"
            )
        result.append(part)
    return result


def _with_certain_blanks(
    log_probs: Tensor, lengths: Tensor, blank: int, blank_skip: float, is_nan: Tensor
) -> Tensor:
    """Return log-probabilities (N, T, C) without other classes where the blank is taken for certain.

    Behind the last frame in use, and in samples with a NaN, the blank has the probability 1, which changes nothing.
    """
    frames = torch.arange(log_probs.shape[1])
    unused = (frames >= lengths[:, None]) | is_nan[:, None]
    certain = unused | (log_probs[:, :, blank] > blank_skip)
    result = log_probs.masked_fill(certain[:, :, None], -math.inf)
    result[:, :, blank] = torch.where(unused, 0.0, log_probs[:, :, blank])
    return result


class _Beam(NamedTuple):
    """Prefixes, best first, each field (N, W), or candidates (B)."""

    blank: Tensor  # log-probabilities of the paths that end in the blank, weights included
    label: Tensor  # of the others
    best_blank: Tensor  # of the best of these paths, acoustic
    best_label: Tensor
    weight: Tensor  # of the scorers
    node: Tensor  # the number of the prefix
    parent: Tensor  # the number of the prefix without its last token
    last: Tensor  # token, -1 for the empty prefix
    # Where the best path was one frame before: 2 * slot, + 1 if it ended in a label.
    before_blank: Tensor
    before_label: Tensor

    @property
    def total(self) -> Tensor:
        return torch.logaddexp(self.blank, self.label)

    @property
    def best(self) -> Tensor:
        return torch.maximum(self.best_blank, self.best_label)

    @property
    def best_end(self) -> Tensor:
        """Return 1 where the best path ends in a label; where an equal path ends in the blank, that is the best."""
        return (self.best_label > self.best_blank).long()

    def at(self, slots: Tensor) -> _Beam:
        """Return the prefixes of slots (N, W)."""
        return _Beam(*(each.gather(1, slots) for each in self))

    def only(self, lives: Tensor) -> _Beam:
        """Return the prefixes with the others as empty slots, which never match a parent."""
        result = _Beam(*(each.clone() for each in self))
        for each in result[:4]:
            each[~lives] = -math.inf
        for each, empty in ((result.weight, 0.0), (result.node, EMPTY), (result.parent, ORPHAN)):
            each[~lives] = empty
        return result


class _Pairs(NamedTuple):
    """Slots and next tokens, each field (B), by sample, then in the order of ties."""

    sample: Tensor
    slot: Tensor
    token: Tensor
    reach: Tensor  # log-probability of the paths that the token continues
    y: Tensor  # log-probability of the token
    weight: Tensor  # of the prefix with the token, as far as scorers have been called

    def where(self, mask: Tensor) -> _Pairs:
        return _Pairs(*(each[mask] for each in self))


class _Search:
    """The beams of a batch after some frames."""

    def __init__(
        self,
        log_probs: Tensor,
        scorers: list[CallbackScorer],
        beam_size: int,
        blank: int,
        token_threshold: float,
    ) -> None:
        self.log_probs, self.scorers, self.beam_size, self.blank = log_probs, scorers, beam_size, blank
        self.token_threshold = token_threshold
        batch = log_probs.shape[0]
        numbers = torch.arange(batch)[:, None]
        zero = torch.zeros(batch, 1, dtype=torch.float64)
        never, none = torch.full_like(zero, -math.inf), torch.full_like(numbers, -1)
        nowhere = torch.zeros_like(numbers)
        self.beam = _Beam(zero, never, zero, never, zero, numbers, none, none, nowhere, nowhere)
        self.states: list[Any] = [
            scorer.first_states(batch) for scorer in scorers
        ]  # of slot w of n: n * W + w
        self.nodes: dict[tuple[int, int], int] = {}  # number of a prefix by its parent and its last token
        self.history: list[tuple[Tensor, Tensor, Tensor]] = []  # last, before_blank, before_label

    def advance(self, t: int, beam_threshold: float) -> None:
        """Take one more frame."""
        row, beam = self.log_probs[:, t], self.beam
        batch, width = beam.node.shape
        parent = _parents(beam)
        stays = self._stays(row, parent)
        pairs, states = self._weighed(self._pairs(row, parent, stays, beam_threshold), stays, beam_threshold)
        births = self._births(pairs)

        place = width + torch.arange(len(births.node)) - torch.searchsorted(pairs.sample, pairs.sample)
        count = int(place.max()) + 1 if place.numel() else width
        merged = _Beam(*(_merge(*each, pairs.sample, place, count) for each in zip(stays, births)))
        totals, order = merged.total.sort(dim=1, descending=True, stable=True)
        lives = (totals > -math.inf) & (totals >= totals[:, :1] - beam_threshold)
        keep = min(self.beam_size, max(1, int(lives.sum(1).max()) if batch else 1))
        lives, order = lives[:, :keep], order[:, :keep]
        self.beam = self._numbered(merged.at(order).only(lives), lives & (order >= width))
        self.history.append((self.beam.last, self.beam.before_blank, self.beam.before_label))

        old = torch.arange(batch * width).view(batch, width)
        new = batch * width + torch.arange(len(births.node))
        rows = _merge(old, new, pairs.sample, place, count).gather(1, order).flatten()
        self.states = [
            pytree.tree_map(lambda one, other: torch.cat((one, other))[rows], *each)
            for each in zip(self.states, states)
        ]

    def _stays(self, row: Tensor, parent: Tensor) -> _Beam:
        """Return the prefixes of the beam one frame later."""
        beam, blank = self.beam, row[:, self.blank, None]
        above = beam.at(parent.clamp(min=0))
        repeats, orphan = above.last == beam.last, parent < 0
        reach = torch.where(repeats, above.blank, above.total) + (beam.weight - above.weight)
        best_reach = torch.where(repeats, above.best_blank, above.best).masked_fill(orphan, -math.inf)
        reach_end = torch.where(repeats, 0, above.best_end)
        begins = best_reach > beam.best_label  # of equal paths the token of the other begins earlier
        slot = torch.arange(beam.node.shape[1]).expand_as(parent)
        y = row.gather(1, beam.last.clamp(min=0)).masked_fill(beam.last < 0, -math.inf)
        return beam._replace(
            blank=beam.total + blank,
            label=torch.logaddexp(beam.label, reach.masked_fill(orphan, -math.inf)) + y,
            best_blank=beam.best + blank,
            best_label=torch.where(begins, best_reach, beam.best_label) + y,
            before_blank=2 * slot + beam.best_end,
            before_label=torch.where(begins, 2 * parent + reach_end, 2 * slot + 1),
        )

    def _pairs(self, row: Tensor, parent: Tensor, stays: _Beam, beam_threshold: float) -> _Pairs:
        """Return the pairs that enter the beam if all their weights are the largest."""
        beam = self.beam
        lowest = self._worst(stays, beam_threshold) - sum(each.largest_weight for each in self.scorers)
        values = row.masked_fill(row < row.amax(1, keepdim=True) - self.token_threshold, -math.inf)
        values[:, self.blank] = -math.inf
        values, order = values.sort(dim=1, descending=True, stable=True)
        possible = (values > -math.inf) & (beam.total.amax(1, keepdim=True) + values >= lowest[:, None])
        columns = int(possible.sum(1).max()) if len(row) else 0
        rank = order.argsort(1).gather(1, beam.last.clamp(min=0))  # of the last token
        values, order = values[:, None, :columns], order[:, :columns]
        reach = beam.total[:, :, None].expand(-1, -1, columns)
        reach = torch.where(order[:, None] == beam.last[:, :, None], beam.blank[:, :, None], reach)
        enters = (reach + values >= lowest[:, None, None]) & (reach + values > -math.inf)
        sample, slot = ((parent >= 0) & (rank < columns)).nonzero(as_tuple=True)
        enters[sample, parent[sample, slot], rank[sample, slot]] = False  # these are in the beam
        sample, slot, rank = enters.nonzero(as_tuple=True)
        token, weight = order[sample, rank], beam.weight[sample, slot]
        return _Pairs(sample, slot, token, reach[sample, slot, rank], row[sample, token], weight)

    def _weighed(self, pairs: _Pairs, stays: _Beam, beam_threshold: float) -> tuple[_Pairs, list[Any]]:
        """Return the pairs that may enter the beam by the weights of the scorers, and the states after them.

        A scorer is called for the pairs that the scorers before it leave.
        """
        worst = self._worst(stays, beam_threshold)
        largest = sum(each.largest_weight for each in self.scorers)
        states: list[Any] = []
        for scorer, before in zip(self.scorers, self.states):
            rows = pairs.sample * self.beam.node.shape[1] + pairs.slot
            after = _rows(before, rows)
            if len(rows):
                after, gains = scorer.advance(after, pairs.token)
                pairs = pairs._replace(weight=pairs.weight + gains)
            largest -= scorer.largest_weight
            gained = pairs.weight - self.beam.weight[pairs.sample, pairs.slot]
            bound = pairs.reach + gained + pairs.y + largest
            kept = (bound >= worst[pairs.sample]) & (bound > -math.inf)
            pairs = pairs.where(kept)
            states = [_rows(each, kept) for each in (*states, after)]
        return pairs, states

    def _worst(self, stays: _Beam, beam_threshold: float) -> Tensor:
        """Return (N) what a new prefix needs, up to rounding: no less than a full beam and the threshold."""
        worst = stays.total.amax(1) - beam_threshold
        if stays.total.shape[1] == self.beam_size:
            worst = torch.maximum(worst, stays.total.amin(1))
        return worst - ROUNDING

    def _births(self, pairs: _Pairs) -> _Beam:
        """Return the prefixes of pairs, without their numbers."""
        beam, at = self.beam, (pairs.sample, pairs.slot)
        repeats = beam.last[at] == pairs.token
        best = torch.where(repeats, beam.best_blank[at], beam.best[at])
        end = torch.where(repeats, 0, beam.best_end[at])
        never, none = torch.full_like(pairs.y, -math.inf), torch.full_like(pairs.token, -1)
        return _Beam(
            blank=never,
            label=pairs.reach + (pairs.weight - beam.weight[at]) + pairs.y,
            best_blank=never,
            best_label=best + pairs.y,
            weight=pairs.weight,
            node=none,
            parent=beam.node[at],
            last=pairs.token,
            before_blank=torch.zeros_like(end),
            before_label=2 * pairs.slot + end,
        )

    def _numbered(self, beam: _Beam, born: Tensor) -> _Beam:
        """Give new prefixes their numbers: a prefix that comes back has the number that it had."""
        first = beam.node.shape[0]
        keys = zip(beam.parent[born].tolist(), beam.last[born].tolist())
        numbers = [self.nodes.setdefault(key, first + len(self.nodes)) for key in keys]
        beam.node[born] = torch.tensor(numbers, dtype=torch.int64)
        return beam

    def hypotheses(self, nbest: int) -> list[Tensor]:
        """Return scores, acoustic, model and path scores, best first, and places as in before_label: all (N, K).

        An acoustic score of -inf means that there is no hypothesis.
        """
        beam = self.beam
        total, weight = beam.total, beam.weight.clone()
        for scorer, states in zip(self.scorers, self.states):
            weight += scorer.finish(states, weight.numel()).view_as(weight)
        scores = total + (weight - beam.weight)
        accepted = scores > -math.inf
        exists = (total > -math.inf) & (accepted | ~accepted.any(1, keepdim=True))
        acoustic = (total - beam.weight).clamp(max=0).masked_fill(~exists, -math.inf)
        weight = weight.masked_fill(~accepted, -math.inf)
        slot = torch.arange(total.shape[1]).expand_as(beam.node)
        order = scores.sort(dim=1, descending=True, stable=True).indices[:, :nbest]
        found = (scores, acoustic, weight, beam.best.clamp(max=0), 2 * slot + beam.best_end)
        padding = (0, nbest - order.shape[1])
        return [
            torch.nn.functional.pad(
                each.gather(1, order), padding, value=-math.inf if each.is_floating_point() else 0
            )
            for each in found
        ]

    def paths(self, places: Tensor) -> Tensor:
        """Return the best path of each hypothesis: classes (N, K, T)."""
        classes = []
        for last, before_blank, before_label in reversed(self.history):
            slot, in_label = places // 2, places % 2 == 1
            classes.append(torch.where(in_label, last.gather(1, slot), self.blank))
            places = torch.where(in_label, before_label.gather(1, slot), before_blank.gather(1, slot))
        if not classes:
            return places.new_zeros((*places.shape, 0))
        return torch.stack(classes[::-1], 2)


def _parents(beam: _Beam) -> Tensor:
    """Return (N, W) the slot of each prefix without its last token, -1 where it is not in the beam."""
    equal = beam.parent[:, :, None] == beam.node[:, None, :]
    return torch.where(equal.any(2), equal.int().argmax(2), -1)


def _rows(states: Any, rows: Tensor) -> Any:
    return pytree.tree_map(lambda each: each[rows], states)


def _merge(stays: Tensor, births: Tensor, sample: Tensor, place: Tensor, count: int) -> Tensor:
    """Return (N, count): values of the beam (N, W), and values (B) at places behind them; -inf or 0 elsewhere."""
    batch, width = stays.shape
    result = stays.new_full((batch, count), -math.inf if stays.is_floating_point() else 0)
    result[:, :width] = stays
    result[sample, place] = births
    return result
