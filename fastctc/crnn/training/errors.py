"""Errors of a training run, and what to do about them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed", "bad_alloc")


class TrainError(RuntimeError):
    """Training cannot go on: it diverged, lacks memory, lost a process, or does not fit its saved state."""


@contextmanager
def explain_out_of_memory(advice: Callable[[], str]) -> Iterator[None]:
    """Name the settings that need memory if a block runs out of it.

    Args:
        advice: returns where memory ran out and what to do.

    Raises:
        TrainError: in place of the error that means a lack of memory, whose words are kept.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, TrainError) or not _is_out_of_memory(error):
            raise
        raise TrainError(f"out of memory {advice()} ({str(error) or type(error).__name__})") from error


def _is_out_of_memory(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        words in text for words in _OUT_OF_MEMORY
    )
