"""The decoders of ``torchaudio.models.decoder``: the same names, defaults, scores and types of results.

>>> import pathlib, tempfile, torch
>>> lexicon = pathlib.Path(tempfile.mkdtemp(), "lexicon.txt")
>>> _ = lexicon.write_text("at a t |\\ntea t e a |\\n")
>>> decoder = ctc_decoder(lexicon=str(lexicon), tokens=["-", "|", "a", "e", "t"])
>>> path = [4, 3, 0, 2, 1]  # t e - a |
>>> emissions = torch.eye(5)[path].mul(5).log_softmax(-1).unsqueeze(0)
>>> best = decoder(emissions)[0][0]
>>> best.words, decoder.idxs_to_tokens(best.tokens), best.timesteps.tolist()
(['tea'], ['|', 't', 'e', 'a', '|'], [0, 1, 2, 4, 5])
"""

from fastctc.compat.torchaudio.cuda import CUCTCDecoder, CUCTCHypothesis, cuda_ctc_decoder
from fastctc.compat.torchaudio.custom_lm import CTCDecoderLM, CTCDecoderLMState
from fastctc.compat.torchaudio.decoder import CTCDecoder, CTCHypothesis, ctc_decoder

__all__ = [
    "CTCDecoder",
    "CTCDecoderLM",
    "CTCDecoderLMState",
    "CTCHypothesis",
    "CUCTCDecoder",
    "CUCTCHypothesis",
    "ctc_decoder",
    "cuda_ctc_decoder",
]
