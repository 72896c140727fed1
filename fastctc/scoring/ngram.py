"""Backoff n-gram models from ARPA files, over words or over the tokens of a model."""

from __future__ import annotations

import gzip
import math
import mmap
import os
import zlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastctc.ops import _C
from fastctc.scoring.automaton import Automaton
from fastctc.text import Alphabet

__all__ = ["read_arpa"]

MISSING_UNKNOWN = -100.0  # log10 P(<unk>) where a model has none, as in KenLM
SPECIAL = ("<s>", "</s>")
UNKNOWN = ("<unk>", "<UNK>")


def read_arpa(
    path: str | os.PathLike[str],
    tokens: Alphabet | Sequence[str | None] | None = None,
    *,
    bos: bool = True,
    eos: bool = True,
    unknown_score: float | None = None,
) -> Automaton:
    """Return the automaton of a backoff n-gram model, of up to 6 words, in an ARPA file.

    A(y) = ln P(y_1 | <s>) + ln P(y_2 | <s> y_1) + ... + ln P(</s> | ...), where P backs off: if a context h lacks
    the word w, P(w | h) is the backoff weight of h times P(w | h without its first word). States are the contexts
    that have successors or a backoff weight other than 1, and failure arcs are backoff. A(y) equals KenLM's
    ``Model.score`` times ln 10.

    Args:
        path: the file, plain or compressed by gzip, in UTF-8.
        tokens: the label of each word. None: the place of the word among the 1-grams. An
            :class:`fastctc.Alphabet`, or the word of each class of a model in order: several classes may have the
            same word, and a word that the model lacks counts as ``<unk>``. None in the place of a word, such as
            the blank's, means a label that the automaton rejects. N-grams of other words are left out.
        bos: whether a sequence begins after ``<s>``, or with no context.
        eos: whether a sequence ends with ``</s>``, or final weights are 0.
        unknown_score: ln P(<unk>), instead of the probability in the file. A model without ``<unk>`` has 1e-100.

    Returns:
        An automaton whose ``symbols`` are the words by label. The markers ``<s>`` and ``</s>`` have no arcs.

    Raises:
        ValueError: the file is malformed. The message names the line, the expectation and the text. Or the
            file is a binary of KenLM, which holds no text to read. Or it lacks ``<s>`` with ``bos``, or ``</s>``
            with ``eos``. Or ``unknown_score`` is NaN or +inf.
    """
    if unknown_score is not None and not unknown_score < math.inf:
        raise ValueError(f"unknown_score is {unknown_score}, expected a finite number or -inf")
    model = _parse(path)
    words = tuple(model["words"].split("\n")[:-1])
    for option, wanted, marker, there in (
        ("bos", bos, "<s>", model["begin"] >= 0),
        ("eos", eos, "</s>", len(model["end"]) > 0),
    ):
        if wanted and not there:
            raise ValueError(
                f"{os.fspath(path)} has no {marker} among its 1-grams, expected one for {option}=True"
            )
    names = ("first_arc", "failure", "backoff", "end", "label", "next", "weight")
    arrays = {name: _tensor(model[name]) for name in names}
    if unknown_score is not None:
        root = slice(0, int(arrays["first_arc"][1]))
        arrays["weight"][root][arrays["label"][root] == model["unknown"]] = unknown_score
    automaton = Automaton.from_tensors(
        first_arc=arrays["first_arc"],
        label=arrays["label"],
        next_state=arrays["next"],
        weight=arrays["weight"],
        failure_state=arrays["failure"],
        failure_weight=arrays["backoff"],
        final_weight=arrays["end"] if eos else torch.zeros_like(arrays["backoff"]),
        start=model["begin"] if bos else 0,
        symbols=words,
    )
    return automaton if tokens is None else over_tokens(automaton, token_words(tokens))


def _parse(path: str | os.PathLike[str]) -> dict[str, Any]:
    with open(path, "rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
        size = os.fstat(file.fileno()).st_size
        try:
            if compressed:
                with gzip.open(path) as unpacked:
                    return _C.read_arpa(unpacked.read(), MISSING_UNKNOWN)
            if size == 0:
                return _C.read_arpa(b"", MISSING_UNKNOWN)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
                return _C.read_arpa(text, MISSING_UNKNOWN)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{os.fspath(path)} is a damaged gzip file: {error}") from error
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}, {error}") from None


def _tensor(array: Any) -> Tensor:
    dtype = torch.int32 if isinstance(array, _C.Int32Array) else torch.float32
    return torch.frombuffer(array, dtype=dtype) if len(array) else torch.zeros(0, dtype=dtype)


def token_words(tokens: Alphabet | Sequence[str | None]) -> list[str | None]:
    """Return the word of each label."""
    if isinstance(tokens, Alphabet):
        words: list[str | None] = list(tokens.characters)
        words.insert(tokens.blank, None)
        return words
    if isinstance(tokens, str) or not all(each is None or isinstance(each, str) for each in tokens):
        raise TypeError(
            f"tokens must be an Alphabet or a sequence of a str or None for each class, got {tokens!r:.60}"
        )
    return list(tokens)


def over_tokens(model: Automaton, tokens: list[str | None]) -> Automaton:
    """Return what :func:`read_arpa` has read, with labels of tokens in place of words, and the states reached."""
    assert model.symbols is not None
    unknown = max(label for label, word in enumerate(model.symbols) if word in UNKNOWN)
    label_of = {word: label for label, word in enumerate(model.symbols) if word not in SPECIAL}
    words = [-1 if each is None or each in SPECIAL else label_of.get(each, unknown) for each in tokens]
    by_word = torch.tensor(words).argsort(stable=True)  # tokens, in the order of their words
    counts = torch.bincount(torch.tensor(words) + 1, minlength=len(model.symbols) + 1)
    begins = counts.cumsum(0) - counts
    copies = counts[1:][model.label.long()]  # of each arc, one for each token of its word
    arc = torch.repeat_interleave(copies)
    rank = torch.arange(arc.numel()) - (copies.cumsum(0) - copies)[arc]
    label = by_word[begins[1:][model.label.long()][arc] + rank]
    state = torch.repeat_interleave(model.first_arc.long().diff())[arc]
    order = (state * len(tokens) + label).argsort()
    state, label, arc = state[order], label[order], arc[order]

    number = _reached(model, state, model.next_state.long()[arc])
    kept = (number >= 0).nonzero()[:, 0]
    arcs = number[state] >= 0
    first_arc = torch.zeros(kept.numel() + 1, dtype=torch.int32)
    first_arc[1:] = torch.bincount(number[state[arcs]], minlength=kept.numel()).cumsum(0)
    failure = model.failure_state.long()[kept]
    return Automaton.from_tensors(
        first_arc=first_arc,
        label=label[arcs].int(),
        next_state=number[model.next_state.long()[arc[arcs]]].int(),
        weight=model.weight[arc[arcs]],
        failure_state=torch.where(failure >= 0, number[failure], -1).int(),
        failure_weight=model.failure_weight[kept],
        final_weight=model.final_weight[kept],
        start=int(number[model.start]),
        symbols=["" if each is None else each for each in tokens],
    )


def _reached(model: Automaton, state: Tensor, target: Tensor) -> Tensor:
    """Return the new number of each state that is reached from the start by these arcs or failure arcs, or -1."""
    reached = torch.zeros(model.num_states, dtype=torch.bool)
    reached[model.start] = True
    before, count = 0, 1
    while before < count:
        reached[target[reached[state]]] = True
        failure = model.failure_state[reached].long()
        reached[failure[failure >= 0]] = True
        before, count = count, int(reached.sum())
    return torch.where(reached, reached.cumsum(0) - 1, -1)
