"""The weights of each side and beam, tuned on the even sentences, and the grid of `--tune`."""

from __future__ import annotations

import itertools

from word_decoders import Weights

GRID = [
    Weights(*pair) for pair in itertools.product((0.4, 0.55, 0.7, 0.85, 1.0, 1.15, 1.3), (0.0, 1.0, 2.0, 3.0))
]

TUNED: dict[str, dict[str, dict[int, Weights]]] = {
    "speech": {
        "fastctc": {10: Weights(0.85, 3.0), 50: Weights(0.85, 1.0), 200: Weights(1.0, 1.0)},
        "fastctc_cut": {
            **{10: Weights(0.85, 3.0), 20: Weights(1.0, 2.0), 50: Weights(0.85, 1.0)},
            **{100: Weights(1.0, 2.0), 200: Weights(1.0, 1.0)},
        },
        "flashlight": {50: Weights(0.87, 0.5), 200: Weights(1.09, 1.0), 500: Weights(0.87, 1.0)},
        "flashlight_sum": {50: Weights(0.87, 0.5), 200: Weights(1.09, 0.5)},
    },
    "letters": {
        "fastctc": {100: Weights(0.85, 1.0)},
        "fastctc_cut": {100: Weights(0.85, 1.0)},
        "flashlight": {100: Weights(0.7, 1.0)},
        "flashlight_sum": {100: Weights(0.7, 0.0)},
        "pyctcdecode": {100: Weights(0.55, 2.0)},  # as of ctc-beam-decoder, which computes the same
        "ctc_beam_decoder": {100: Weights(0.55, 2.0)},
    },
}


def weights_of(case: str, side: str, beam: int) -> Weights:
    """Return the weights of the nearest beam that was tuned."""
    tuned = TUNED[case][side]
    return tuned[min(tuned, key=lambda each: abs(each - beam))]
