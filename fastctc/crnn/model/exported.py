"""The common parts of all exports of a trained model: inputs and outputs, description, and check.

An exported file takes gray pixels and returns log-probabilities. It centers and scales the images itself. The steps
before, from any image to gray pixels, are described in the file, as JSON under the name ``fastctc`` of its
metadata (see :func:`describe`).

    images (N, 1, H, W) uint8, widths (N,) int64 ──> log_probs (N, T, C) float32, lengths (N,) int64

N and W are free, from 1 on. Each file is run and compared with the model in PyTorch before it is written.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastctc.crnn.data import PreprocessConfig, direction_of, normalize
from fastctc.crnn.model.checkpoint import Checkpoint
from fastctc.crnn.model.network import CRNN, RecurrentHead

FORMAT = "fastctc.crnn.export"
VERSION = 1
METADATA = "fastctc"
TOLERANCE = 1e-3  # between natural-log probabilities; a wrong graph is off by whole numbers
NOISY = ("onnx_ir", "onnxscript", "torch.export", "torch._export", "torch.onnx")  # loggers

Run = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class ExportError(RuntimeError):
    """A model that cannot be exported, or whose exported file computes something else."""


@dataclass(frozen=True)
class Export:
    """Description of a written file.

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


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the description that prepares an image for an exported model and decodes its output.

    Returns:
        JSON data: ``alphabet``, ``blank``, ``direction`` (``"rtl"`` or ``"ltr"`` where the
        classes are in visual order), ``classes`` (the text of each class, the blank's empty), ``preprocess`` (the
        fields of :class:`fastctc.crnn.data.preprocess.PreprocessConfig`), ``columns_per_frame``, ``steps`` (in
        words, from an image to its text), ``architecture``, ``training`` and the versions of ``fastctc`` and
        ``torch``.
    """
    alphabet, config = checkpoint.alphabet, checkpoint.model.config
    classes = list(alphabet.characters)
    classes.insert(alphabet.blank, "")
    return {
        "format": FORMAT,
        "version": VERSION,
        "alphabet": alphabet.characters,
        "blank": alphabet.blank,
        "direction": direction_of(alphabet),
        "classes": classes,
        "preprocess": asdict(checkpoint.preprocess) | {"height": checkpoint.preprocess.rows},
        "columns_per_frame": config.columns_per_frame,
        "steps": _steps(checkpoint.preprocess),
        "architecture": asdict(config),
        "training": checkpoint.training,
        "fastctc": version(),
        "torch": torch.__version__,
    }


def _steps(config: PreprocessConfig) -> list[str]:
    """Return the steps from an image to its text, in words."""
    filters = [f"{name} = {value}" for name, value in config.filters().items() if name != "crop"]
    return [
        "Gray: turn the image as its EXIF data say, take the first frame of an animation, lay transparent"
        " parts on white; gray = (299 R + 587 G + 114 B) / 1000, as Pillow's convert('L'). Levels of more than"
        " 8 bits: the lowest becomes 0, the highest 255.",
        *([f"Filters, see fastctc.crnn.PreprocessConfig: {', '.join(filters)}."] if filters else []),
        *([_tone_curve(config)] if config.tone else []),
        *([_crop(config)] if config.crop else []),
        f"Resize to {config.rows} rows and max(1, round(width * {config.rows} / height)) columns, as"
        f" Pillow's BILINEAR (antialiased); refuse more than {config.max_width} columns.",
        "Stack as images (N, 1, H, W) uint8, each at the left, the rest of the columns anything; widths (N,)"
        " int64: columns of each image, 1 to W.",
        "The model centers each image on the mean of its own pixels and divides it by their standard deviation"
        f" + {config.contrast_floor}, ink positive, and gives log_probs (N, T, C), natural logarithms, and"
        " lengths (N,): frames of each image; the frames after them mean nothing.",
        "Greedy text: the most probable class of each frame, repeats once, without the blank; a class's text"
        " is in classes.",
    ]


def _tone_curve(config: PreprocessConfig) -> str:
    return (
        "Tone curve: background = the lowest level that at least half of the pixels do not exceed; d(g) ="
        " background - g if the sum of the squares of these differences over the pixels below the background is at"
        " least the sum over those above, else g - background; largest = d of the farthest level on that side. A"
        f" level g becomes rint(255 * (1 - s ** {config.tone})), where s = clip(d(g) / max(largest,"
        f" {config.tone_floor}), 0, 1)."
    )


def _crop(config: PreprocessConfig) -> str:
    return (
        "Crop: reduce by the least whole factor f to at most 128 rows, as Pillow's reduce; leave images with less"
        " than 8 rows or columns. A row's strength is the mean of its max(2, rows // 16) largest differences"
        " between pixels two columns apart. Text are the rows from the first to the last with a strength of at"
        " least 4 and 0.3 times its 0.9 quantile; leave images without. Keep r = max(1.16 * rows of text + 2,"
        f" rows / 4, rows^2 / columns, columns * {config.rows} / {config.max_width} + 1) rows about their middle,"
        " moved into the image; leave images if r > 0.9 * rows. Cut from int(f * top) to ceil(f * (top + r)) of"
        " the original image."
    )


def plain(model: CRNN) -> CRNN:
    """Return a copy in evaluation mode on the CPU, float32, with contiguous kernels."""
    copied = copy.deepcopy(model).cpu().float().eval()
    return copied.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload, no-any-return]


def version() -> str:
    """Return the version of this package."""
    import fastctc

    return fastctc.__version__


def signature(checkpoint: Checkpoint, spare_frames: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return descriptions of the inputs and the outputs."""
    config = checkpoint.model.config
    spare = f" + {spare_frames}" if spare_frames else ""
    frames = f"ceil(W / {config.columns_per_frame}){spare}"
    return (
        (f"images uint8 (N, 1, {config.height}, W)", "widths int64 (N,)"),
        (f"log_probs float32 (N, {frames}, {config.num_classes})", "lengths int64 (N,)"),
    )


class Exported(nn.Module):
    """The exported module: pixels to log-probabilities, without branches on the values of a tensor."""

    def __init__(
        self, checkpoint: Checkpoint, recurrence: Callable[[RecurrentHead], nn.Module], spare_frames: int
    ) -> None:
        super().__init__()
        self.spare_frames = spare_frames
        self.preprocess = checkpoint.preprocess
        self.model = plain(checkpoint.model)
        if isinstance(self.model.head, RecurrentHead):
            self.model.head = recurrence(self.model.head)  # type: ignore[assignment]
        self.eval()

    def forward(self, images: Tensor, widths: Tensor) -> tuple[Tensor, Tensor]:
        """Return log_probs (N, T, C) and lengths (N,) of images (N, 1, H, W) uint8 and widths (N,)."""
        images = F.pad(images, (0, self.spare_frames * self.model.config.columns_per_frame))
        log_probs, lengths = self.model(normalize(images, widths, self.preprocess), widths)
        return log_probs, lengths

    def example(self) -> tuple[Tensor, Tensor]:
        """Return inputs to trace with."""
        width = 9 * self.model.config.columns_per_frame + 3
        images = torch.zeros(3, 1, self.model.config.height, width, dtype=torch.uint8)
        return images, torch.tensor([width, 1, width // 2])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporters' messages about their own packages and plans."""
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


def dynamic_shapes() -> dict[str, Any]:
    """Return which sizes of the inputs are free."""
    from torch.export import Dim

    batch = Dim("batch", min=1)
    return {"images": {0: batch, 3: Dim("width", min=1)}, "widths": {0: batch}}


def compare(checkpoint: Checkpoint, run: Run, name: str) -> float:
    """Return the largest difference of log-probabilities between a file and the model.

    Raises:
        ExportError: it is above ``TOLERANCE``, or a length differs.
    """
    model = plain(checkpoint.model)
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
            with torch.no_grad():
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
