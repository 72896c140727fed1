"""A two-dimensional LSTM: each cell of a grid sees the cells before it in both axes, in four scan directions.

    cell(y, x) = i ∘ g + f_up ∘ cell(y - 1, x) + f_left ∘ cell(y, x - 1)
    state(y, x) = o ∘ tanh cell(y, x)

The gates i, f_up, f_left and o and the candidate g are functions of the input at (y, x), of state(y - 1, x) and of
state(y, x - 1). Source: Graves, Fernández and Schmidhuber, Multi-Dimensional Recurrent Neural Networks, ICANN 2007.

Cells on one diagonal, y + x = d, do not depend on each other. The layer computes a diagonal at once, which takes
H + W - 1 steps instead of H · W:

    0 1 2 3
    1 2 3 4
    2 3 4 5
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FLIPS: tuple[tuple[int, ...], ...] = ((), (-2,), (-3,), (-3, -2))
"""Axes of (..., H, W, N) that each direction reverses: it begins top left, top right, bottom left, bottom right."""


class GridLSTM(nn.Module):
    """A 2-D LSTM in four directions, each with weights of its own.

    Args:
        inputs: features of a cell of the grid.
        hidden: features of each direction.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        gates = 5 * hidden  # i, f_up, f_left, o, g
        self.from_input = nn.Parameter(torch.empty(4, gates, inputs))
        self.from_states = nn.Parameter(
            torch.empty(4, gates, 2 * hidden)
        )  # the state above, the state on the left
        self.bias = nn.Parameter(torch.zeros(4, gates, 1))  # forget gates of 1/2 each: their sum keeps a cell
        nn.init.uniform_(self.from_input, -1 / math.sqrt(inputs), 1 / math.sqrt(inputs))
        nn.init.uniform_(self.from_states, -1 / math.sqrt(2 * hidden), 1 / math.sqrt(2 * hidden))

    def forward(self, grid: Tensor, inside: Tensor | None = None) -> Tensor:
        """Return the states of the four directions, one after the other.

        Args:
            grid: (N, inputs, H, W) float.
            inside: (N, H, W) bool, false in padding, whose cells pass nothing on; None: no padding.

        Returns:
            (N, 4 · hidden, H, W), zero in padding.
        """
        with torch.autocast(grid.device.type, enabled=False):  # errors add up along a scan
            return self._states(grid.to(self.bias.dtype), inside)

    def _states(self, grid: Tensor, inside: Tensor | None) -> Tensor:
        n, _, height, width = grid.shape
        cells = grid.permute(1, 2, 3, 0)  # the batch is last, so that a diagonal is gathered in long pieces
        summed = self.bias + self.from_input @ cells.flatten(1)  # (4, gates, H · W · N)
        summed = turned(summed.unflatten(2, (height, width, n)))
        exists = (
            grid.new_ones(height, width, 1) if inside is None else inside.permute(1, 2, 0).to(summed.dtype)
        )
        exists = turned(exists.expand(4, 1, *exists.shape))
        states = from_diagonals(self._scan(to_diagonals(summed), to_diagonals(exists)), width)
        return turned(states).permute(4, 0, 1, 2, 3).flatten(1, 2)

    def _scan(self, inputs: Tensor, exists: Tensor) -> Tensor:
        """Map diagonals (D, 4, gates, H, N), and which of their cells exist, to states (D, 4, hidden, H, N)."""
        _, _, gates, height, n = inputs.shape
        state = cell = inputs.new_zeros(4, self.hidden, height, n)
        states = []
        for summed, there in zip(inputs.unbind(), exists.unbind(), strict=True):
            before = torch.cat([down(state), state], dim=1).flatten(2)
            summed = torch.baddbmm(summed.flatten(2), self.from_states, before).view(4, gates, height, n)
            gated, candidate = summed.split((4 * self.hidden, self.hidden), dim=1)
            i, up, left, o = gated.sigmoid().chunk(4, dim=1)
            cell = there * (i * candidate.tanh() + up * down(cell) + left * cell)
            state = o * cell.tanh()
            states.append(state)
        return torch.stack(states)


def turned(grids: Tensor) -> Tensor:
    """Return (4, ..., H, W, N) with each of the four as its direction sees it; twice, it is the grid again."""
    return torch.stack([grid.flip(axes) for grid, axes in zip(grids, FLIPS, strict=True)])


def down(rows: Tensor) -> Tensor:
    """Return (..., H, N) moved by one row: each has what the row above it had, and the first has zeros."""
    return F.pad(rows, (0, 0, 1, -1))


def to_diagonals(grid: Tensor) -> Tensor:
    """Map (..., H, W, N) to (H + W - 1, ..., H, N): entry [d, ..., y, :] is cell (y, d - y), or zeros outside."""
    height, width = grid.shape[-3:-1]
    steps = height + width - 1
    moved = F.pad(grid, (0, 0, 0, height)).flatten(-3, -2)[..., : height * steps, :]  # row y moves by y
    return moved.unflatten(-2, (height, steps)).movedim(-2, 0).contiguous()


def from_diagonals(diagonals: Tensor, width: int) -> Tensor:
    """Undo :func:`to_diagonals`."""
    steps, height = diagonals.shape[0], diagonals.shape[-2]
    rows = F.pad(diagonals.movedim(0, -2).flatten(-3, -2), (0, 0, 0, height))
    return rows.unflatten(-2, (height, steps + 1))[..., :width, :]
