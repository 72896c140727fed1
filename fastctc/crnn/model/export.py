"""A trained model as a file that other programs run: ONNX, or a program of ``torch.export``.

What is exported takes grey pixels and gives log-probabilities; it centres and scales the images itself. What
comes before that, from any image to grey pixels, is described in the file, in the JSON text ``fastctc`` of
its metadata (see :func:`describe`).

    images (N, 1, H, W) uint8, widths (N,) int64 ──> log_probs (N, T, C) float32, lengths (N,) int64

N and W are free, from 1 on. Each file is run and compared with the model in PyTorch before it is written.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastctc.crnn.data.preprocess import PreprocessConfig, normalize
from fastctc.crnn.model.checkpoint import Checkpoint, write_atomically
from fastctc.crnn.model.network import CRNN, RecurrentHead

FORMAT = "fastctc.crnn.model.export"
VERSION = 1
METADATA = "fastctc"
INPUTS = ("images", "widths")
OUTPUTS = ("log_probs", "lengths")
TOLERANCE = 1e-3  # between natural-log probabilities; a wrong graph is off by whole numbers
NOISY = ("onnx_ir", "onnxscript", "torch.export", "torch._export", "torch.onnx")  # loggers

Run = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class ExportError(RuntimeError):
    """A model that cannot be exported, or whose exported file computes something else."""


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        path: the file.
        size: its bytes.
        inputs, outputs: name, type and shape of each, as text.
        difference: the largest difference of a log-probability from the model in PyTorch, over images of
            several widths alone and together; None: onnxruntime is not installed and nothing was compared.
        checked_by: what the file was run with; None: nothing.
    """

    path: Path
    size: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    difference: float | None
    checked_by: str | None

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.size / 1e6:.2f} MB"]
        lines += [f"input   {text}" for text in self.inputs] + [f"output  {text}" for text in self.outputs]
        if self.difference is None:
            lines.append("not checked: onnxruntime is not installed (pip install fastctc[onnx])")
        else:
            lines.append(
                f"checked with {self.checked_by}: log-probabilities within {self.difference:.1e} of PyTorch's"
            )
        return "\n".join(lines)


def export_onnx(checkpoint: Checkpoint, path: str | Path) -> Export:
    """Writes a model as an ONNX file, which onnxruntime and others run without PyTorch.

    The description is the entry ``fastctc`` of the file's ``metadata_props``.

    Args:
        checkpoint: what to export; it stays as it is.
        path: the file; replaced only by a whole new one.

    Returns:
        What was written, and how well it agrees with PyTorch.

    Raises:
        ModuleNotFoundError: onnx or onnxscript is missing.
        ExportError: the file would compute something else; nothing is written.
    """
    try:
        import onnx_ir
        import onnxscript  # noqa: F401, torch's exporter needs it
        from onnx_ir.passes.common import ClearMetadataAndDocStringPass
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}: export to ONNX needs pip install fastctc[onnx]") from error
    graph = _Exported(checkpoint, _OnnxRecurrence, spare_frames=0)
    with _quiet():
        program = torch.onnx.export(
            graph, graph.example(), dynamo=True, dynamic_shapes=_dynamic_shapes(),
            input_names=INPUTS, output_names=OUTPUTS, verbose=False,
        )  # fmt: skip
        assert program is not None
        model = ClearMetadataAndDocStringPass()(program.model).model  # traces of the tracing, local paths
    model.producer_name, model.producer_version = "fastctc", _version()
    model.metadata_props[METADATA] = json.dumps(describe(checkpoint), sort_keys=True)
    content = onnx_ir.to_proto(model).SerializeToString()
    run = _onnx_runner(content)
    difference = None if run is None else _compare(checkpoint, run, "onnxruntime")
    write_atomically(Path(path), lambda temporary: temporary.write_bytes(content))
    checked_by = None if run is None else "onnxruntime"
    return Export(Path(path), len(content), *_signature(checkpoint, 0), difference, checked_by)


def export_program(checkpoint: Checkpoint, path: str | Path) -> Export:
    """Writes a model as a program that ``torch.export.load`` reads without this package.

    The description is the extra file ``fastctc``:

        extra_files = {"fastctc": ""}
        program = torch.export.load("formula.pt2", extra_files=extra_files).module()
        log_probs, lengths = program(images, widths)
        json.loads(extra_files["fastctc"])["classes"]

    Args:
        checkpoint: what to export; it stays as it is.
        path: the file; replaced only by a whole new one.

    Returns:
        What was written, and how well it agrees with the model it came from.

    Raises:
        ExportError: the file would compute something else; nothing is written.
    """
    # torch.export takes a size that may be 1 for a fixed one, so there is always a second frame.
    graph = _Exported(checkpoint, _LoopedRecurrence, spare_frames=1)
    with _quiet(), _recurrence_as_loops(checkpoint.model):
        program = torch.export.export(graph, graph.example(), dynamic_shapes=_dynamic_shapes(), strict=False)
    for part in program.graph_module.modules():  # traces of the tracing, with local paths
        for node in getattr(part, "graph", torch.fx.Graph()).nodes:
            node.meta.pop("stack_trace", None)
    buffer = io.BytesIO()
    description = json.dumps(describe(checkpoint), sort_keys=True)
    with _quiet():
        torch.export.save(program, buffer, extra_files={METADATA: description})
        content = buffer.getvalue()
        loaded = torch.export.load(io.BytesIO(content)).module()
        difference = _compare(checkpoint, loaded, "torch.export")
    write_atomically(Path(path), lambda temporary: temporary.write_bytes(content))
    return Export(Path(path), len(content), *_signature(checkpoint, 1), difference, "torch.export.load")


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """All that is needed to prepare an image for an exported model and to read its output.

    Returns:
        What can be written as JSON: ``alphabet``, ``blank``, ``classes`` (the text of each class, the blank's
        empty), ``preprocess`` (the fields of :class:`fastctc.crnn.data.preprocess.PreprocessConfig`),
        ``columns_per_frame``, ``steps`` (in words, from an image to its text), ``architecture``, ``training``
        and the versions of ``fastctc`` and ``torch``.
    """
    alphabet, config = checkpoint.alphabet, checkpoint.model.config
    classes = list(alphabet.characters)
    classes.insert(alphabet.blank, "")
    return {
        "format": FORMAT,
        "version": VERSION,
        "alphabet": alphabet.characters,
        "blank": alphabet.blank,
        "classes": classes,
        "preprocess": asdict(checkpoint.preprocess),
        "columns_per_frame": config.columns_per_frame,
        "steps": _steps(checkpoint.preprocess),
        "architecture": asdict(config),
        "training": checkpoint.training,
        "fastctc": _version(),
        "torch": torch.__version__,
    }


def _steps(config: PreprocessConfig) -> list[str]:
    """What is done from an image to its text, in words."""
    described = {"height", "max_width", "max_pixels", "tone", "tone_floor", "contrast_floor"}
    filters = [
        f"{field.name} = {getattr(config, field.name)}"
        for field in fields(config)
        if field.name not in described and getattr(config, field.name) != field.default
    ]
    return [
        "Grey: turn the image as its EXIF data say, take the first frame of an animation, lay transparent"
        " parts on white; grey = (299 R + 587 G + 114 B) / 1000, as Pillow's convert('L'). Levels of more than"
        " 8 bits: the lowest becomes 0, the highest 255.",
        *([f"Filters, see fastctc.crnn.data.preprocess: {', '.join(filters)}."] if filters else []),
        "Tone curve: background = the lowest level that at least half of the pixels do not exceed; darker ="
        " background - lowest level, lighter = highest level - background. A level g becomes"
        f" rint(255 * (1 - s ** {config.tone})), where s = clip(d / max(darker, lighter, {config.tone_floor}),"
        " 0, 1) and d = background - g if darker >= lighter, else g - background.",
        f"Resize to {config.height} rows and max(1, round(width * {config.height} / height)) columns, as"
        f" Pillow's BILINEAR (antialiased); refuse more than {config.max_width} columns.",
        "Stack as images (N, 1, H, W) uint8, each at the left, the rest of the columns anything; widths (N,)"
        " int64: columns of each image, 1 to W.",
        "The model centres each image on the mean of its own pixels and divides it by their standard deviation"
        f" + {config.contrast_floor}, ink positive, and gives log_probs (N, T, C), natural logarithms, and"
        " lengths (N,): frames of each image; the frames after them mean nothing.",
        "Greedy text: the most probable class of each frame, repeats once, without the blank; a class's text"
        " is in classes.",
    ]


def _plain(model: CRNN) -> CRNN:
    """A copy that reads, on the CPU, its kernels laid out as usual."""
    plain = copy.deepcopy(model).cpu().float().eval()
    return plain.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload, no-any-return]


def _version() -> str:
    import fastctc

    return fastctc.__version__


def _signature(checkpoint: Checkpoint, spare_frames: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Inputs and outputs for people."""
    config = checkpoint.model.config
    spare = f" + {spare_frames}" if spare_frames else ""
    frames = f"ceil(W / {config.columns_per_frame}){spare}"
    return (
        (f"images uint8 (N, 1, {config.height}, W)", "widths int64 (N,)"),
        (f"log_probs float32 (N, {frames}, {config.num_classes})", "lengths int64 (N,)"),
    )


def _onnx_runner(content: bytes) -> Run | None:
    """Runs an ONNX file in onnxruntime; None if that is not installed."""
    try:
        import onnxruntime
    except ModuleNotFoundError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor, widths: Tensor) -> tuple[Tensor, Tensor]:
        log_probs, lengths = session.run(OUTPUTS, {"images": images.numpy(), "widths": widths.numpy()})
        return torch.from_numpy(log_probs), torch.from_numpy(lengths)

    return run


class _Exported(nn.Module):
    """What is exported: pixels to log-probabilities, nothing in it depending on the values of a tensor."""

    def __init__(
        self, checkpoint: Checkpoint, recurrence: Callable[[RecurrentHead], nn.Module], spare_frames: int
    ) -> None:
        super().__init__()
        self.spare_frames = spare_frames
        self.preprocess = checkpoint.preprocess
        self.model = _plain(checkpoint.model)
        if isinstance(self.model.head, RecurrentHead):
            self.model.head = recurrence(self.model.head)  # type: ignore[assignment]
        self.eval()

    def forward(self, images: Tensor, widths: Tensor) -> tuple[Tensor, Tensor]:
        images = F.pad(images, (0, self.spare_frames * self.model.config.columns_per_frame))
        log_probs, lengths = self.model(normalize(images, widths, self.preprocess), widths)
        return log_probs, lengths

    def example(self) -> tuple[Tensor, Tensor]:
        """Inputs to trace with."""
        width = 9 * self.model.config.columns_per_frame + 3
        images = torch.zeros(3, 1, self.model.config.height, width, dtype=torch.uint8)
        return images, torch.tensor([width, 1, width // 2])


class _OnnxRecurrence(nn.Module):
    """A recurrent head as ONNX's operator of that name, which knows the length of each sequence."""

    def __init__(self, head: RecurrentHead) -> None:
        super().__init__()
        rnn = head.rnn
        self.operator = "LSTM" if isinstance(rnn, nn.LSTM) else "GRU"
        self.attributes: dict[str, Any] = {"direction": "bidirectional", "hidden_size": rnn.hidden_size}
        if self.operator == "GRU":
            self.attributes["linear_before_reset"] = 1
        # Gates in the order of PyTorch (LSTM i f g o, GRU r z n) to that of ONNX (i o f c, z r h).
        self.order = (0, 3, 1, 2) if self.operator == "LSTM" else (1, 0, 2)
        self.layers, self.hidden, self.features = rnn.num_layers, rnn.hidden_size, head.features
        for layer in range(self.layers):
            for name, kinds in (
                ("input", ["weight_ih"]),
                ("hidden", ["weight_hh"]),
                ("bias", ["bias_ih", "bias_hh"]),
            ):
                directions = [
                    torch.cat([self._reordered(getattr(rnn, f"{kind}_l{layer}{suffix}")) for kind in kinds])
                    for suffix in ("", "_reverse")
                ]
                self.register_buffer(f"{name}_{layer}", torch.stack(directions))

    def _reordered(self, weight: Tensor) -> Tensor:
        gates = weight.detach().chunk(len(self.order))
        return torch.cat([gates[i] for i in self.order])

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """(N, T, inputs) -> (N, T, 2 hidden)."""
        x = frames.transpose(0, 1)
        for layer in range(self.layers):
            weights = [self.get_buffer(f"{name}_{layer}") for name in ("input", "hidden", "bias")]
            y = torch.onnx.ops.symbolic(
                self.operator, [x, *weights, lengths.to(torch.int32)], self.attributes,
                dtype=x.dtype, shape=(x.shape[0], 2, x.shape[1], self.hidden),
            )  # fmt: skip
            x = y.transpose(1, 2).flatten(2)  # (T, 2, N, hidden) -> (T, N, 2 hidden)
        return x.transpose(0, 1)


class _LoopedRecurrence(nn.Module):
    """A recurrent head without packed sequences, which ``torch.export`` does not know.

    Backward in time is forward over the frames in reverse order, each sequence reversed within its own
    length; what follows it comes last in both directions and reaches none of its frames.
    """

    def __init__(self, head: RecurrentHead) -> None:
        super().__init__()
        self.rnn, self.features = head.rnn, head.features

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """(N, T, inputs) -> (N, T, 2 hidden)."""
        time, last = torch.arange(frames.shape[1], device=frames.device), lengths[:, None] - 1
        reverse = torch.where(time <= last, last - time, time)[:, :, None]  # (N, T, 1)
        x = frames
        for layer in range(self.rnn.num_layers):
            behind = self._one_direction(x, f"l{layer}")
            ahead = self._one_direction(x.gather(1, reverse.expand_as(x)), f"l{layer}_reverse")
            x = torch.cat([behind, ahead.gather(1, reverse.expand_as(ahead))], dim=2)
        return x

    def _one_direction(self, x: Tensor, suffix: str) -> Tensor:
        """One layer in one direction: (N, T, inputs) -> (N, T, hidden)."""
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        weights = [getattr(self.rnn, f"{name}_{suffix}") for name in names]
        start = x.new_zeros(1, x.shape[0], self.rnn.hidden_size)
        # Biases are there, one layer, no dropout, not training, one direction, batch first.
        if isinstance(self.rnn, nn.LSTM):
            result: Tensor = torch.lstm(x, (start, start), weights, True, 1, 0.0, False, False, True)[0]
        else:
            result = torch.gru(x, start, weights, True, 1, 0.0, False, False, True)[0]
        return result


@contextlib.contextmanager
def _recurrence_as_loops(model: CRNN) -> Iterator[None]:
    """Lets ``torch.export`` make a loop of a recurrent layer, for it unrolls one to a fixed number of frames."""
    if not isinstance(model.head, RecurrentHead):
        yield
        return
    try:
        from torch.export._patches import (
            register_gru_while_loop_decomposition,
            register_lstm_while_loop_decomposition,
        )
    except ImportError as error:
        raise ExportError(
            f"torch.export of {torch.__version__} cannot export {model.config.architecture!r}: it needs"
            " torch 2.13; ONNX works"
        ) from error
    with register_lstm_while_loop_decomposition(), register_gru_while_loop_decomposition():
        yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps from the user what the exporters say of packages and plans of their own."""
    loggers = [logging.getLogger(name) for name in NOISY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _dynamic_shapes() -> dict[str, Any]:
    from torch.export import Dim

    batch = Dim("batch", min=1)
    return {"images": {0: batch, 3: Dim("width", min=1)}, "widths": {0: batch}}


def _compare(checkpoint: Checkpoint, run: Run, name: str) -> float:
    """The largest difference of log-probabilities between a file and the model, which reads image by image.

    Raises:
        ExportError: it is above ``TOLERANCE``, or a length differs.
    """
    model = _plain(checkpoint.model)
    generator = torch.Generator().manual_seed(0)
    step = model.config.columns_per_frame
    largest = 0.0
    for widths in (
        [1],
        [5 * step],
        [12 * step + 1],
        [9 * step - 1, 1, step, 2 * step + 1, 9 * step - 1],
        [40, 97],
    ):
        images = torch.randint(
            0, 256, (len(widths), 1, model.config.height, max(widths)), generator=generator
        ).to(torch.uint8)
        log_probs, lengths = run(images, torch.tensor(widths))
        for n, width in enumerate(widths):
            alone = images[n : n + 1, :, :, :width]
            with torch.inference_mode():
                expected, (length,) = model(normalize(alone, torch.tensor([width]), checkpoint.preprocess))
            if int(lengths[n]) != int(length):
                raise ExportError(
                    f"{name}: an image {width} wide has {int(lengths[n])} frames, expected {int(length)}"
                )
            difference = float((log_probs[n, :length] - expected[0]).abs().max())
            if not difference <= TOLERANCE:
                raise ExportError(
                    f"{name}: log-probabilities of an image {width} wide are off by {difference:.3g}, allowed"
                    f" are {TOLERANCE:g}"
                )
            largest = max(largest, difference)
    return largest
