"""Estimated times of alignment, beam search and greedy decoding on an H200. Nothing is measured; see estimate.py.

The estimate of a beam search is a lower bound: no frame leads to a new prefix.
"""

from __future__ import annotations

from compare import Figures
from estimate import FLOAT, INSPECTION, Estimate, Work, loop, waves

LONG_ROW = 256  # classes; for more of them top_tokens has a block per row
INSTRUCTIONS_OF_A_LONG_ROW = 8 * 1140  # of the warps of a block at C = 5000; most of them grow with C
DENOMINATOR = 17  # instructions for the term of one class


def alignments(table: Figures) -> list[Estimate]:
    """Return the estimates of forced alignment of float logits."""
    from cases import SHAPES, Shape

    found = []
    for name, shape in {**SHAPES, "long": Shape(1500, 8, 32, 100)}.items():
        T, N, C, S = shape.T, shape.N, shape.C, shape.S
        kernel = "align<float, 1>" if S < 32 else "align<float, 2>"
        columns = S // (32 if S < 32 else 64) + 1
        frames = T + 16 * (min(columns, 8) - 1)  # each warp is a tile behind the one before it
        walk, back = loop(table, kernel, "walk"), loop(table, kernel, "way back")
        strips = -(-columns // 8)
        kernels = (
            Work("denominators", T * N * C * FLOAT, instructions=T * N * -(-C // 32) * DENOMINATOR),
            Work(
                "align",
                T * N * (S + 1) * FLOAT,
                (INSPECTION + frames * strips * walk + T * back) * waves(N, 1),
            ),
        )
        found.append(Estimate("forced_align", f"{name}: T={T} N={N} C={C} S={S}", kernels))
    return found


def searches(table: Figures) -> list[Estimate]:
    """Return the estimates of beam search of float logits, without a scorer."""
    from beam_cases import SHAPES

    found = []
    for name, shape in SHAPES.items():
        N, T, C, beam = shape.N, shape.T, shape.C, shape.W
        kernel = f"search<float, {32 if beam <= 32 else 256 if beam <= 256 else 1024}, NoScorer>"
        if C > LONG_ROW:
            of_row = INSTRUCTIONS_OF_A_LONG_ROW * C / 5000
        else:  # the terms of the softmax, and each class compared with each
            of_row = -(-C // 32) * (DENOMINATOR + 5 * C)
        kernels = (
            Work("top_tokens", N * T * C * FLOAT, instructions=N * T * of_row),
            Work("search", 0, T * loop(table, kernel, "frame without new prefixes") * waves(N, 1)),
            Work("results"),
        )
        found.append(Estimate("beam_search", f"{name}: N={N} T={T} C={C}, beam {beam}", kernels))
    return found


def greedy() -> list[Estimate]:
    """Return the estimates of greedy decoding of float logits: memory alone."""
    from beam_cases import SHAPES

    found = []
    for name, shape in SHAPES.items():
        rows = shape.N * shape.T
        kernels = (Work("best_classes", rows * shape.C * FLOAT), Work("merge_frames", rows * 2 * FLOAT))
        found.append(Estimate("greedy_decode", f"{name}: N={shape.N} T={shape.T} C={shape.C}", kernels))
    return found
