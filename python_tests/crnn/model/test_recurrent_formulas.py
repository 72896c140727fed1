"""The formulas of docs/training.md for recurrent layers, with the weights at the places in its table."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fastctc.crnn.model.network import RecurrentHead

INPUTS, HIDDEN, FRAMES = 5, 3, 6


def lstm_step(x: Tensor, h: Tensor, cell: Tensor, w: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    w_i, w_f, w_c, w_o = w["weight_ih"].chunk(4)
    u_i, u_f, u_c, u_o = w["weight_hh"].chunk(4)
    b_i, b_f, b_c, b_o = (w["bias_ih"] + w["bias_hh"]).chunk(4)
    f = torch.sigmoid(w_f @ x + u_f @ h + b_f)
    i = torch.sigmoid(w_i @ x + u_i @ h + b_i)
    candidate = torch.tanh(w_c @ x + u_c @ h + b_c)
    cell = f * cell + i * candidate
    o = torch.sigmoid(w_o @ x + u_o @ h + b_o)
    return o * torch.tanh(cell), cell


def gru_step(x: Tensor, h: Tensor, unused: Tensor, w: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    w_r, w_z, w_h = w["weight_ih"].chunk(3)
    u_r, u_z, u_h = w["weight_hh"].chunk(3)
    b_r, b_z, b_h = w["bias_ih"].chunk(3)
    c_r, c_z, c_h = w["bias_hh"].chunk(3)
    z = torch.sigmoid(w_z @ x + u_z @ h + b_z + c_z)
    r = torch.sigmoid(w_r @ x + u_r @ h + b_r + c_r)
    candidate = torch.tanh(w_h @ x + b_h + r * (u_h @ h + c_h))
    return z * h + (1 - z) * candidate, unused


@pytest.mark.parametrize(("kind", "step"), [(nn.LSTM, lstm_step), (nn.GRU, gru_step)])
def test_the_formulas_of_the_page_give_the_states_of_the_head(kind: type, step: object) -> None:
    torch.manual_seed(0)
    head = RecurrentHead(kind, INPUTS, HIDDEN, dtype=torch.float64)
    x = torch.randn(1, FRAMES, INPUTS, dtype=torch.float64)
    frames = list(x[0])
    for layer in range(2):
        directions = []
        for suffix in ("", "_reverse"):
            weights = {
                name: getattr(head.rnn, f"{name}_l{layer}{suffix}")
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            }
            h = cell = torch.zeros(HIDDEN, dtype=torch.float64)
            states = []
            for frame in reversed(frames) if suffix else frames:
                h, cell = step(frame, h, cell, weights)  # type: ignore[operator]
                states.append(h)
            directions.append(states[::-1] if suffix else states)
        frames = [torch.cat(both) for both in zip(*directions, strict=True)]
    torch.testing.assert_close(torch.stack(frames)[None], head(x, None), rtol=1e-12, atol=1e-12)
