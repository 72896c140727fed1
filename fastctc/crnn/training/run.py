"""Training a recognizer: seeded, resumable, for a number of steps or minutes.

Everything random in a step (order, shifts, dropout) follows from the seed and the number of the step. The learning
rate is a function of the position on the run's plan. The state of a run is its weights, its optimizer and its pace.
Under ``torchrun``, several processes share every batch, see :mod:`fastctc.crnn.training.distributed`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fastctc.crnn.data import LabelError, Problem, claimed, own_torch_state
from fastctc.crnn.model import Checkpoint, CheckpointError, load_state
from fastctc.crnn.read import Evaluation
from fastctc.crnn.training import distributed
from fastctc.crnn.training.config import TrainConfig, settled
from fastctc.crnn.training.data import Loader, TrainingData
from fastctc.crnn.training.errors import TrainError, explain_out_of_memory
from fastctc.crnn.training.fine_tune import load_start, with_start
from fastctc.crnn.training.journal import tensorboard_writer
from fastctc.crnn.training.loop import SAMPLES_FOLDER, TrainingLoop
from fastctc.crnn.training.pace import Pace
from fastctc.crnn.training.resume import STATE_FILE, pace_of, resumed, saved_state
from fastctc.crnn.training.sizing import sized

log = logging.getLogger(__name__)


@dataclass
class TrainResult:
    """Result of a finished run.

    Attributes:
        checkpoint: path of the checkpoint.
        config: the recipe, with the settings filled in that were left open, except for the steps of a budget.
        steps: number of training steps.
        evaluation: accuracy of the stored weights on unseen images.
        problems: samples that were left out.
        bad_steps: steps without an update since the last good one.
    """

    checkpoint: Path
    config: TrainConfig
    steps: int
    evaluation: Evaluation
    problems: list[Problem]
    bad_steps: int


@own_torch_state(grad=True)
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
    """Train a recognizer and write its checkpoints, its state, a log and a picture.

    ========================= ==========================================================
    ``model.safetensors``     the newest weights, at each save and at the end
    ``best.safetensors``      the best weights on the unseen images, at an evaluation
    ``state.pt``              what a stopped run is resumed from
    ``log.jsonl``             figures of every few steps
    ``curve.png``             their picture, at the end
    ========================= ==========================================================

    Processes that ``torchrun`` started share every batch. The first one writes the files; all return the result.

    Args:
        config: the recipe. With ``start_from`` it fine-tunes a checkpoint. A resumed run takes the saved recipe:
            this one may leave settings open, name moved data, and change the number of threads, the device, how
            often the run evaluates, saves and logs; and it may have more steps or minutes. The recipe that
            :func:`fastctc.crnn.training.saved_config` returns fits always.
        out: the folder; made if missing.
        resume: go on from ``state.pt`` if it is there. A run of a given number of steps then has the result of an
            uninterrupted run, to the bit.
        workers: processes that draw or read images; None: one per CPU. They do not change the result.
        cache: folder for preprocessed images, which another run with the same images takes from there; None: no
            cache.
        tensorboard: write event files for TensorBoard into ``tensorboard`` in the folder.
        show_progress: show a progress bar on stderr, if that is a terminal.
        should_stop: called with the step before each step. If it returns True, the state is saved and the run
            ends with :class:`KeyboardInterrupt`.

    Returns:
        The checkpoint's path and its accuracy on images that were not trained on.

    Raises:
        FolderInUseError: another process writes into ``out``.
        TrainError: the loss stayed NaN or infinite, ``out`` holds a run and ``resume`` is false, or another
            process ended.
        ValueError: the recipe contradicts the run to resume, or the checkpoint to start from.
        fastctc.crnn.LabelError: the data cannot be used.
        fastctc.crnn.data.DiskFullError: there is no room for a file; the earlier ones stay.
        ModuleNotFoundError: ``tensorboard`` is asked for and not installed.
    """
    started = time.monotonic()
    out = Path(out)
    threads_before = torch.get_num_threads()
    if tensorboard:
        tensorboard_writer()
    with distributed.processes(config.device) as device, ExitStack() as claims:
        try:
            distributed.from_first(lambda: claims.enter_context(claimed(out)))
            config, state, pace = distributed.from_first(lambda: _beginning(config, out, resume))
            start = load_start(config) if state is None else None
            torch.set_num_threads(config.threads or threads_before)
            loader = _loader(out, workers, cache, show_progress)
            number = pace.round_of(1 if config.draw is None else config.draw.rounds)
            data, config = distributed.first_before_others(lambda: _load(loader, config, number, start))
            for problem in data.problems if distributed.number() == 0 else ():
                log.warning("left out: %s", problem)
            loop = TrainingLoop(
                config, data, pace, out, loader,
                device=device, tensorboard=tensorboard, state=state, start=start, started=started,
            )  # fmt: skip
            evaluation = loop.run(should_stop)
            path = loop.finish(evaluation)
            return TrainResult(path, config, loop.step, evaluation, data.problems, loop.bad_steps)
        except RuntimeError as error:
            if isinstance(error, TrainError) or not distributed.is_shared():
                raise
            distributed.ignore_end()
            raise TrainError(_broken_off(out, error)) from error
        finally:
            torch.set_num_threads(threads_before)


def _beginning(
    config: TrainConfig, out: Path, resume: bool
) -> tuple[TrainConfig, dict[str, Any] | None, Pace]:
    """Return the settled recipe, the state to go on from, and the pace; the state is None at the beginning."""
    state, processes = saved_state(out), distributed.count()
    if state is not None and not resume:
        raise TrainError(f"{out} holds a training run already: resume it, or choose another folder")
    if state is None:
        config = sized(with_start(config, load_start(config)))
    else:
        config = resumed(config, state)
    config = settled(config, processes)
    parts = config.schedule.parts or 1
    if parts % processes:
        raise ValueError(f"parts is {parts}, but {processes} processes share them: expected a multiple")
    return config, state, pace_of(config, state)


def _load(
    loader: Loader, config: TrainConfig, number: int, start: Checkpoint | None
) -> tuple[TrainingData, TrainConfig]:
    """Return the images of a round, and the recipe with what follows from them."""
    try:
        with explain_out_of_memory(lambda: _ADVICE):
            return loader.load(config, number, None if start is None else start.alphabet)
    except LabelError as error:
        if config.data is None or Path(config.data).exists():
            raise
        raise LabelError(f"{error}. If the images were moved, give their new folder as data") from error


_ADVICE = (
    "while the images are loaded, all of which are kept in memory: use a cache folder, which maps them from a file;"
    " lower the number of images, or their height"
)


def _loader(out: Path, workers: int | None, cache: str | Path | None, show_progress: bool) -> Loader:
    """Return the loader of the images; several processes share the first one's images by a file."""
    if cache is None and distributed.is_shared():
        cache = out / SAMPLES_FOLDER
    return Loader(
        workers, show_progress and distributed.number() == 0, None if cache is None else Path(cache)
    )


def _broken_off(out: Path, error: Exception) -> str:
    """Return the message of a run in which a process failed, with the step to resume from."""
    try:
        step = load_state(out / STATE_FILE)["step"]
        left = (
            f"the state after step {step} is saved in {out}: the same command with --resume goes on from it"
        )
    except (OSError, CheckpointError):
        left = "no state was saved yet"
    process = f"process {distributed.number()} of {distributed.count()}"
    return f"training broke off in {process}, as it does when another one has ended; {left} ({error})"
