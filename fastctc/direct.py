"""Calls of the compiled ops without PyTorch's dispatcher, which takes longer than the loss of a small batch.

The functions of fastctc._C compute what the ops of the same names compute on the CPU. They are used where nothing
could notice that the dispatcher was left out: on plain CPU tensors in eager mode.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["applies", "call", "tensors_of"]

# They convert tensors to handles of the stable API and back, for PyTorch's own compiled code.
_aoti = getattr(torch._C, "_aoti", None)
_handles: Any = getattr(_aoti, "unsafe_alloc_void_ptrs_from_tensors", None)
_tensors: Any = getattr(_aoti, "alloc_tensors_by_stealing_from_void_ptrs", None)

#: False sends every call through the dispatcher.
enabled = _handles is not None and _tensors is not None

_is_compiling = torch.compiler.is_compiling
_count_dispatch_modes = torch._C._len_torch_dispatch_stack
_transforms_active = torch._C._are_functorch_transforms_active
_is_tracing = torch._C._is_tracing
_is_profiling = torch._C._autograd._profiler_enabled

# The properties of a tensor whose values lie in memory as they are. Tensors of vmap, complex conjugates and others
# have more.
_keys = torch._C._dispatch_keys
_PLAIN = _keys(torch.empty(0))
with torch.inference_mode():
    _PLAIN_IN_INFERENCE = _keys(torch.empty(0))


def applies(first: Tensor, *others: Tensor) -> bool:
    """Return True if all tensors are plain CPU tensors, and nothing observes or transforms the ops of PyTorch.

    The first one is of floating-point numbers.
    """
    if not enabled or _is_compiling():
        return False
    if _count_dispatch_modes() or _transforms_active() or _is_tracing() or _is_profiling():
        return False
    if type(first) is not Tensor:
        return False
    for tensor in others:
        if type(tensor) is not Tensor or not tensor.is_cpu:
            return False
    keys = _keys(first)
    return keys in (_PLAIN, _PLAIN_IN_INFERENCE)


def call(
    function: Callable[..., list[Any]], tensors: tuple[Tensor, ...], options: tuple[Any, ...]
) -> list[Tensor]:
    """Return the results of a function of fastctc._C."""
    return tensors_of(function(_handles(tensors), *options))


def tensors_of(handles: list[Any]) -> list[Tensor]:
    """Return the tensors of handles that a function of fastctc._C has returned."""
    tensors: list[Tensor] = _tensors(handles)
    return tensors
