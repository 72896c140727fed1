"""Decoders of other packages by their names, on :func:`fastctc.beam_search`: only the import changes.

| instead of | import from |
| --- | --- |
| ``torchaudio.models.decoder`` | :mod:`fastctc.compat.torchaudio` |
| ``pyctcdecode`` | :mod:`fastctc.compat.pyctcdecode` |
| ``Wav2Vec2ProcessorWithLM`` of ``transformers`` | :mod:`fastctc.compat.transformers` |

None of these packages needs to be installed. Names, defaults, scores and types of results are theirs. The search is
fastctc's: a hypothesis has the probability of all its paths in the beam, and a batch is searched at once.
"""
