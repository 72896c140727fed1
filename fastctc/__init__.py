"""CTC loss, alignment and decoding for PyTorch: exact, deterministic and fast, on CPU and CUDA.

``import fastctc`` loads PyTorch and registers the operators ``torch.ops.fastctc.*``. In the ``fastctc`` command the
names are loaded at their first use, so that ``fastctc --help`` answers at once.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

from fastctc.version import __version__

if TYPE_CHECKING:
    from fastctc.alignment import TokenSpan, ctc_posteriors, forced_align, merge_tokens
    from fastctc.arguments import debug
    from fastctc.build import build_info
    from fastctc.decode import DecodeResult, NBestResult, ScoredResult, beam_search, greedy_decode
    from fastctc.errors import ArgumentTypeError, ArgumentValueError
    from fastctc.loss import CTCLoss, ctc_loss
    from fastctc.scoring import Automaton
    from fastctc.streaming import BeamSearchDecoder
    from fastctc.text import Alphabet

__all__ = [
    "Alphabet",
    "ArgumentTypeError",
    "ArgumentValueError",
    "Automaton",
    "BeamSearchDecoder",
    "CTCLoss",
    "DecodeResult",
    "NBestResult",
    "ScoredResult",
    "TokenSpan",
    "__version__",
    "beam_search",
    "build_info",
    "ctc_loss",
    "ctc_posteriors",
    "debug",
    "forced_align",
    "greedy_decode",
    "merge_tokens",
]

_MODULES = {
    "alignment": ("TokenSpan", "ctc_posteriors", "forced_align", "merge_tokens"),
    "arguments": ("debug",),
    "build": ("build_info",),
    "decode": ("DecodeResult", "NBestResult", "ScoredResult", "beam_search", "greedy_decode"),
    "errors": ("ArgumentTypeError", "ArgumentValueError"),
    "loss": ("CTCLoss", "ctc_loss"),
    "scoring": ("Automaton",),
    "streaming": ("BeamSearchDecoder",),
    "text": ("Alphabet",),
}
"""The public names of each module."""


def _load(module: str) -> None:
    """Import a module and bind its public names here."""
    imported = importlib.import_module(f"fastctc.{module}")
    for name in _MODULES[module]:
        globals()[name] = getattr(imported, name)


def __getattr__(name: str) -> Any:
    """Load the module of a public name at its first use."""
    for module, names in _MODULES.items():
        if name in names:
            _load(module)
            return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the names that are loaded, and the public ones."""
    return sorted({*globals(), *__all__})


def _is_command() -> bool:
    """Return True in the ``fastctc`` command, whose modules import what they use."""
    return bool(sys.argv) and os.path.splitext(os.path.basename(sys.argv[0]))[0] == "fastctc"


if not _is_command():
    for _module in _MODULES:
        _load(_module)
