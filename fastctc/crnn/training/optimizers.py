"""Optimizers turn gradients into steps: AdamW, or Muon with AdamW."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fastctc.crnn.model import CRNN


def _adamw(parameters: list[nn.Parameter], weight_decay: float) -> torch.optim.AdamW:
    """Return AdamW without decay on biases and normalization."""
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=1e-3, betas=(0.95, 0.98))


class MuonAdamW:
    """Muon for the weights between hidden layers, AdamW for the first and last layer and all vectors.

    Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon) makes the momentum of a weight matrix
    orthogonal before a step. A kernel is treated as a matrix with one row per output channel. Steps are scaled to
    the size of AdamW's steps (Liu et al., arXiv:2502.16982), so both optimizers share one learning rate.

    Args:
        model: the model, whose parameters must stay at their place in memory.
        weight_decay: decay of matrices and kernels.
    """

    def __init__(self, model: CRNN, weight_decay: float) -> None:
        outer = {id(p) for layer in (model.stages[0], model.classify) for p in layer.parameters()}
        parameters = list(model.parameters())
        self.inner = [p for p in parameters if p.dim() > 1 and id(p) not in outer]
        inner = {id(p) for p in self.inner}
        self.adamw = _adamw([p for p in parameters if id(p) not in inner], weight_decay)
        self.matrices = [nn.Parameter(_as_matrix(p.detach(), p)) for p in self.inner]
        self.muon = torch.optim.Muon(
            self.matrices, lr=1e-3, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
        )

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Return the parameter groups of both optimizers."""
        return [*self.adamw.param_groups, *self.muon.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of all parameters."""
        self.adamw.zero_grad(set_to_none)
        for parameter in self.inner:
            parameter.grad = None

    def step(self) -> None:
        """Update all parameters by their gradients."""
        for matrix, parameter in zip(self.matrices, self.inner, strict=True):
            matrix.grad = None if parameter.grad is None else _as_matrix(parameter.grad, parameter)
        self.adamw.step()
        self.muon.step()  # type: ignore[no-untyped-call]

    def state_dict(self) -> dict[str, Any]:
        """Return the states of both optimizers."""
        return {"adamw": self.adamw.state_dict(), "muon": self.muon.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore states that :meth:`state_dict` returned."""
        self.adamw.load_state_dict(state["adamw"])
        self.muon.load_state_dict(state["muon"])


def _as_matrix(tensor: Tensor, weight: Tensor) -> Tensor:
    """Return a weight, or its gradient, as (outputs, everything else); for a weight, a view of its memory."""
    if not weight.is_contiguous():  # channels last
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.reshape(tensor.shape[0], -1)


Optimizer = torch.optim.AdamW | MuonAdamW


def make_optimizer(model: CRNN, name: str, weight_decay: float) -> Optimizer:
    """Return the optimizer of that name; learning rate and momentum are set at every step by :func:`set_rate`."""
    if name == "muon":
        return MuonAdamW(model, weight_decay)
    return _adamw(list(model.parameters()), weight_decay)


def set_rate(optimizer: Optimizer, lr: float, momentum: float) -> None:
    """Set the learning rate of all parameters, and AdamW's first beta."""
    for group in optimizer.param_groups:
        group["lr"] = lr
        if "betas" in group:
            group["betas"] = (momentum, group["betas"][1])
