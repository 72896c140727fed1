"""CTC loss, alignment and decoding for PyTorch: exact, deterministic and fast, on CPU and CUDA."""

from fastctc.build import build_info
from fastctc.decode import GreedyResult, greedy_decode
from fastctc.loss import CTCLoss, ctc_loss, debug
from fastctc.text import Alphabet

__version__ = "0.1.0"
__all__ = [
    "Alphabet",
    "CTCLoss",
    "GreedyResult",
    "__version__",
    "build_info",
    "ctc_loss",
    "debug",
    "greedy_decode",
]
