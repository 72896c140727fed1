"""The loop of a training run: its steps, its rounds of images, and the state it goes on from."""

from __future__ import annotations

import logging
import math
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from fastctc.crnn.data import Batch, BatchMaker, DiskFullError, Samples, progress, write_atomically
from fastctc.crnn.model import (
    CRNN,
    MODEL_FILE,
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
    save_state,
    summarize,
)
from fastctc.crnn.read import Evaluation, evaluate_samples
from fastctc.crnn.training import distributed
from fastctc.crnn.training.best import Best
from fastctc.crnn.training.config import TrainConfig, config_to_dict, max_rate
from fastctc.crnn.training.data import Loader, TrainingData
from fastctc.crnn.training.errors import TrainError, explain_out_of_memory
from fastctc.crnn.training.fine_tune import digest_of, new_model
from fastctc.crnn.training.pace import REPLAN_EVERY, Budget, Pace
from fastctc.crnn.training.recorder import Recorder
from fastctc.crnn.training.resume import STATE_FILE
from fastctc.crnn.training.step import Learner, Rate, StepReport, one_cycle

BEST_FILE = "best.safetensors"
SAMPLES_FOLDER = "samples"  # what processes share, while a run lasts
MAX_BAD_STEPS = 20
HOTTEST = 2.0  # temperature at most: above, a model of few mistakes is sure of pictures of other kinds, too

log = logging.getLogger(__name__)


class TrainingLoop:
    """A training run in one process.

    Args:
        config: the recipe, settled.
        data: images to train on, of the round that ``pace`` is in, and images to evaluate.
        pace: the position of the run on its plan.
        out: the folder of the run.
        loader: draws the images of later rounds.
        device: device of this process.
        tensorboard: write event files for TensorBoard.
        state: saved by an earlier process, to go on from; None to begin.
        start: the checkpoint whose weights the run begins with; None: random weights.
        started: ``time.monotonic()`` at the start of this process's part of the run.
    """

    def __init__(
        self, config: TrainConfig, data: TrainingData, pace: Pace, out: Path, loader: Loader,
        *, device: torch.device, tensorboard: bool, state: dict[str, Any] | None,
        start: Checkpoint | None, started: float,
    ) -> None:  # fmt: skip
        self.config, self.pace, self.out, self.loader, self.device = config, pace, out, loader, device
        self.data = data._replace(train=Samples())  # the batches hold the images, and free them
        self._writes = distributed.number() == 0
        self.step = self.bad_steps = 0
        self.best = Best()
        self._started = started
        self._rate = Rate(0.0, 0.0)
        self._start = digest_of(config.start_from) if state is None else state.get("start")
        self._saved: int | None = None if state is None else state["step"]
        model = new_model(config, data.alphabet, start).to(device)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.learner = Learner(model, config, data.alphabet)
        self._begin_round(self._round(), data.train)
        if state is not None:
            self._restore(state)
        self.budget = self._budget()
        self.recorder = Recorder(out if self._writes else None, self.step, tensorboard)
        if state is None:
            if self._writes:
                log.info("%s\n", summarize(model, data.train.images[0].shape[1]))
            self.save()

    def run(self, should_stop: Callable[[int], bool]) -> Evaluation:
        """Train up to the last step.

        Args:
            should_stop: asked before each step; true saves the state and raises :class:`KeyboardInterrupt`.

        Returns:
            The evaluation of the weights as they are stored.
        """
        with self._explained():
            return self._run(should_stop)

    def _run(self, should_stop: Callable[[int], bool]) -> Evaluation:
        schedule = self.config.schedule
        total, show = self.step + self.pace.left, self.loader.show_progress
        with progress("training", "step", total, initial=self.step, show=show) as bar:
            while self.pace.left and not self._is_stuck():
                if distributed.any_of(should_stop(self.step)):
                    self.save()
                    raise KeyboardInterrupt
                report = self._advance()
                self._keep_budget()
                bar.update()
                if self.step % 20 == 0:
                    bar.total = self.step + self.pace.left
                    bar.set_postfix_str(self.recorder.postfix(report))
                if self.pace.left and self.step % schedule.eval_every == 0:
                    self._log(self._evaluate_now())
                elif self.pace.left and self.step % schedule.log_every == 0:
                    self._log()
                if self.step % schedule.save_every == 0 or not self.pace.left or self._is_stuck():
                    self.save()
        evaluation = distributed.from_first(self._evaluate_stored)
        if self.recorder.tally.steps:
            self._log(evaluation)
        self._keep_best(evaluation)
        return distributed.from_first(self._evaluate_best) if self._stopped_early() else evaluation

    def _is_stuck(self) -> bool:
        """Return True if the accuracy has not improved for as many evaluations as the recipe has patience."""
        patience = self.config.schedule.patience
        return patience is not None and self.best.since >= patience

    def _stopped_early(self) -> bool:
        """Return True if the best weights are the result of the run, not the last ones."""
        return self._is_stuck() and self.best.since > 0

    def finish(self, evaluation: Evaluation) -> Path:
        """Write the final checkpoint with its record, and the picture of the run; return the checkpoint's path."""
        path = self.out / MODEL_FILE
        if self._writes:
            with self._explained():
                if self._stopped_early():
                    log.info("not better since step %d, whose weights are kept", self.best.step)
                    write_atomically(path, (self.out / BEST_FILE).read_bytes())
                else:
                    save_checkpoint(self._checkpoint(evaluation), path)
                self.recorder.close(evaluation)
            shutil.rmtree(self.out / SAMPLES_FOLDER, ignore_errors=True)
        return path

    def save(self) -> None:
        """Write the state and, after the first step, the checkpoint."""
        if self._writes:
            if self.step:
                save_checkpoint(self._checkpoint(None), self.out / MODEL_FILE)
            state = {
                "config": config_to_dict(self.config),
                "step": self.step,
                "pace": asdict(self.pace),
                "best": asdict(self.best),
                "bad_steps": self.bad_steps,
                "seconds": self.seconds(),
                "round": self.round,
                "data": self.fingerprint,
                "start": self._start,
            }
            save_state(state | self.learner.state(), self.out / STATE_FILE)
            self._saved = self.step

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Add to errors of memory and disk what to change and how to go on."""
        try:
            with explain_out_of_memory(self._advice_on_memory):
                yield
        except DiskFullError as error:
            if self._saved is None:
                raise
            on = f"--resume (resume=True): the run goes on from step {self._saved}"
            raise DiskFullError(error.errno, f"{error} with {on}") from error

    def _advice_on_memory(self) -> str:
        schedule = self.config.schedule
        parts = schedule.parts or 1
        text = (
            f"in step {self.step + 1}: batch_size is {schedule.batch_size}, of which {schedule.batch_size // parts}"
            f" images are computed at once (parts is {parts}). Begin a new run with a smaller batch_size, with more"
            " parts, a smaller max_width or a smaller network"
        )
        if self._saved is not None:
            text += (
                f"; or free memory and resume this one with --resume (resume=True) from step {self._saved}"
            )
        return text

    def seconds(self) -> float:
        """Return the wall time of this run, drawing included, over all processes it was resumed in."""
        return time.monotonic() - self._started

    def _restore(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        if state["round"] == self.round and state["data"] != self.fingerprint:
            raise TrainError(
                f"the training data is not what the run began with: its fingerprint is {self.fingerprint},"
                f" expected {state['data']}; the run cannot be resumed"
            )
        self.learner.restore(state)
        self.step, self.bad_steps = state["step"], state["bad_steps"]
        self.best = Best(**state.get("best", {}))
        self._started -= state["seconds"]

    def _budget(self) -> Budget | None:
        """Return the budget of a run that has minutes instead of steps."""
        schedule = self.config.schedule
        if schedule.steps is not None:
            return None
        began = time.monotonic()
        self._evaluate(self.learner.result)
        seconds = time.monotonic() - began
        budget = Budget(60 * (schedule.minutes or 0), self.seconds(), schedule.eval_every, self._rounds())
        budget.evaluated(seconds)
        return budget

    def _advance(self) -> StepReport:
        """Do one step, timed."""
        began = time.perf_counter()
        number = self._round()
        if number != self.round:
            self._draw_round(number)
        parts = self._parts()
        ready = time.perf_counter()
        optimizer = self.config.optimizer
        self._rate = one_cycle(self.pace.position, self.pace.steps, max_rate(self.config), optimizer.warmup)
        report = self.learner.step(parts, self.step, self._rate)
        batch_size = self.config.schedule.batch_size
        self.recorder.tally.add(report, batch_size, ready - began, time.perf_counter() - ready)
        self.step += 1
        self.pace.advance()
        self.bad_steps = self.bad_steps + 1 if report.skipped else 0
        if self.bad_steps >= MAX_BAD_STEPS:
            raise TrainError(
                f"loss or gradient was not finite in {MAX_BAD_STEPS} steps in a row, up to step {self.step}:"
                " lower max_lr, or use precision 'fp32'"
            )
        return report

    def _keep_budget(self) -> None:
        """Fit the rest of the plan into the time left, if the run has a budget."""
        if self.budget is None or not self.pace.left:
            return
        if self.step % REPLAN_EVERY == 0 or self.step < REPLAN_EVERY:
            self.budget.stepped(1 if self.step < REPLAN_EVERY else REPLAN_EVERY)
            budget = self.budget
            self.pace.fit(distributed.from_first(lambda: budget.steps_left(self.round)))

    def _rounds(self) -> int:
        return 1 if self.config.draw is None else self.config.draw.rounds

    def _round(self) -> int:
        """Return the number of the set of drawn images that the next step is trained on."""
        return self.pace.round_of(self._rounds())

    def _begin_round(self, number: int, samples: Samples) -> None:
        """Make batches of these samples from now on."""
        config = self.config
        self.round, self.fingerprint = number, samples.fingerprint()
        if self.fingerprint != distributed.from_first(samples.fingerprint):
            raise TrainError(f"process {distributed.number()} has other images than the first")
        self.batches = BatchMaker(
            samples, self.data.alphabet, config.schedule.batch_size,
            seed=config.seed, augment=config.augment, buckets=config.schedule.buckets,
        )  # fmt: skip

    def _draw_round(self, number: int) -> None:
        """Replace the training images by newly drawn ones."""
        began = time.monotonic()
        self._begin_round(number, Samples())  # frees the old ones first
        draw = self.loader.draw
        self._begin_round(number, distributed.first_before_others(lambda: draw(self.config, number)))
        if self.budget is not None:
            self.budget.drew(time.monotonic() - began)

    def _parts(self) -> list[Batch]:
        """Return the parts of the next step's batch that this process computes."""
        parts = self.config.schedule.parts or 1
        own = parts // distributed.count()
        first = distributed.number() * own
        return [self.batches.batch(self.step, (number, parts)) for number in range(first, first + own)]

    def _evaluate(self, model: CRNN) -> Evaluation:
        data = self.data
        return evaluate_samples(model, data.unseen, data.alphabet, data.preprocess, device=self.device)

    def _evaluate_now(self) -> Evaluation:
        """Evaluate the weights as they are, and keep them if they are the best."""
        evaluation = distributed.from_first(self._evaluate_timed)
        self._keep_best(evaluation)
        return evaluation

    def _keep_best(self, evaluation: Evaluation) -> None:
        """Write the checkpoint of the best weights if they are those just evaluated."""
        if self.best.update(evaluation, self.step) and self._writes:
            save_checkpoint(self._checkpoint(evaluation), self.out / BEST_FILE)

    def _evaluate_best(self) -> Evaluation:
        return self._evaluate(load_checkpoint(self.out / BEST_FILE).model.to(self.device))

    def _evaluate_timed(self) -> Evaluation:
        """Evaluate the weights as they are, and count the time in the budget."""
        began = time.monotonic()
        evaluation = self._evaluate(self.learner.result)
        if self.budget is not None:
            self.budget.evaluated(time.monotonic() - began)
        return evaluation

    def _evaluate_stored(self) -> Evaluation:
        """Write the checkpoint and evaluate the weights that it holds."""
        save_checkpoint(self._checkpoint(None), self.out / MODEL_FILE)
        return self._evaluate(load_checkpoint(self.out / MODEL_FILE).model.to(self.device))

    def _log(self, evaluation: Evaluation | None = None) -> None:
        self.recorder.log(self.step, self.pace.left, self.seconds(), self._rate, evaluation)

    def _checkpoint(self, evaluation: Evaluation | None) -> Checkpoint:
        """Return the model with its record, as it is now."""
        import fastctc

        record: dict[str, Any] = {
            "recipe": config_to_dict(self.config),
            "steps": self.step,
            "minutes": round(self.seconds() / 60, 2),
            "training_images": len(self.batches.samples) * self._rounds(),
            "torch": torch.__version__,
            "fastctc": fastctc.__version__,
            "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        }
        if evaluation is not None:
            record["exact_match"] = round(evaluation.exact_match, 6)
            record["character_error_rate"] = round(evaluation.character_error_rate, 6)
            record["evaluated_images"] = evaluation.count
        temperature = 1.0
        if evaluation is not None and any(map(math.isfinite, (each.score for each in evaluation.outcomes))):
            fitted = evaluation.calibrated(HOTTEST)
            temperature = fitted.temperature
            record["calibration_error"] = round(fitted.calibration_error, 6)
        return Checkpoint(self.learner.result, self.data.alphabet, self.data.preprocess, record, temperature)
