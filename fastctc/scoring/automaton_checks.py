"""Checks of the tensors of an automaton: shapes, ranges, determinism, weights, circles of failure arcs."""

from __future__ import annotations

import math
from typing import NoReturn

import torch
from torch import Tensor

__all__ = ["check_automaton", "check_bounds", "check_range", "failure_depths"]

INTEGERS = ("first_arc", "label", "next_state", "failure_state")
WEIGHTS = ("weight", "failure_weight", "final_weight", "largest_weight")


def check_automaton(tensors: dict[str, Tensor], start: int) -> Tensor:
    """Raise TypeError or ValueError unless the tensors are an automaton. Return :func:`failure_depths`."""
    check_bounds(tensors, start)
    _check_determinism(tensors)
    _check_weights(tensors)
    depths = failure_depths(tensors["failure_state"].long())
    first, failure = tensors["first_arc"], tensors["failure_state"]
    if tensors["label"].numel():
        begin = first[:-1].long().clamp(max=tensors["label"].numel() - 1)
        otherwise = (first.diff() > 0) & (tensors["label"][begin] == -1)
        both = (otherwise & (failure >= 0)).nonzero()[:, 0].tolist()
        if both:
            raise ValueError(
                f"state {both[0]} has an arc for all other labels, so its failure arc is never used"
            )
    return depths


def check_bounds(tensors: dict[str, Tensor], start: int) -> None:
    """Raise TypeError or ValueError unless a walk stays within the tensors. The time is one pass over them."""
    for name, each in tensors.items():
        dtype = torch.int32 if name in INTEGERS else torch.float32
        if not isinstance(each, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(each).__name__}")
        if each.dtype != dtype:
            raise TypeError(f"{name} must be a tensor of {dtype}, got {each.dtype}")
        if each.dim() != 1:
            raise ValueError(f"{name} must have one dimension, got shape {tuple(each.shape)}")
        if each.device != tensors["label"].device:
            raise ValueError(f"{name} is on {each.device}, but label is on {tensors['label'].device}")
    states, arcs = tensors["failure_state"].shape[0], tensors["label"].shape[0]
    if states == 0:
        raise ValueError("failure_state is empty, expected at least one state")
    for name, each in tensors.items():
        count = (
            states + 1
            if name == "first_arc"
            else arcs
            if name in ("label", "next_state", "weight")
            else states
        )
        if each.shape[0] != count:
            raise ValueError(f"{name} has {each.shape[0]} values, expected {count}")
    first = tensors["first_arc"]
    if int(first[0]) != 0 or int(first[-1]) != arcs:
        raise ValueError(f"first_arc goes from {int(first[0])} to {int(first[-1])}, expected 0 to {arcs}")
    falling = (first.diff() < 0).nonzero()[:, 0].tolist()
    if falling:
        state = falling[0]
        raise ValueError(
            f"first_arc[{state + 1}] is {int(first[state + 1])}, but first_arc[{state}] is {int(first[state])}"
        )
    check_range(tensors["label"], "label", -1, None)
    check_range(tensors["next_state"], "next_state", 0, states)
    check_range(tensors["failure_state"], "failure_state", -1, states)
    if isinstance(start, bool) or not isinstance(start, int):
        raise TypeError(f"start must be an int, got {type(start).__name__}")
    if not 0 <= start < states:
        raise ValueError(f"start is {start}, expected a state in [0, {states})")


def failure_depths(failure: Tensor) -> Tensor:
    """Return the number of failure arcs on the way from each state, int64; ValueError names a circle."""
    states = failure.shape[0]
    jump = torch.cat([failure, failure.new_tensor([states])])  # the last stands for the end of a way
    jump[jump < 0] = states
    depths = (jump < states).long()
    for _ in range(states.bit_length() + 1):  # a jump of twice the length each time
        if bool((jump == states).all()):
            return depths[:states]
        depths, jump = depths + depths[jump], jump[jump]
    circle = [int(jump[jump < states][0])]
    while int(failure[circle[-1]]) not in circle:
        circle.append(int(failure[circle[-1]]))
    circle.append(int(failure[circle[-1]]))
    raise ValueError(f"failure arcs go in a circle: {' -> '.join(map(str, circle))}")


def check_range(values: Tensor, name: str, least: int, end: int | None) -> None:
    """Raise ValueError unless all values are in [least, end); None: without an upper end."""
    values = values.reshape(-1)
    if values.numel() == 0:
        return
    low, high = (int(each) for each in values.aminmax())
    if low < least or (end is not None and high >= end):
        index = int((values == (low if low < least else high)).nonzero()[0, 0])
        expected = f"at least {least}" if end is None else f"a number in [{least}, {end})"
        raise ValueError(f"{name}[{index}] is {int(values[index])}, expected {expected}")


def _state_of(tensors: dict[str, Tensor], arc: int) -> int:
    first = tensors["first_arc"]
    return (
        int(torch.searchsorted(first, torch.tensor(arc, dtype=first.dtype, device=first.device), right=True))
        - 1
    )


def _check_determinism(tensors: dict[str, Tensor]) -> None:
    label, first = tensors["label"], tensors["first_arc"].long()
    falls = torch.zeros(label.shape[0] + 1, dtype=torch.bool, device=label.device)
    falls[1:-1] = label.diff() <= 0
    falls[first] = False  # another state begins here
    for arc in falls.nonzero()[:1, 0].tolist():
        state = _state_of(tensors, arc)
        if label[arc] == label[arc - 1]:
            raise ValueError(
                f"state {state} has two arcs with label {int(label[arc])}, expected one (deterministic)"
            )
        raise ValueError(
            f"label[{arc}] is {int(label[arc])} after {int(label[arc - 1])}, expected the labels of state {state}"
            " to increase"
        )


def _check_weights(tensors: dict[str, Tensor]) -> None:
    for name in WEIGHTS:
        if name not in tensors or tensors[name].numel() == 0 or float(tensors[name].max()) < math.inf:
            continue  # the largest number of some with a NaN is NaN
        wrong = tensors[name].isnan() | (tensors[name] == math.inf)
        for index in wrong.nonzero()[:1, 0].tolist():
            _fail_weight(tensors, name, index)


def _fail_weight(tensors: dict[str, Tensor], name: str, index: int) -> NoReturn:
    value, where = float(tensors[name][index]), f"of state {index}"
    if name == "weight":
        state, target = _state_of(tensors, index), int(tensors["next_state"][index])
        where = f"of the arc from state {state} to {target} with label {int(tensors['label'][index])}"
    raise ValueError(f"{name}[{index}] is {value}, the weight {where}; expected a finite number or -inf")
