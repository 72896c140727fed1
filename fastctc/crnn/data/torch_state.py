"""Blocks that do not depend on what the caller has set in torch."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

_drawing = threading.RLock()


def usable_device(device: str | torch.device) -> torch.device:
    """Return a device, once a tensor was put there.

    Raises:
        ValueError: there is no such device, or this PyTorch cannot use it.
    """
    try:
        place = torch.device(device)
        torch.empty(1, device=place)
    except (AssertionError, RuntimeError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"device is {str(device)!r}, which this PyTorch cannot use: {reason}") from error
    return place


@contextmanager
def own_torch_state(*, grad: bool = False) -> Iterator[None]:
    """Run a block, or a decorated function, with torch's usual settings for this thread.

    New tensors go to the CPU, autocast is off, and inference mode is off. Only the default dtype, which torch
    keeps for all threads together, stays: code in such a block names its dtypes.

    Args:
        grad: record operations for gradients.
    """
    with ExitStack() as entered:
        if torch.get_default_device().type != "cpu":
            entered.enter_context(torch.device("cpu"))
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                entered.enter_context(torch.autocast(kind, enabled=False))
        if torch.is_inference_mode_enabled():
            entered.enter_context(torch.inference_mode(False))
        entered.enter_context(torch.set_grad_enabled(grad))
        yield


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draw torch's random numbers of a block from a seed, and leave torch's generators as they were.

    Args:
        seed: of the generators of the CPU and of ``device``.
        device: where the block draws random numbers. Threads that train at the same time draw one after another.
    """
    gpus = [device.index or 0] if device.type == "cuda" else []
    with _drawing, torch.random.fork_rng(devices=gpus):
        torch.default_generator.manual_seed(seed)
        for gpu in gpus:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(seed)
        yield
