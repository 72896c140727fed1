"""CTC loss, alignment and decoding for PyTorch: exact, deterministic and fast, on CPU and CUDA."""

from fastctc.alignment import TokenSpan, ctc_posteriors, forced_align, merge_tokens
from fastctc.arguments import debug
from fastctc.build import build_info
from fastctc.decode import DecodeResult, NBestResult, beam_search, greedy_decode
from fastctc.loss import CTCLoss, ctc_loss
from fastctc.scoring import Automaton
from fastctc.streaming import BeamSearchDecoder
from fastctc.text import Alphabet
from fastctc.version import __version__

__all__ = [
    "Alphabet",
    "Automaton",
    "BeamSearchDecoder",
    "CTCLoss",
    "DecodeResult",
    "NBestResult",
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
