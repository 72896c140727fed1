"""The decoders of ``torchaudio.models.decoder``: the same names, defaults, scores and types of results."""

from fastctc.compat.torchaudio.cuda import CUCTCDecoder, CUCTCHypothesis, cuda_ctc_decoder
from fastctc.compat.torchaudio.decoder import CTCDecoder, CTCHypothesis, ctc_decoder

__all__ = [
    "CTCDecoder",
    "CTCHypothesis",
    "CUCTCDecoder",
    "CUCTCHypothesis",
    "ctc_decoder",
    "cuda_ctc_decoder",
]
