"""Every wrong argument of fastctc.forced_align and its error; CUDA kernels mark the sample instead."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from alignments import random_scores
from conftest import Device
from tolerances import assert_same

import fastctc


def test_wrong_values(device: Device) -> None:
    """As of the loss: an exception on the CPU; the CUDA kernels mark the sample."""
    x = random_scores(2, 8, 5).to(device.torch)
    right = fastctc.forced_align(x, torch.tensor([[1, 2], [3, 4]]))
    cases: list[tuple[list[list[int]], list[int], list[int], str]] = [
        ([[1, 2], [3, 5]], [8, 8], [2, 2], r"targets\[1, 1\] is 5, but log_probs has 5 classes"),
        ([[1, 2], [0, 4]], [8, 8], [2, 2], r"targets\[1, 0\] is 0, the blank"),
        ([[1, 2], [-1, 4]], [8, 8], [2, 2], r"targets\[1, 0\] is -1"),
        ([[1, 2], [3, 4]], [8, 9], [2, 2], r"input_lengths\[1\] is 9, but log_probs has 8 frames"),
        ([[1, 2], [3, 4]], [8, 8], [2, 3], r"target_lengths\[1\] is 3, but targets has 2 columns"),
        ([[1, 2], [3, 4]], [8, 8], [2, -1], r"target_lengths\[1\] is -1"),
    ]
    for targets, frames, labels, message in cases:
        if not device.runs_cuda_kernels:
            with pytest.raises(ValueError, match=message):
                fastctc.forced_align(x, torch.tensor(targets), frames, labels)
            continue
        paths, scores = fastctc.forced_align(x, torch.tensor(targets), frames, labels)
        assert scores[1].isnan().all()
        assert (paths[1] == 0).all()
        assert_same(paths[0], right[0][0])
        assert_same(scores[0], right[1][0])


@pytest.mark.parametrize(
    ("arguments", "exception", "message"),
    [
        (([[0.0]], torch.tensor([[1]])), TypeError, "log_probs must be a tensor, got list"),
        ((torch.zeros(3), torch.tensor([1])), ValueError, "log_probs must have 2 or 3 dimensions, got 1"),
        ((torch.zeros(1, 3, 4).long(), torch.tensor([[1]])), TypeError, r"log_probs must be .* torch\.int64"),
        ((torch.zeros(1, 3, 4), torch.tensor([[1.0]])), TypeError, r"targets must be an integer tensor"),
        ((torch.zeros(1, 3, 4), [[1]]), TypeError, "targets must be an integer tensor, got list"),
        ((torch.zeros(2, 3, 4), torch.tensor([[1]])), ValueError, r"targets must have shape \(N, S\)"),
        ((torch.zeros(2, 3, 4), torch.tensor([1, 2])), ValueError, "target_lengths must be given"),
        ((torch.zeros(2, 3, 4), torch.tensor([[1], [2]]), [3]), ValueError, "input_lengths has 1 values"),
        ((torch.zeros(1, 3, 4), torch.tensor([[1]]), None, None, 4), ValueError, "blank is 4"),
    ],
)
def test_wrong_forms_raise(arguments: tuple[Any, ...], exception: type[Exception], message: str) -> None:
    with pytest.raises(exception, match=message):
        fastctc.forced_align(*arguments)
