"""A model that reads without case: the probabilities of a letter and of its capital become one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fastctc.crnn.data import direction_of, make_alphabet
from fastctc.crnn.model.checkpoint import Checkpoint
from fastctc.crnn.model.network import CRNN


def small_letters(text: str) -> str:
    """Return a text in small letters, each as one character: a letter whose small form has more stays.

    >>> small_letters("Straße ΣΙΓΜΑ İ")
    'straße σιγμα İ'
    """
    return "".join(small if len(small := c.lower()) == 1 else c for c in text)


def without_case(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint whose model adds the probabilities of letters that differ in case alone.

    The alphabet has the small letters. A sum over the two classes at each frame is the probability of either.
    """
    alphabet = checkpoint.alphabet
    characters = list(alphabet.characters)
    characters.insert(alphabet.blank, "")
    groups: dict[str, list[int]] = {}
    for number, character in enumerate(characters):
        groups.setdefault(small_letters(character), []).append(number)
    merged = make_alphabet("".join(groups), list(groups).index(""), direction_of(alphabet))
    model = CaselessCRNN(checkpoint.model, list(groups.values()))
    return replace(checkpoint, model=model, alphabet=merged)


class CaselessCRNN(CRNN):
    """A model for reading, whose classes are sums of a given model's classes.

    Args:
        model: the given model.
        groups: for each new class the classes that are added.
    """

    members: Tensor
    counted: Tensor

    def __init__(self, model: CRNN, groups: Sequence[Sequence[int]]) -> None:
        super().__init__(model.config)
        self.load_state_dict(model.state_dict())
        self.eval()
        most = max(map(len, groups))
        self.register_buffer("members", torch.tensor([[*g, *[g[0]] * (most - len(g))] for g in groups]))
        self.register_buffer("counted", torch.tensor([[i < len(g) for i in range(most)] for g in groups]))

    def forward(self, images: Tensor, widths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return log-probabilities of the new classes at each frame, as :meth:`CRNN.forward`."""
        log_probs, lengths = super().forward(images, widths)
        each = log_probs[..., self.members].masked_fill(~self.counted, -torch.inf)
        return each.logsumexp(-1), lengths
