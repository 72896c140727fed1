"""The 2-D LSTM equals its equations, padding is outside of it, and the example beats its baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from example_runs import EXAMPLES, result_of
from torch import Tensor

DIMENSIONS = ((), (2,), (1,), (1, 2))  # of (N, H, W, C) that each direction reverses


@pytest.fixture(autouse=True)
def _examples_are_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)


def make_layer(inputs: int, hidden: int) -> Any:
    from grid_lstm import GridLSTM

    torch.manual_seed(0)
    layer = GridLSTM(inputs, hidden).double()
    torch.nn.init.normal_(layer.bias)
    return layer


def by_double_loop(layer: Any, grid: Tensor, inside: Tensor) -> Tensor:
    """Return the states, cell after cell, by the equations of the layer's docstring."""
    n, _, height, width = grid.shape
    cells = grid.permute(0, 2, 3, 1)
    outputs = []
    for direction, dimensions in enumerate(DIMENSIONS):
        x, exists = cells.flip(dimensions), inside.flip(dimensions).to(grid.dtype)[..., None]
        zero = grid.new_zeros(n, layer.hidden)
        state: dict[tuple[int, int], Tensor] = {}
        cell: dict[tuple[int, int], Tensor] = {}
        for place in ((row, column) for row in range(height) for column in range(width)):
            row, column = place
            above, before = (row - 1, column), (row, column - 1)
            states = torch.cat([state.get(above, zero), state.get(before, zero)], dim=1)
            summed = x[:, row, column] @ layer.from_input[direction].T
            summed = summed + states @ layer.from_states[direction].T + layer.bias[direction, :, 0]
            i, up, left, o, g = summed.chunk(5, dim=1)
            kept = up.sigmoid() * cell.get(above, zero) + left.sigmoid() * cell.get(before, zero)
            cell[place] = exists[:, row, column] * (i.sigmoid() * g.tanh() + kept)
            state[place] = o.sigmoid() * cell[place].tanh()
        rows = [torch.stack([state[row, column] for column in range(width)], dim=1) for row in range(height)]
        outputs.append(torch.stack(rows, dim=1).flip(dimensions))
    return torch.cat(outputs, dim=3).permute(0, 3, 1, 2)


@pytest.mark.parametrize("height, width", [(4, 6), (5, 3), (1, 4), (4, 1), (1, 1)])
@pytest.mark.parametrize("padded", [False, True])
def test_grid_lstm_equals_a_double_loop(height: int, width: int, padded: bool) -> None:
    layer = make_layer(3, 5)
    grid = torch.randn(2, 3, height, width, dtype=torch.float64, requires_grad=True)
    inside = torch.ones(2, height, width, dtype=torch.bool)
    inside[1, :, (width + 1) // 2 :] = not padded
    weights = torch.randn(2, 20, height, width, dtype=torch.float64)
    values, gradients = [], []
    for states in (layer(grid, inside if padded else None), by_double_loop(layer, grid, inside)):
        values.append(states.detach())
        gradients.append(torch.autograd.grad((states * weights).sum(), [grid, *layer.parameters()]))
    torch.testing.assert_close(*values, rtol=0, atol=1e-14)
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


def test_grid_lstm_does_not_read_padding() -> None:
    layer = make_layer(3, 4)
    grid = torch.randn(2, 3, 4, 7, dtype=torch.float64)
    inside = torch.zeros(2, 4, 7, dtype=torch.bool)
    inside[0], inside[1, :3, :5] = True, True
    alone = layer(grid[1:, :, :3, :5])
    grid[1, :, 3:], grid[1, :, :, 5:] = 1e3, -1e3
    states = layer(grid, inside)
    torch.testing.assert_close(states[1:, :, :3, :5], alone, rtol=0, atol=1e-14)
    assert not states[1, :, 3:].any() and not states[1, :, :, 5:].any()


def test_grid_lstm_sees_the_whole_grid_from_each_cell() -> None:
    layer = make_layer(1, 3)
    grid = torch.randn(1, 1, 4, 5, dtype=torch.float64, requires_grad=True)
    states = layer(grid)
    for row, column in ((0, 0), (1, 3), (3, 4)):
        (gradient,) = torch.autograd.grad(states[0, :, row, column].sum(), grid, retain_graph=True)
        assert (gradient != 0).all()


def test_grid_lstm_keeps_float32_under_autocast() -> None:
    layer = make_layer(3, 4).float()
    grid = torch.randn(2, 3, 4, 5)
    with torch.autocast("cpu", torch.bfloat16):
        states = layer(grid.bfloat16())
    assert states.dtype == torch.float32
    assert torch.equal(states, layer(grid.bfloat16().float()))


@pytest.mark.parametrize("height, width", [(3, 5), (5, 3), (1, 1)])
def test_diagonals_and_back(height: int, width: int) -> None:
    from grid_lstm import from_diagonals, to_diagonals

    grid = torch.arange(1.0, 1 + 2 * height * width * 3).view(2, height, width, 3)
    diagonals = to_diagonals(grid)
    assert diagonals.shape == (height + width - 1, 2, height, 3)
    assert torch.equal(from_diagonals(diagonals, width), grid)
    for row in range(height):
        for column in range(width):
            assert torch.equal(diagonals[row + column, :, row], grid[:, row, column])


def test_head_reads_an_image_the_same_in_a_padded_batch() -> None:
    from multi_dimensional_lstm import crnn

    from fastctc.crnn import CRNNConfig

    torch.manual_seed(0)
    model = crnn("2-D LSTM", CRNNConfig(num_classes=5, channels=4, hidden=8)).eval()
    images = torch.randn(2, 1, 32, 40)
    log_probs, lengths = model(images, torch.tensor([40, 22]))
    assert lengths.tolist() == [10, 6] and log_probs.shape == (2, 10, 5)
    alone, _ = model(images[1:, :, :, :22])
    torch.testing.assert_close(log_probs[1:, :6], alone, rtol=0, atol=1e-5)


def test_floor_plans_have_one_class_per_room() -> None:
    from floor_plans import CLASSES, SIDE, floor_plans

    images, labels = floor_plans(20, seed=3)
    assert images.shape == labels.shape == (20, SIDE, SIDE)
    assert set(labels.unique().tolist()) == set(range(len(CLASSES)))
    beside = [(labels[:, 1:], labels[:, :-1]), (labels[:, :, 1:], labels[:, :, :-1])]
    for one, other in beside:  # only a wall separates two classes
        assert ((one == other) | (one == 0) | (other == 0)).all()
    assert images[labels == 0].mean() > 0.95
    again, _ = floor_plans(20, seed=3)
    assert torch.equal(images, again) and not torch.equal(images, floor_plans(20, seed=4)[0])


def scores(out: Path, *options: str) -> dict[str, float]:
    """Run the example and return the score of each network."""
    table = result_of("multi_dimensional_lstm.py", out, *options)["table"]
    return {row["network"]: row["score"] for row in table}


def test_labels_more_pixels_than_the_most_frequent_class(tmp_path: Path) -> None:
    found = scores(tmp_path, "--steps", "60")
    assert len(found) == 4
    assert found["2-D LSTM"] > found["most frequent class"] + 0.1
    assert (tmp_path / "labels.png").stat().st_size > 10_000


def test_reads_with_each_head(tmp_path: Path) -> None:
    found = scores(tmp_path, "--task", "read", "--steps", "2")
    assert list(found) == ["conv", "bilstm", "bigru", "2-D LSTM"]
