"""Why nothing was read from an image that has ink."""

from __future__ import annotations

import numpy as np

from fastctc.crnn.data import Pixels

_DARK = 128  # gray levels from 0 up to which a prepared pixel is ink
_LEAST = 0.001  # share of the pixels that is ink
_LOW = 0.25  # share of the rows below which ink is too low to read
_LINES = 3  # bands of ink from which an image has several lines


def why_nothing(pixels: Pixels) -> str | None:
    """Return the reason that an empty text is a surprise; None for an image without ink.

    Args:
        pixels: (H, W) uint8, a prepared image: dark ink on white.
    """
    ink = pixels < _DARK
    share = float(ink.mean())
    if share < _LEAST:
        return None
    rows = np.flatnonzero(ink.any(1))
    high = int(rows[-1] - rows[0] + 1)
    filled = np.concatenate(([False], ink.mean(1) > 0.05, [False]))
    starts, ends = np.flatnonzero(filled[1:] & ~filled[:-1]), np.flatnonzero(~filled[1:] & filled[:-1])
    bands = int((ends - starts >= len(pixels) / 16).sum())
    reason = "its ink is not like the text that the model was trained on"
    if share > 0.5:
        reason = "more than half of it is ink, so it may be a picture or a page"
    elif bands >= _LINES:
        reason = f"it seems to have {bands} lines: cut it into lines"
    elif high < _LOW * len(pixels):
        reason = f"its ink is {high} of {len(pixels)} rows high: cut it to the line"
    return f"nothing was read, but {100 * share:.2g}% of the image is ink; {reason}"
