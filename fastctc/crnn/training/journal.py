"""The log of a training run: a line of figures every few steps, in ``log.jsonl`` and for TensorBoard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fastctc.crnn.data import explain_full_disk, to_json, write_atomically
from fastctc.crnn.training.step import StepReport

LOG_FILE = "log.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


class Tally:
    """Sums over the steps since the last line of the log: losses, and where the time went."""

    def __init__(self) -> None:
        self.steps = self.skipped = self.images = 0
        self.loss = self.blank_rate = self.data = self.compute = 0.0

    def add(self, report: StepReport, images: int, data: float, compute: float) -> None:
        """Add a step: its report, its images, and the seconds of making the batch and of training on it."""
        self.steps += 1
        self.images += images
        if report.skipped:
            self.skipped += 1
        else:
            self.loss += report.loss
        self.blank_rate += report.blank_rate
        self.data += data
        self.compute += compute

    def images_per_second(self) -> float:
        """Return the number of images per second of the steps."""
        return self.images / max(1e-9, self.data + self.compute)

    def data_share(self) -> float:
        """Return the share of the time that was spent on making batches."""
        return self.data / max(1e-9, self.data + self.compute)

    def figures(self) -> dict[str, float | None]:
        """Return means over the steps, and sums of seconds, as they go into the log.

        The loss is the mean over the steps that were not skipped; None if there is none. ``skipped`` counts the
        steps whose loss or gradient was not finite, and is there only if there are such steps.
        """
        done = self.steps - self.skipped
        skipped = {"skipped": self.skipped} if self.skipped else {}
        return skipped | {
            "loss": round(self.loss / done, 7) if done else None,
            "blank_rate": round(self.blank_rate / max(1, self.steps), 4),
            "images_per_second": round(self.images_per_second(), 1),
            "data_seconds": round(self.data, 3),
            "compute_seconds": round(self.compute, 3),
        }

    def rate(self) -> str:
        """Return the speed in words."""
        return f"{self.images_per_second():.0f} img/s, {100 * self.data_share():.0f}% data"


class Journal:
    """Writes the log of a run.

    Args:
        folder: the run's.
        step: the step the run goes on from; later lines of an earlier, killed run are removed.
        tensorboard: write event files for TensorBoard, too.

    Raises:
        ModuleNotFoundError: ``tensorboard`` is not installed.
    """

    def __init__(self, folder: Path, step: int, tensorboard: bool = False) -> None:
        self._path = folder / LOG_FILE
        lines = [to_json(line) + "\n" for line in read_log(self._path) if 0 < line["step"] <= step]
        if lines:
            write_atomically(self._path, "".join(lines).encode())
        else:
            self._path.unlink(missing_ok=True)
        self._writer: Any = None
        if tensorboard:
            writer = tensorboard_writer()
            self._writer = writer(str(folder / TENSORBOARD_FOLDER), purge_step=step + 1)

    def write(self, line: dict[str, Any]) -> None:
        """Append a line with a ``step`` and the figures of a :class:`Tally`."""
        text = to_json(line) + "\n"
        with explain_full_disk(self._path, len(text)), self._path.open("a", encoding="utf-8") as file:
            file.write(text)
        if self._writer is None:
            return
        figures = {name: line[name] for name in _SHOWN if line.get(name) is not None}
        seconds = line["data_seconds"] + line["compute_seconds"]
        figures["data_share"] = line["data_seconds"] / max(1e-9, seconds)
        for name, value in figures.items():
            self._writer.add_scalar(name, value, line["step"])
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()


_SHOWN = ("loss", "blank_rate", "exact_match", "learning_rate", "images_per_second")


def tensorboard_writer() -> Any:
    """Return the class that writes event files.

    Raises:
        ModuleNotFoundError: ``tensorboard`` is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "TensorBoard logs need the package tensorboard: pip install fastctc[train]"
        ) from error
    return SummaryWriter


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a log, without an unfinished last line; an empty list if there is no log."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    whole = text[: text.rfind("\n") + 1]
    return [json.loads(line) for line in whole.splitlines()]
