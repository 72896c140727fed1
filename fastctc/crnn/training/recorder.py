"""The records of a run: its log, messages, progress bar and picture."""

from __future__ import annotations

import logging
from pathlib import Path

from fastctc.crnn.read import Evaluation
from fastctc.crnn.training.curve import save_curve
from fastctc.crnn.training.journal import LOG_FILE, Journal, Tally, read_log
from fastctc.crnn.training.step import Rate, StepReport

log = logging.getLogger(__name__)

CURVE_FILE = "curve.png"


class Recorder:
    """Records a run in its folder.

    Args:
        folder: the run's; None: of a process that writes nothing.
        step: the step the run goes on from.
        tensorboard: write event files for TensorBoard, too.
    """

    def __init__(self, folder: Path | None, step: int, tensorboard: bool) -> None:
        self._folder = folder
        self._journal = None if folder is None else Journal(folder, step, tensorboard)
        self._exact = float("nan")
        self.tally = Tally()

    def log(
        self, step: int, left: int, seconds: float, rate: Rate, evaluation: Evaluation | None = None
    ) -> None:
        """Write a line about the steps since the last one; with an evaluation, log it as a message, too.

        Args:
            step: steps done.
            left: steps left to do.
            seconds: of the run so far.
            rate: of the last step.
            evaluation: of the weights as they are.
        """
        tally, self.tally = self.tally, Tally()
        if self._journal is None:
            return
        line: dict[str, float | None] = {
            "step": step,
            "seconds": round(seconds, 1),
            "learning_rate": round(rate.lr, 9),
        }
        line |= tally.figures()
        if evaluation is not None:
            self._exact = evaluation.exact_match
            line["exact_match"] = round(self._exact, 5)
            loss = "none" if line["loss"] is None else f"{line['loss']:.4f}"
            log.info(
                "step %d of %d, %.1f min: loss %s, exact match %.2f%% of %d unseen, blank rate %.0f%%, %s",
                step, step + left, seconds / 60, loss, 100 * self._exact,
                evaluation.count, 100 * (line["blank_rate"] or 0), tally.rate(),
            )  # fmt: skip
        self._journal.write(line)

    def postfix(self, report: StepReport) -> str:
        """Return the text behind the progress bar."""
        return (
            f"loss {report.loss:.3f}, exact {100 * self._exact:.1f}%, blank {100 * report.blank_rate:.0f}%,"
            f" {self.tally.rate()}"
        )

    def close(self, evaluation: Evaluation) -> None:
        """Close the log and draw the picture of the run."""
        if self._journal is None or self._folder is None:
            return
        self._journal.close()
        name = self._folder.name.encode(
            "utf-8", "backslashreplace"
        ).decode()  # bytes that are no UTF-8 escaped
        title = f"{name}: {evaluation.summary()}"
        try:
            save_curve(read_log(self._folder / LOG_FILE), self._folder / CURVE_FILE, title)
        except ModuleNotFoundError as error:
            log.info("no %s: %s", CURVE_FILE, error)
