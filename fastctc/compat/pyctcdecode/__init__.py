"""The decoder of ``pyctcdecode``: the same names, defaults, scores and types of results.

>>> import torch
>>> labels = ["", "a", "c", "t", " "]
>>> decoder = build_ctcdecoder(labels)
>>> path = [2, 1, 3, 4, 1, 3]  # cat at
>>> logits = torch.eye(5)[path].mul(9).numpy()
>>> decoder.decode(logits)
'cat at'
>>> decoder.decode_beams(logits)[0].text_frames
[('cat', (0, 3)), ('at', (4, 6))]
"""

from fastctc.compat.pyctcdecode.alphabet import Alphabet
from fastctc.compat.pyctcdecode.decoder import (
    BatchOutputBeam,
    BeamSearchDecoderCTC,
    OutputBeam,
    build_ctcdecoder,
)
from fastctc.compat.pyctcdecode.language_model import LanguageModel

__all__ = [
    "Alphabet",
    "BatchOutputBeam",
    "BeamSearchDecoderCTC",
    "LanguageModel",
    "OutputBeam",
    "build_ctcdecoder",
]
