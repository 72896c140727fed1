"""Training a recogniser: seeded, resumable after a kill, within a budget of steps or minutes.

Everything random in a step (order, shifts, dropout) is drawn from the seed and the step's number, and the
learning rate is a function of the step; so the state of a run is its weights, its optimizer and a number.
Under ``torchrun``, several processes share every batch, see :mod:`fastctc.crnn.train.distributed`.
"""

from __future__ import annotations

import copy
import logging
import os
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from fastctc.crnn.data.batches import Batch, BatchMaker
from fastctc.crnn.data.collect import Problem, Samples, default_workers
from fastctc.crnn.model.checkpoint import (
    Checkpoint,
    CheckpointError,
    load_checkpoint,
    load_state,
    save_checkpoint,
    save_state,
)
from fastctc.crnn.model.network import CRNN
from fastctc.crnn.model.summary import summarize
from fastctc.crnn.read.evaluate import Evaluation, evaluate
from fastctc.crnn.train import distributed
from fastctc.crnn.train.config import PRESETS, TrainConfig, model_config, recipe_from, settled
from fastctc.crnn.train.curve import save_curve
from fastctc.crnn.train.data import Loader, TrainingData, round_of
from fastctc.crnn.train.journal import LOG_FILE, Journal, Tally, read_log, tensorboard_writer
from fastctc.crnn.train.step import Learner, StepReport, one_cycle

__all__ = ["PRESETS", "TrainConfig", "TrainError", "TrainResult", "saved_config", "train"]

log = logging.getLogger(__name__)

STATE_FILE = "state.pt"
MODEL_FILE = "model.safetensors"
CURVE_FILE = "curve.png"
SAMPLES_FOLDER = "samples"  # what processes share, while a run lasts
MAX_BAD_STEPS = 20


class TrainError(RuntimeError):
    """Training cannot go on: it diverged, a process was lost, or its state does not fit what was asked."""


@dataclass
class TrainResult:
    """What a finished run leaves.

    Attributes:
        checkpoint: its path.
        config: the recipe as it was run, images and steps filled in.
        evaluation: accuracy of the stored weights on unseen images.
        problems: samples that were left out.
        bad_steps: steps without an update since the last good one.
    """

    checkpoint: Path
    config: TrainConfig
    evaluation: Evaluation
    problems: list[Problem]
    bad_steps: int


def train(
    config: TrainConfig,
    out: str | Path,
    *,
    resume: bool = False,
    workers: int | None = None,
    cache: str | Path | None = None,
    tensorboard: bool = False,
    show_progress: bool = True,
    should_stop: Callable[[int], bool] = lambda step: False,
) -> TrainResult:
    """Trains a recogniser and leaves ``model.safetensors``, ``state.pt``, ``log.jsonl`` and ``curve.png``.

    Started by ``torchrun``, the processes share every batch; the first writes, and all return the result.

    Args:
        config: the recipe. On a resumed run the recipe in the state counts.
        out: the folder; made if missing.
        resume: go on from ``state.pt`` if it is there. The result is the one of an uninterrupted run.
        workers: processes that draw or read images; None: one for each CPU. No influence on the result.
        cache: folder in which preprocessed images are kept, so that another run with the same ones begins at
            once; None: they are not kept.
        tensorboard: write event files for TensorBoard into ``tensorboard`` in the folder.
        show_progress: a progress bar on stderr, if that is a terminal.
        should_stop: asked before each step; true saves the state and ends the run with
            :class:`KeyboardInterrupt`.

    Returns:
        The checkpoint's path and its accuracy on images that were not trained on.

    Raises:
        TrainError: the loss stayed NaN or infinite, ``out`` holds a run and ``resume`` is false, or another
            process ended.
        fastctc.crnn.data.readers.LabelError: the data cannot be used.
        ModuleNotFoundError: ``tensorboard`` is asked for and not installed.
    """
    started = time.monotonic()
    out = Path(out)
    threads_before = torch.get_num_threads()
    if tensorboard:
        tensorboard_writer()
    with distributed.processes(config.device) as device:
        try:
            config, state = distributed.from_first(lambda: _beginning(config, out, resume))
            torch.set_num_threads(config.threads or threads_before)
            loader = _loader(out, workers, cache, show_progress)
            number = round_of(config, state["step"] if state else 0)
            data, config = distributed.first_before_others(lambda: loader.load(config, number))
            for problem in data.problems if distributed.number() == 0 else ():
                log.warning("left out: %s", problem)
            run = _Run(config, data, number, out, started, loader, device, tensorboard)
            run.restore(state) if state is not None else run.begin()
            return run.finish(run.loop(should_stop))
        except RuntimeError as error:
            if isinstance(error, TrainError) or not distributed.is_shared():
                raise
            distributed.ignore_end()
            raise TrainError(_broken_off(out, error)) from error
        finally:
            torch.set_num_threads(threads_before)


def _beginning(config: TrainConfig, out: Path, resume: bool) -> tuple[TrainConfig, dict[str, Any] | None]:
    """The settled recipe, and the state to go on from; None to begin."""
    out.mkdir(parents=True, exist_ok=True)
    state = _find_state(out, resume)
    processes = distributed.count()
    config = settled(config if state is None else _recipe_in(state), processes)
    assert config.parts is not None, "settled() fills it in"
    if config.parts % processes:
        raise ValueError(
            f"parts is {config.parts}, but {processes} processes share them: expected a multiple"
        )
    return config, state


def _find_state(out: Path, resume: bool) -> dict[str, Any] | None:
    """The saved state to go on from; None to begin."""
    path = out / STATE_FILE
    if not path.exists():
        return None
    if not resume:
        raise TrainError(f"{out} holds a training run already: resume it, or choose another folder")
    return load_state(path)


def _recipe_in(state: dict[str, Any]) -> TrainConfig:
    try:
        return recipe_from(state["config"])
    except ValueError as error:
        raise TrainError(str(error)) from error


def saved_config(out: str | Path) -> TrainConfig | None:
    """The recipe of the run in a folder, to go on with; None if it holds none."""
    state = _find_state(Path(out), resume=True)
    return None if state is None else _recipe_in(state)


def _loader(out: Path, workers: int | None, cache: str | Path | None, show_progress: bool) -> Loader:
    """Several processes share the images that the first has drawn or read by a file."""
    if cache is None and distributed.is_shared():
        cache = out / SAMPLES_FOLDER
    return Loader(
        default_workers() if workers is None else workers,
        show_progress and distributed.number() == 0,
        None if cache is None else Path(cache),
    )


def _broken_off(out: Path, error: Exception) -> str:
    """What is left of a run in which something failed, most often another process."""
    try:
        step = load_state(out / STATE_FILE)["step"]
        left = (
            f"the state after step {step} is saved in {out}: the same command with --resume goes on from it"
        )
    except (OSError, CheckpointError):
        left = "no state was saved yet"
    process = f"process {distributed.number()} of {distributed.count()}"
    return f"training broke off in {process}, as it does when another one has ended; {left} ({error})"


class _Run:
    """A training run: its learner, its data, its step."""

    def __init__(
        self,
        config: TrainConfig,
        data: TrainingData,
        number: int,
        out: Path,
        started: float,
        loader: Loader,
        device: torch.device,
        tensorboard: bool,
    ) -> None:
        self.config, self.data, self.out = config, data, out
        self.started, self.loader, self.device, self.tensorboard = started, loader, device, tensorboard
        self.is_first = distributed.number() == 0
        self.earlier = 0.0  # seconds spent before this process, on a resumed run
        self.step = self.bad_steps = 0
        self.exact = float("nan")
        self.journal: Journal | None = None  # of the first process
        torch.manual_seed(config.seed)
        model: CRNN = CRNN(model_config(config, data.alphabet)).to(device)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.learner = self._learner(model)
        self._begin_round(number, data.train)
        self.data = data._replace(train=Samples())

    def _learner(self, model: CRNN) -> Learner:
        return Learner(model, self.config, self.data.preprocess, self.data.alphabet)

    def _begin_round(self, number: int, samples: Samples) -> None:
        """Makes batches of these samples from now on."""
        config = self.config
        self.round, self.fingerprint = number, samples.fingerprint()
        if self.fingerprint != distributed.from_first(samples.fingerprint):
            raise TrainError(f"process {distributed.number()} has other images than the first")
        self.batches = BatchMaker(
            samples,
            self.data.alphabet,
            config.batch_size,
            seed=config.seed,
            augment=config.augment(),
            buckets=config.buckets,
        )

    def _draw_round(self, number: int) -> None:
        """Replaces the training images by newly drawn ones."""
        self._begin_round(number, Samples())  # lets go of the old ones first
        draw = self.loader.draw
        samples = distributed.first_before_others(lambda: draw(self.config, number, self.data.preprocess))
        self._begin_round(number, samples)

    def begin(self) -> None:
        """Settles the number of steps and writes the first state."""
        if self.config.steps is None:
            self.config = self.learner.config = replace(self.config, steps=self._steps_that_fit())
        if self.is_first:
            log.info("%s\n", summarize(self.learner.model, self.batches.samples.images[0].shape[1]))
        self._open_journal()
        self.save()

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up a saved state."""
        if state["round"] == self.round and state["data"] != self.fingerprint:
            raise TrainError("the training data is not what the run began with: it cannot be resumed")
        self.learner.restore(state)
        self.step, self.bad_steps, self.earlier = state["step"], state["bad_steps"], state["seconds"]
        self._open_journal()

    def _open_journal(self) -> None:
        if self.is_first:
            self.journal = Journal(self.out, self.step, self.tensorboard)

    def save(self) -> None:
        """Writes the state."""
        if not self.is_first:
            return
        state = {
            "config": asdict(self.config),
            "step": self.step,
            "bad_steps": self.bad_steps,
            "seconds": self.seconds(),
            "round": self.round,
            "data": self.fingerprint,
        }
        save_state(state | self.learner.state(), self.out / STATE_FILE)

    def seconds(self) -> float:
        """Wall time of this run, drawing included, over all times it was resumed."""
        return self.earlier + time.monotonic() - self.started

    def loop(self, should_stop: Callable[[int], bool]) -> Evaluation:
        """Trains up to the last step; returns the evaluation of the weights as they are stored."""
        config, steps, tally = self.config, self.config.steps or 0, Tally()
        quiet = None if self.loader.show_progress else True
        with tqdm(total=steps, initial=self.step, desc="training", unit="step", disable=quiet) as bar:
            while self.step < steps:
                if distributed.any_of(should_stop(self.step)):
                    self.save()
                    raise KeyboardInterrupt
                report = self._advance(tally)
                bar.update()
                if self.step % 20 == 0:
                    bar.set_postfix_str(self._postfix(report, tally))
                if self.step < steps and self._is_logged(tally):
                    tally = Tally()
                if self.step % config.save_every == 0 or self.step == steps:
                    self.save()
        evaluation = distributed.from_first(self._evaluate_stored)
        if tally.steps:
            self._log(tally, evaluation)
        return evaluation

    def finish(self, evaluation: Evaluation) -> TrainResult:
        """Writes the final checkpoint with its record, and the picture of the run."""
        path = self.out / MODEL_FILE
        if self.journal is not None:
            save_checkpoint(self._checkpoint(evaluation), path)
            self.journal.close()
            title = f"{self.out.name}: {evaluation.summary()}"
            try:
                save_curve(read_log(self.out / LOG_FILE), self.out / CURVE_FILE, title)
            except ModuleNotFoundError as error:
                log.info("no %s: %s", CURVE_FILE, error)
            shutil.rmtree(self.out / SAMPLES_FOLDER, ignore_errors=True)
        return TrainResult(path, self.config, evaluation, self.data.problems, self.bad_steps)

    def _advance(self, tally: Tally) -> StepReport:
        """One step, timed."""
        began = time.perf_counter()
        number = round_of(self.config, self.step)
        if number != self.round:
            self._draw_round(number)
        parts = self._parts(self.step)
        ready = time.perf_counter()
        report = self.learner.step(parts, self.step)
        tally.add(report, self.config.batch_size, ready - began, time.perf_counter() - ready)
        self.step += 1
        self.bad_steps = self.bad_steps + 1 if report.skipped else 0
        if self.bad_steps >= MAX_BAD_STEPS:
            raise TrainError(
                f"loss or gradient was not finite in {MAX_BAD_STEPS} steps in a row, up to step {self.step}:"
                " lower max_lr, or use precision 'fp32'"
            )
        return report

    def _parts(self, step: int) -> list[Batch]:
        """The parts of a step's batch that this process computes."""
        parts = self.config.parts or 1
        own = parts // distributed.count()
        first = distributed.number() * own
        return [self.batches.batch(step, (number, parts)) for number in range(first, first + own)]

    def _steps_that_fit(self) -> int:
        """Measures a few steps on a copy of the model and fills the rest of the minutes with such."""
        learner = self._learner(copy.deepcopy(self.learner.model))
        times = []
        for step in range(24):
            began = time.perf_counter()
            learner.step(self._parts(step), step)
            times.append(time.perf_counter() - began)
        step_seconds = sorted(times[4:])[len(times[4:]) // 2]

        def fitting() -> int:
            began = time.perf_counter()
            self._evaluate(learner.result)
            evaluation_seconds = time.perf_counter() - began
            left = 60 * (self.config.minutes or 0) - self.seconds() - evaluation_seconds
            return max(1, int(0.95 * left / (step_seconds + evaluation_seconds / self.config.eval_every)))

        return distributed.from_first(fitting)

    def _evaluate(self, model: CRNN) -> Evaluation:
        data = self.data
        return evaluate(model, data.unseen, data.alphabet, data.preprocess, device=self.device)

    def _evaluate_stored(self) -> Evaluation:
        """Stores the model and evaluates it as it is read from the file."""
        save_checkpoint(self._checkpoint(None), self.out / MODEL_FILE)
        return self._evaluate(load_checkpoint(self.out / MODEL_FILE).model.to(self.device))

    def _is_logged(self, tally: Tally) -> bool:
        """Writes what is due after a step: an evaluation, or a line without one."""
        if self.step % self.config.eval_every == 0:
            self._log(tally, distributed.from_first(lambda: self._evaluate(self.learner.result)))
            return True
        if self.step % self.config.log_every == 0:
            self._log(tally, None)
            return True
        return False

    def _log(self, tally: Tally, evaluation: Evaluation | None) -> None:
        """Writes a line of the log; with an evaluation, it is said, too."""
        if self.journal is None:
            return
        config = self.config
        rate = one_cycle(self.step - 1, config.steps or 1, config.max_lr, config.warmup)[0]
        line = {"step": self.step, "seconds": round(self.seconds(), 1), "learning_rate": round(rate, 9)}
        line |= tally.figures()
        if evaluation is not None:
            self.exact = evaluation.exact_match
            line["exact_match"] = round(self.exact, 5)
            log.info(
                "step %d of %d, %.1f min: loss %.4f, exact match %.2f%% of %d unseen, blank rate %.0f%%, %s",
                self.step, config.steps, self.seconds() / 60, line["loss"], 100 * self.exact,
                evaluation.count, 100 * line["blank_rate"], tally.rate(),
            )  # fmt: skip
        self.journal.write(line)

    def _postfix(self, report: StepReport, tally: Tally) -> str:
        """What stands behind the progress bar."""
        return (
            f"loss {report.loss:.3f}, exact {100 * self.exact:.1f}%, blank {100 * report.blank_rate:.0f}%,"
            f" {tally.rate()}"
        )

    def _checkpoint(self, evaluation: Evaluation | None) -> Checkpoint:
        """The model with its record, as it is now."""
        import fastctc

        record: dict[str, Any] = {
            "recipe": asdict(self.config),
            "steps": self.step,
            "minutes": round(self.seconds() / 60, 2),
            "training_images": len(self.batches.samples) * self.config.rounds,
            "torch": torch.__version__,
            "fastctc": getattr(fastctc, "__version__", "unknown"),
            "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        }
        if evaluation is not None:
            record["exact_match"] = round(evaluation.exact_match, 6)
            record["character_error_rate"] = round(evaluation.character_error_rate, 6)
            record["evaluated_images"] = evaluation.count
        return Checkpoint(self.learner.result, self.data.alphabet, self.data.preprocess, record)
