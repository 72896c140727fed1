"""The summary of a model: layers, sizes, receptive field, and the longest label."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastctc.crnn.data import own_torch_state
from fastctc.crnn.model.network import CRNN, ConvHead, ConvStage, RecurrentHead


@dataclass(frozen=True)
class Layer:
    """One row of a summary.

    Attributes:
        name: name of the module in the model.
        kind: operations of the layer, in words.
        shape: shape of the output for one image.
        parameters: number of parameters.
        multiply_adds: number of multiply-adds for one image.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Summary:
    """A model in figures; ``str`` makes a table of it.

    Attributes:
        architecture: as in :class:`fastctc.crnn.model.network.CRNNConfig`.
        height, width: of the image that shapes, frames and multiply-adds are for.
        layers: from the image on.
        stored_bytes: of the weights in a checkpoint file.
        columns_per_frame: image columns from one frame to the next.
        frames: of the image.
        first_column, receptive_field: frame t depends on ``receptive_field`` columns of the image from column
            ``columns_per_frame * t + first_column`` on, as far as there are such. What a recurrent head adds
            to that, the whole line, does not count.
        sees_all: whether the head is recurrent.
    """

    architecture: str
    height: int
    width: int
    layers: tuple[Layer, ...]
    stored_bytes: int
    columns_per_frame: int
    frames: int
    first_column: int
    receptive_field: int
    sees_all: bool

    @property
    def parameters(self) -> int:
        """Return the number of parameters of all layers."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        """Return the number of multiply-adds of all layers for one image."""
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def longest_label(self) -> int:
        """Return the length of the longest label without equal neighbors: one character per frame."""
        return self.frames

    @property
    def longest_repetition(self) -> int:
        """Return the length of the longest label of equal characters, with a blank between any two."""
        return (self.frames + 1) // 2

    def __str__(self) -> str:
        rows = [("layer", "what it does", "output", "parameters", "multiply-adds")]
        for layer in self.layers:
            shape = " x ".join(map(str, layer.shape))
            rows.append(
                (
                    layer.name,
                    layer.kind,
                    shape,
                    f"{layer.parameters:,}",
                    f"{layer.multiply_adds / 1e6:,.1f} M",
                )
            )
        total = f"{self.multiply_adds / 1e6:,.1f} M"
        rows.append(("total", f"{self.stored_bytes / 1e6:.2f} MB stored", "", f"{self.parameters:,}", total))
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        lines = [
            "  ".join(
                cell.rjust(width) if i > 2 else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        lines.insert(1, "-" * max(map(len, lines)))
        lines.insert(-1, lines[1])
        lines[:0] = [f"{self.architecture}: shapes for one image of {self.height} x {self.width}", ""]
        last = self.first_column + self.receptive_field - 1
        sight = (
            f"a frame sees {self.receptive_field} columns of the image: frame t from"
            f" {self.columns_per_frame} t - {-self.first_column} to {self.columns_per_frame} t + {last}"
        )
        if self.sees_all:
            sight += ", and through the recurrent layers the whole line"
        lines += [
            "",
            f"{self.frames} frames, one for {self.columns_per_frame} columns",
            sight,
            f"longest label that fits: {self.longest_label} characters, {self.longest_repetition} if all are equal",
        ]
        return "\n".join(lines)


@own_torch_state()
def summarize(model: CRNN, width: int | None = None) -> Summary:
    """Return the figures of a model, with shapes for one image; the model is not changed.

    Args:
        model: on any device, in any mode.
        width: columns of the image, at least 1; None: three times its rows, as the images of the formula
            contest.

    Returns:
        The summary, for ``print``.
    """
    config = model.config
    width = 3 * config.height if width is None else width
    if width < 1:
        raise ValueError(f"width is {width}, expected at least 1")
    parts: dict[nn.Module, tuple[str, str]] = {
        module: (name, kind) for name, module in model.named_modules() if (kind := _kind(name, module))
    }
    shapes, costs = _observe(model, list(parts), width)
    layers = tuple(
        Layer(
            name, kind, shapes[module], sum(p.numel() for p in module.parameters()),
            sum(costs.get(inner, 0) for inner in module.modules()),
        )
        for module, (name, kind) in parts.items()
    )  # fmt: skip
    first, size = _field(model)
    return Summary(
        config.architecture, config.height, width, layers, _stored_bytes(model), config.columns_per_frame,
        config.frames(width), first, size, isinstance(model.head, RecurrentHead),
    )  # fmt: skip


def _kind(name: str, module: nn.Module) -> str:
    """Return the operations of a part of the model in words; empty for a part without a row of its own."""
    if isinstance(module, ConvStage):
        conv, (rows, columns) = module.conv, module.pool
        words = [f"conv {conv.kernel_size[0]}x{conv.kernel_size[1]}"]
        words[0] += f" stride {module.stride}" if module.stride > 1 else ""
        words += ["norm"] if module.norm is not None else []
        words += ["ReLU", *([f"pool {rows}x{columns}"] if rows * columns > 1 else [])]
        return ", ".join(words + ([f"{len(module.residuals)} x conv 3x3 added"] if module.residuals else []))
    if isinstance(module, ConvHead):
        dilations = ", ".join(str(conv.dilation[1]) for conv in _convs(module))
        return f"{len(module.convs)} x (conv of 5 frames, norm, ReLU) added, dilation {dilations}"
    if isinstance(module, RecurrentHead):
        return f"{module.rnn.num_layers} x bidirectional {type(module.rnn).__name__}"
    if name == "project":
        return "column to frame: " + ", ".join(type(part).__name__ for part in module.children())
    return "classes of each frame: Linear" if name == "classify" else ""


def _convs(head: ConvHead) -> list[nn.Conv2d]:
    return [conv for conv in head.convs if isinstance(conv, nn.Conv2d)]


def _observe(
    model: CRNN, parts: list[nn.Module], width: int
) -> tuple[dict[nn.Module, tuple[int, ...]], dict[nn.Module, int]]:
    """Return output shapes of parts, and multiply-adds of the layers that multiply, for one image."""
    shapes: dict[nn.Module, tuple[int, ...]] = {}
    costs: dict[nn.Module, int] = {}

    def note_shape(
        module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]
    ) -> None:
        shapes[module] = tuple((output if isinstance(output, Tensor) else output[0]).shape[1:])

    def note_cost(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> None:
        weights = sum(p.numel() for p in module.parameters() if p.dim() > 1)
        if isinstance(output, Tensor):  # each weight once for each output place
            places = output.numel() // output.shape[1 if output.dim() == 4 else -1]
        else:
            places = model.config.frames(width)
        costs[module] = weights * places

    hooks = [module.register_forward_hook(note_shape) for module in parts]
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.RNNBase)):
            hooks.append(module.register_forward_hook(note_cost))
    modes = {module: module.training for module in model.modules()}
    direct, model.direct = model.direct, None  # it would not call the modules
    weight = next(model.parameters())
    try:
        model.eval()
        with torch.no_grad():
            image = torch.zeros(1, 1, model.config.height, width, device=weight.device, dtype=weight.dtype)
            model(image)
    finally:
        model.direct = direct
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    return shapes, costs


def _field(model: CRNN) -> tuple[int, int]:
    """Return the first column and the number of columns that frame 0 depends on before a recurrent head."""
    first = last = 0  # columns, seen from one output column, in units of the input
    step = 1  # image columns between neighboring columns of the layer

    def layer(before: int, after: int, stride: int = 1) -> None:
        nonlocal first, last, step
        first, last, step = first - before * step, last + after * step, step * stride

    for stage in model.stages:
        assert isinstance(stage, ConvStage)
        reach = stage.conv.kernel_size[1] // 2
        layer(reach, reach, stage.stride)
        layer(0, stage.pool[1] - 1, stage.pool[1])
        layer(len(stage.residuals), len(stage.residuals))
    if model.config.architecture == "vgg-bilstm":
        layer(0, 1)
    if isinstance(model.head, ConvHead):
        for conv in _convs(model.head):
            reach = conv.kernel_size[1] // 2 * conv.dilation[1]
            layer(reach, reach)
    return first, last - first + 1


def _stored_bytes(model: CRNN) -> int:
    """Return the bytes of the weights in a checkpoint file: float16 for matrices and kernels."""
    return sum(
        tensor.numel() * (2 if tensor.is_floating_point() and tensor.dim() > 1 else tensor.element_size())
        for tensor in model.state_dict().values()
    )
