"""The compiled convolution of the recognizer's layers, without a gradient, on the CPU: its handles and shapes.

Weights (outputs, inputs, rows, columns) are packed once. They are 1x1, 1x5 or 3x3, with inputs and outputs that are
multiples of 16, or of one input 3x3 or 5x5, the latter with a stride of 2.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from fastctc import ops as ops  # loads the extension

__all__ = ["convolution", "pack_convolution"]

convolution: Callable[..., Tensor] = torch.ops.fastctc.convolution.default
pack_convolution: Callable[..., Tensor] = torch.ops.fastctc.pack_convolution.default


@torch.library.register_fake("fastctc::pack_convolution")
def _(weight: Tensor) -> Tensor:
    outputs, inputs, *taps = weight.shape
    rows, columns = int(taps[0]), int(taps[1])
    places = rows * columns if inputs == 1 else {(1, 1): 1, (1, 5): 8, (3, 3): 36}[rows, columns]
    return weight.new_empty((places, outputs, inputs))


@torch.library.register_fake("fastctc::convolution")
def _(
    input: Tensor,
    packed: Tensor,
    bias: Tensor,
    widths: list[int],
    dilation: int,
    rectifies: bool,
    adds_input: bool,
    pool_rows: int,
    pool_columns: int,
) -> Tensor:
    batch, rows, columns, _ = input.shape
    if packed.shape[0] == 25:  # 5x5, with a stride of 2
        rows, columns = (rows + 1) // 2, (columns + 1) // 2
    return input.new_empty((batch, rows // pool_rows, columns // pool_columns, packed.shape[1]))
