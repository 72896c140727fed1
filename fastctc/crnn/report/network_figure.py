"""The picture of a network: its operations in their order, with the shape of each output. Needs matplotlib."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from fastctc.convolution import pytorch_layers
from fastctc.figures import BLANK, COLORS, INK, load_matplotlib, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW = 0.36  # inches from one operation to the next
BOX = 3.2  # inches from the left to the right edge of an operation
MARGIN = 1.6  # inches on the left, with the names of modules

# Operations that only move numbers, or that only copy them in evaluation.
HIDDEN = {
    "view", "reshape", "permute", "transpose", "flatten", "unflatten", "squeeze", "unsqueeze", "expand",
    "contiguous", "getitem", "pad", "to", "float", "half", "double", "detach", "clone", "dropout", "index_select",
    "pack_padded_sequence", "pad_packed_sequence",
}  # fmt: skip
ARITHMETIC = {
    "add": "+",
    "iadd": "+",
    "mul": "x",
    "imul": "x",
    "sub": "-",
    "truediv": "/",
    "cat": "concatenate",
}


@dataclass(frozen=True)
class Operation:
    """One operation of a network, as it ran.

    Attributes:
        name: what it does, such as ``"conv2d 3 x 3"``.
        module: name of the module that ran it; empty for the network itself.
        shape: shape of its output without the batch; of the first tensor if it has several.
        inputs: indices of the operations whose outputs it takes.
    """

    name: str
    module: str
    shape: tuple[int, ...]
    inputs: tuple[int, ...]


class _Recorder(TorchFunctionMode):
    """Records the operations that depend on the inputs of a network while it runs."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.modules: list[str] = [""]
        self.operations = [Operation("input", "", tuple(each.shape[1:]), ()) for each in inputs]
        self.sources: dict[int, tuple[int, ...]] = {id(each): (i,) for i, each in enumerate(inputs)}
        self.kept: list[Any] = list(inputs)  # a tensor that is freed could pass its id on to another one

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").strip("_")
        taken = _tensors((args, kwargs))
        inputs = tuple(dict.fromkeys(i for each in taken for i in self.sources.get(id(each), ())))
        result = func(*args, **kwargs)
        outputs = [each for each in _tensors(result) if each.is_floating_point()]
        if not inputs or not outputs:
            return result
        self.kept.append(result)
        if name not in HIDDEN and not self._scales(name, inputs):
            self.operations.append(
                Operation(
                    _title(name, taken, args, kwargs), self.modules[-1], tuple(outputs[0].shape[1:]), inputs
                )
            )
            inputs = (len(self.operations) - 1,)
        self.sources |= {id(each): inputs for each in outputs}
        return result

    def _scales(self, name: str, inputs: tuple[int, ...]) -> bool:
        """Return True for arithmetic of one input with constants, such as a mask."""
        return name in ARITHMETIC and len(inputs) < 2


def record(model: nn.Module, *inputs: Tensor) -> list[Operation]:
    """Return the operations of a network in the order in which they ran, the inputs first.

    Args:
        model: runs once in evaluation mode, and is left as it was.
        inputs: its arguments, with the batch first. Integers, such as lengths, are left out.
    """
    recorder = _Recorder([each for each in inputs if each.is_floating_point()])
    hooks = []
    for name, module in model.named_modules():
        if name:
            hooks.append(module.register_forward_pre_hook(_enter(recorder, name)))
            hooks.append(module.register_forward_hook(_leave(recorder)))
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad(), pytorch_layers(), recorder:
            model.eval()(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    return recorder.operations


def _enter(recorder: _Recorder, name: str) -> Callable[..., None]:
    """Return a hook for the start of a module; inside of a module, the outer name stays."""
    return lambda *_: recorder.modules.append(recorder.modules[-1] or name)


def _leave(recorder: _Recorder) -> Callable[..., None]:
    def leave(*_: Any) -> None:
        recorder.modules.pop()

    return leave


def _tensors(values: Any) -> list[Tensor]:
    return [each for each in tree_leaves(values) if isinstance(each, Tensor)]


def _title(name: str, taken: Sequence[Tensor], args: Any, kwargs: dict[str, Any]) -> str:
    """Return the name of an operation with the size of its window."""
    if name in ARITHMETIC:
        return ARITHMETIC[name]
    if name.startswith("conv") and len(taken) > 1:
        return f"{name} {' x '.join(map(str, taken[1].shape[2:]))}"
    if "pool" in name and len(args) > 1:
        window = args[1] if isinstance(args[1], (tuple, list)) else [args[1], args[1]]
        return f"{name} {' x '.join(map(str, window))}"
    return name


@styled
def plot_network(model: nn.Module, *inputs: Tensor, title: str = "") -> Figure:
    """Draw a network as a graph: one box per operation, from top to bottom, with the shape of its output.

    The network runs once, and the operations that depend on the inputs are recorded. Each color is a module. Its
    name and its number of parameters are on the left. A curve on the right is an output that is used again later.
    Operations that only move numbers are left out.

    Args:
        model: any network; it is left as it was.
        inputs: its arguments, with the batch first.
        title: above the picture.

    Returns:
        The figure: ``figure.savefig("net.svg")``.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    operations = record(model, *inputs)
    figure = new_figure(MARGIN + BOX + 0.6, ROW * (len(operations) + 1.2), layout=None)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(-MARGIN, BOX + 0.6)
    axes.set_ylim(-ROW * (len(operations) + 0.2), ROW)
    axes.axis("off")
    axes.text(-MARGIN + 0.1, ROW * 0.55, title, va="center", weight="bold")
    groups = itertools.groupby(enumerate(operations), key=lambda each: each[1].module)
    for number, (name, members) in enumerate(groups):
        rows = [row for row, _ in members]
        color = COLORS[number % len(COLORS)] if name else BLANK
        _draw_module(axes, name, _parameters(model, name), rows, color)
        for row in rows:
            _draw_operation(axes, row, operations[row], color)
    return figure


def _parameters(model: nn.Module, name: str) -> int:
    return sum(p.numel() for p in model.get_submodule(name).parameters()) if name else 0


def _height(row: int) -> float:
    """Return the middle of a row."""
    return -ROW * (row + 0.5)


def _draw_module(axes: Axes, name: str, parameters: int, rows: Sequence[int], color: str) -> None:
    """Draw the name of a module and a line along its operations."""
    top, bottom = _height(rows[0]) + 0.42 * ROW, _height(rows[-1]) - 0.42 * ROW
    axes.plot([-0.12, -0.12], [bottom, top], color=color, lw=2, solid_capstyle="butt")
    lines = [name, f"{parameters:,} parameters"] if parameters else [name]
    axes.text(-0.2, (top + bottom) / 2, "\n".join(lines), ha="right", va="center", fontsize=7, color=color)


def _draw_operation(axes: Axes, row: int, operation: Operation, color: str) -> None:
    """Draw the box of an operation, the shape of its output, and what it takes."""
    patches = load_matplotlib().patches
    middle = _height(row)
    axes.add_patch(
        patches.FancyBboxPatch(
            (0.05, middle - 0.3 * ROW), BOX - 0.1, 0.6 * ROW, boxstyle="round,pad=0,rounding_size=0.05",
            facecolor="white", edgecolor=color, lw=1.2,
        )
    )  # fmt: skip
    shape = " x ".join(map(str, operation.shape))
    axes.text(0.15, middle, operation.name, ha="left", va="center", fontsize=8)
    axes.text(BOX - 0.15, middle, shape, ha="right", va="center", fontsize=8)
    for source in operation.inputs:
        _draw_edge(axes, source, row)


def _draw_edge(axes: Axes, source: int, row: int) -> None:
    """Draw an arrow from one operation to a later one: straight to the next, else a curve on the right."""
    style = {"arrowstyle": "-|>,head_length=0.3,head_width=0.13", "shrinkA": 0, "shrinkB": 0, "color": INK}
    if row - source == 1:
        start, end = (BOX / 2, _height(source) - 0.3 * ROW), (BOX / 2, _height(row) + 0.3 * ROW)
    else:
        start, end = (BOX - 0.05, _height(source) - 0.1 * ROW), (BOX - 0.05, _height(row) + 0.1 * ROW)
        bend = 0.3 / (start[1] - end[1])  # the curve goes 0.3 inches to the right
        style["connectionstyle"] = f"bar,fraction={-bend}"
    axes.annotate("", end, start, arrowprops=style)
