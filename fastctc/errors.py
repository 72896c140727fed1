"""The exceptions that the public functions raise for wrong arguments, and in torch.jit.script.

Each is a ValueError or a TypeError, and a RuntimeError besides: PyTorch and torchaudio raise that in most cases.
"""

from collections.abc import Callable
from typing import TypeVar

__all__ = ["ArgumentTypeError", "ArgumentValueError", "refuse_scripting"]

Function = TypeVar("Function", bound=Callable[..., object])


class ArgumentValueError(ValueError, RuntimeError):
    """An argument whose value, shape or length is wrong."""


class ArgumentTypeError(TypeError, RuntimeError):
    """An argument whose type, dtype or layout is wrong."""


def refuse_scripting(function: Function) -> Function:
    """Make torch.jit.script of a function or of a module's class raise one sentence that names the alternatives."""

    def refuse(*_: object) -> None:
        raise NotImplementedError(
            f"fastctc.{function.__name__} cannot be compiled by torch.jit.script: "
            "use torch.jit.trace, torch.export or torch.compile"
        )

    function.__prepare_scriptable__ = refuse  # type: ignore[attr-defined]
    return function
