"""Names of the sides of a benchmark: their titles and their order in tables and plots."""

from __future__ import annotations

from typing import Any

TITLES = {  # where the name itself does not read well
    "fastctc_graph": "fastctc graph",
    "fastctc_device": "fastctc, result left on the GPU",
    "fastctc_threads": "fastctc, more threads",
    "fastctc_nbest": "fastctc, n-best",
    "fastctc_exact": "fastctc, n-best with exact scores",
    "fastctc_cut": "fastctc with cuts",
    "cudnn": "cuDNN",
    "paddle": "Paddle",
    "flashlight_max": "flashlight, best path",
    "flashlight_fast": "flashlight with cuts",
    "flashlight_sum": "flashlight, sum over paths",
    "fast_ctc_decode": "fast-ctc-decode",
    "ctc_beam_decoder": "ctc-beam-decoder",
    "cuda_ctc_decoder_skip": "cuda_ctc_decoder, frames skipped",
}
ORDER = [  # in tables and plots
    *["fastctc", "fastctc_graph", "fastctc_device", "fastctc_threads", "fastctc_nbest", "fastctc_exact"],
    *["fastctc_cut", "torch", "cudnn", "optax", "paddle", "cuda_ctc_decoder", "cuda_ctc_decoder_skip"],
    *["flashlight", "flashlight_max", "flashlight_fast", "torchaudio", "fast_ctc_decode", "pyctcdecode"],
    "ctcdecode",
]


def title(side: str) -> str:
    return TITLES.get(side, side)


def timed(rows: list[dict[str, Any]]) -> list[str]:
    """Return the sides that were timed in at least one row."""
    return [side for side in ORDER if any("median_ms" in row["sides"].get(side, {}) for row in rows)]
