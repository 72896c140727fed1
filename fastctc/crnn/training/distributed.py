"""Training in several processes, as ``torchrun`` starts them: each computes its parts of every batch.

A batch has the same parts for any number of processes, see :mod:`fastctc.crnn.training.step`. The result equals the
result of a single process: to the bit on CPUs if there are two parts, otherwise up to the order of sums. Only the
first process draws images, evaluates, logs and writes. The others wait for it in a process group with a timeout of
days, because an evaluation or a drawing may take long. A process that ends closes its connections, and ``torchrun``
then ends the others.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from fastctc.crnn.data import usable_device

STEP_TIMEOUT = timedelta(minutes=10)  # of an exchange between processes within a step
PATIENCE = timedelta(days=2)  # of the processes that wait for the first

T = TypeVar("T")
_control: dist.ProcessGroup | None = None  # of all processes of the run; None: there is only this one


class EndedFromOutside(RuntimeError):
    """A signal to end, as ``torchrun`` sends it when another process has failed."""


def launched() -> bool:
    """Return True if this process was started as one of several, by ``torchrun`` or with its variables."""
    return dist.is_available() and "RANK" in os.environ and "WORLD_SIZE" in os.environ


@contextmanager
def processes(device: str) -> Iterator[torch.device]:
    """Join the processes that were launched together for a block; do nothing in a single process.

    Args:
        device: ``"cpu"``, ``"cuda"``, or with one process only, a certain GPU.

    Yields:
        The device of this process. Each of several processes has the GPU of its local rank.

    Raises:
        ValueError: ``device`` cannot be used, there is no GPU for this process, or one GPU was named for all.
    """
    global _control
    if not launched():
        yield usable_device(device)
        return
    place = _own_device(torch.device(device))
    if place.type == "cuda":
        torch.cuda.set_device(place)
    began = not dist.is_initialized()
    if began:
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=STEP_TIMEOUT)
    _control = dist.new_group(backend="gloo", timeout=PATIENCE)
    try:
        with _end_as_error():
            yield place
    finally:
        _control = None
        if began:
            dist.destroy_process_group()


def _own_device(device: torch.device) -> torch.device:
    if device.type != "cuda":
        return device
    number, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if device.index is not None and int(os.environ["WORLD_SIZE"]) > 1:
        raise ValueError(f"device is '{device}', expected 'cuda': each of several processes has its own GPU")
    if number >= gpus:
        raise ValueError(f"process {number} of this machine has no GPU: there are {gpus}")
    return torch.device("cuda", number)


@contextmanager
def _end_as_error() -> Iterator[None]:
    """Raise the termination signal as an exception in a block, so that the run can report its state."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:
        raise EndedFromOutside("told to end, as torchrun does when another process has failed")

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is end:
            signal.signal(signal.SIGTERM, before)


def ignore_end() -> None:
    """Ignore the termination signal while this process reports; ``torchrun`` kills it after 30 seconds."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def is_shared() -> bool:
    """Return True if processes share the batches, which includes a single one started by ``torchrun``."""
    return _control is not None


def number() -> int:
    """Return the rank of this process; the first has 0."""
    return 0 if _control is None else dist.get_rank()


def count() -> int:
    """Return the number of processes."""
    return 1 if _control is None else dist.get_world_size()


def from_first(make: Callable[[], T]) -> T:
    """Return the result of ``make`` in the first process; its exception is raised in all processes."""
    if _control is None:
        return make()
    outcome: list[Any] = [None, None]
    if number() == 0:
        try:
            outcome[0] = make()
        except Exception as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome, src=0, group=_control)
    if outcome[1] is not None:
        raise outcome[1]
    result: T = outcome[0]
    return result


def first_before_others(make: Callable[[], T]) -> T:
    """Return the result of ``make`` in each process; the others call it after the first one succeeded."""
    made: list[T] = []
    from_first(lambda: made.append(make()))
    return made[0] if made else make()


def any_of(flag: bool) -> bool:
    """Return True if the flag is true in any process."""
    if _control is None:
        return flag
    votes = torch.tensor(int(flag))
    dist.all_reduce(votes, group=_control)
    return bool(votes)


def total(values: Tensor) -> Tensor:
    """Return the sum over the processes."""
    summed = values.clone()
    if _control is not None:
        dist.all_reduce(summed)
    return summed
