"""Beam search while frames are still arriving."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastctc import ops
from fastctc.arguments import (
    Lengths,
    check_count,
    check_decoded,
    check_nbest,
    check_scores,
    debugging,
    integer,
    lengths_tensor,
    listed,
    search_options,
    traced,
)
from fastctc.decode_result import NBestResult, ScoredResult
from fastctc.errors import ArgumentTypeError, ArgumentValueError, refuse_scripting
from fastctc.scoring.packed import SearchScorer, pack

__all__ = ["BeamSearchDecoder"]

LARGEST_ARENA = ops._C.LARGEST_ARENA  # nodes
NODE_INTS = ops._C.BEAM_NODE_INTS  # int32 of a node


@refuse_scripting
class BeamSearchDecoder:
    """A beam search of streams: frames come in chunks, and a result is available after each chunk.

    The result has the bits of :func:`fastctc.beam_search` on all frames at once, for chunks of any size.

    Streams are the samples of one batch. Each may get its own number of frames of a chunk, and each can be reset
    alone. The state is in tensors on ``device``, and nothing waits for the device. ``copy.deepcopy`` makes a
    decoder that continues from the same point.

    Args:
        num_streams: number of streams, N.
        beam_size: prefixes in the beam of each stream, at most 1024 on CUDA.
        nbest: hypotheses that :meth:`result` returns by default, at most ``beam_size``.
        blank: the index of the blank class.
        time_major: chunks are (T, N, C).
        from_logits: search under the log-softmax of the chunks.
        beam_threshold: see :func:`fastctc.beam_search`.
        token_threshold: see :func:`fastctc.beam_search`.
        blank_skip: see :func:`fastctc.beam_search`.
        device: device of the chunks and the results.
        scorer: see :func:`fastctc.beam_search`. Each result ends the streams for the scorer, and they can continue.

    Raises:
        TypeError: an option of another type.
        ValueError: an option out of range.

    >>> import torch, fastctc
    >>> log_probs = torch.randn(1, 30, 5, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    >>> decoder = fastctc.BeamSearchDecoder(nbest=3)
    >>> for chunk in log_probs.split(8, dim=1):
    ...     decoder.push(chunk)
    >>> decoder.result().to_list() == fastctc.beam_search(log_probs, nbest=3).to_list()
    True
    """

    def __init__(
        self,
        num_streams: int = 1,
        *,
        beam_size: int = 10,
        nbest: int = 1,
        blank: int = 0,
        time_major: bool = False,
        from_logits: bool = False,
        beam_threshold: float | None = None,
        token_threshold: float | None = None,
        blank_skip: float | None = None,
        device: torch.device | str = "cpu",
        scorer: SearchScorer | Sequence[SearchScorer] | None = None,
    ) -> None:
        num_streams = self.num_streams = check_count(num_streams, "num_streams")
        beam_size = self.beam_size = check_count(beam_size, "beam_size")
        self.nbest = check_nbest(nbest, beam_size)
        self.time_major = time_major
        self._options = search_options(blank, from_logits, beam_threshold, token_threshold, blank_skip)
        with torch.inference_mode(False):  # a tensor made in that mode could be changed in that mode only
            state_bytes = ops._C.beam_state_bytes(beam_size, scorer is not None)
            self._state = torch.zeros(num_streams, state_bytes, dtype=torch.uint8, device=device)
            self._arena = torch.empty(num_streams, 0, NODE_INTS, dtype=torch.int32, device=device)
            self._frames = torch.zeros(num_streams, dtype=torch.int64, device=device)
        self._scorer: tuple[Any, ...] = () if scorer is None else pack(scorer, self._state.device)
        self._bounds = [
            0
        ] * num_streams  # a bound on the frames of each stream, known without a synchronization
        self._classes: int | None = None
        self._dtype: torch.dtype | None = None

    @property
    def frames(self) -> Tensor:
        """Return (num_streams) int64, the frames that each stream got since it was reset."""
        return self._frames.clone()

    def push(self, log_probs: Tensor, input_lengths: Lengths | None = None) -> None:
        """Search the next frames of every stream.

        Args:
            log_probs: (N, T, C) with any T, or (T, N, C) if ``time_major``, or (T, C) for a single stream;
                natural-log probabilities, or logits if ``from_logits``. C and dtype are the same in every chunk.
            input_lengths: (N) number of frames that each stream gets, the first of the T; all T if None.

        Raises:
            TypeError: log_probs is not floating-point or of another dtype than before, or input_lengths are not
                integers.
            ValueError: see :func:`fastctc.beam_search`; or a chunk of another number of streams or classes than
                before, or on another device. No stream has changed then.
            NotImplementedError: inside torch.jit.trace.
        """
        if traced():
            raise NotImplementedError(
                "fastctc.BeamSearchDecoder keeps a state, which torch.jit.trace cannot record: "
                "trace the model alone, or fastctc.beam_search"
            )
        check_scores(log_probs, self._options.blank)
        chunk = self._chunk(log_probs)
        batch, frames, classes = chunk.shape
        if input_lengths is None:
            lengths = torch.full((batch,), frames, dtype=torch.int64, device=chunk.device)
            heard = [frames] * batch
        else:
            lengths = lengths_tensor(input_lengths, "input_lengths", batch, chunk.device)
            heard = _known_lengths(input_lengths, batch, frames)
        bounds = [before + more for before, more in zip(self._bounds, heard)]
        self._make_room(max(bounds))
        checked = chunk.device.type == "cpu" or debugging()
        before = self._state.clone() if checked else None
        try:
            scorer = self._scorer
            advance = ops.scored_search_advance if scorer else ops.beam_search_advance
            advance(chunk, lengths, self._state, self._arena, self.beam_size, *self._options, *scorer)
            if debugging():
                search = ops.scored_search if scorer else ops.beam_search
                arguments = (chunk, lengths, self.beam_size, 1, *self._options, *scorer)
                scores = self._result(1, max(bounds), torch.float32).scores
                check_decoded(search, scores, *arguments)
        except ValueError:
            if before is not None:  # the arena only grows, so the old state still fits it
                self._state.copy_(before)
            raise
        self._bounds = bounds
        self._frames += lengths
        self._classes, self._dtype = classes, chunk.dtype

    def result(self, nbest: int | None = None) -> NBestResult:
        """Return the hypotheses so far. The streams can continue afterwards.

        Args:
            nbest: hypotheses of each stream, at most ``beam_size``; None: the number given at the start.

        Returns:
            The result of :func:`fastctc.beam_search` for the frames so far, always with the N dimension. T is the
            largest number of frames that a stream got. A stream without a frame has one hypothesis with no tokens
            and the score 0.
        """
        nbest = self.nbest if nbest is None else check_nbest(nbest, self.beam_size)
        return self._result(nbest, max(self._bounds), self._dtype)

    def reset(self, streams: int | Sequence[int] | Tensor | None = None) -> None:
        """Forget all frames of some streams, so that their next utterance can begin.

        Args:
            streams: an index, several, or a tensor of them; or a bool tensor (N); None: all streams. After None the
                next chunk may have another dtype and number of classes.

        Raises:
            TypeError: streams are not integers.
            ValueError: an index is out of range, or a bool tensor does not have shape (N).
        """
        if streams is None:
            self._state.zero_()
            self._frames.zero_()
            self._bounds = [0] * self.num_streams
            self._classes = self._dtype = None
            return
        chosen = self._mask(streams)
        self._state.masked_fill_(chosen.to(self._state.device)[:, None], 0)
        self._frames.masked_fill_(chosen.to(self._state.device), 0)
        if chosen.device.type == "cpu":  # else the bounds stay too large
            self._bounds = [0 if gone else bound for gone, bound in zip(chosen.tolist(), self._bounds)]

    def _chunk(self, log_probs: Tensor) -> Tensor:
        """Return a chunk as (N, T, C), checked against the chunks before."""
        if log_probs.dim() == 2:
            chunk = log_probs.unsqueeze(0)
        else:
            chunk = log_probs.transpose(0, 1) if self.time_major else log_probs
        if chunk.shape[0] != self.num_streams:
            raise ArgumentValueError(
                f"log_probs has a batch of {chunk.shape[0]}, but there are {self.num_streams} streams"
            )
        if chunk.device != self._state.device:
            raise ArgumentValueError(
                f"log_probs is on {chunk.device}, but the decoder is on {self._state.device}"
            )
        if self._classes not in (None, chunk.shape[2]):
            raise ArgumentValueError(
                f"log_probs has {chunk.shape[2]} classes, but had {self._classes} before"
            )
        if self._dtype not in (None, chunk.dtype):
            raise ArgumentTypeError(f"log_probs is of type {chunk.dtype}, but was of {self._dtype} before")
        return chunk.detach()

    def _make_room(self, frames: int) -> None:
        """Enlarge the arena to this many frames per stream."""
        capacity, needed = self._arena.shape[1], frames * self.beam_size
        if needed > LARGEST_ARENA:
            raise ArgumentValueError(
                f"a stream has {frames} frames and beam_size is {self.beam_size}, but frames * beam_size must be "
                "less than 2^31: reset it"
            )
        if needed > capacity:
            with torch.inference_mode(False):
                shape = (self.num_streams, min(max(needed, 2 * capacity), LARGEST_ARENA), NODE_INTS)
                arena = torch.empty(shape, dtype=torch.int32, device=self._arena.device)
                arena[:, :capacity] = self._arena
                self._arena = arena

    def _result(self, nbest: int, frames: int, dtype: torch.dtype | None) -> NBestResult:
        arguments = (self._state, self._arena, self.beam_size, nbest, frames, dtype == torch.float64)
        if not self._scorer:
            return NBestResult(*ops.beam_search_result(*arguments))
        return ScoredResult(*ops.scored_search_result(*arguments, *self._scorer))

    def _mask(self, streams: int | Sequence[int] | Tensor) -> Tensor:
        """Return (N) bool, on the device of `streams`."""
        if isinstance(streams, Tensor):
            index = streams
        else:
            try:
                values: list[Any] = list(streams)  # type: ignore[arg-type]
            except TypeError:  # a single index
                values = [streams]
            flags = all(isinstance(value, bool) for value in values) and len(values) > 0
            numbers = values if flags else [integer(value, f"streams[{i}]") for i, value in enumerate(values)]
            index = torch.tensor(numbers, dtype=torch.bool if flags else torch.int64)
        if index.dtype == torch.bool:
            if tuple(index.shape) != (self.num_streams,):
                raise ArgumentValueError(
                    f"streams has shape {tuple(index.shape)}, but there are {self.num_streams}"
                )
            return index
        if index.is_floating_point() or index.is_complex():
            raise ArgumentTypeError(f"streams must be indices, got {index.dtype}")
        index = index.reshape(-1)
        if index.device.type == "cpu":
            for stream in index.tolist():
                if not 0 <= stream < self.num_streams:
                    raise ArgumentValueError(f"streams has {stream}, but there are {self.num_streams}")
        return (torch.arange(self.num_streams, device=index.device)[:, None] == index).any(1)


def _known_lengths(lengths: Lengths, batch: int, frames: int) -> list[int]:
    """Return bounds on the lengths of a chunk, exact if they are on the host."""
    values = listed(lengths, "input_lengths")
    if isinstance(values, Tensor):
        if values.device.type != "cpu":
            return [frames] * batch
        values = values.reshape(-1).tolist()
    return [min(max(value, 0), frames) for value in values]
