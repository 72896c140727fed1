"""CTC loss, alignment and decoding for PyTorch: exact, deterministic and fast, on CPU and CUDA."""

from fastctc.alignment import ctc_posteriors
from fastctc.arguments import debug
from fastctc.build import build_info
from fastctc.decode import DecodeResult, NBestResult, beam_search, greedy_decode
from fastctc.loss import CTCLoss, ctc_loss
from fastctc.streaming import BeamSearchDecoder
from fastctc.text import Alphabet

__version__ = "0.1.0"
__all__ = [
    "Alphabet",
    "BeamSearchDecoder",
    "CTCLoss",
    "DecodeResult",
    "NBestResult",
    "__version__",
    "beam_search",
    "build_info",
    "ctc_loss",
    "ctc_posteriors",
    "debug",
    "greedy_decode",
]
