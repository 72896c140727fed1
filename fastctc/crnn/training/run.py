"""Training a recognizer: seeded, resumable after a kill, within a number of steps or minutes.

Everything random in a step (order, shifts, dropout) is drawn from the seed and the step's number. The learning
rate is a function of the position on the run's plan. So the state of a run is its weights, its optimizer and its
pace. Under ``torchrun``, several processes share every batch, see :mod:`fastctc.crnn.training.distributed`.
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

from fastctc.crnn.data import Problem, claimed, own_torch_state
from fastctc.crnn.model import CheckpointError, load_state
from fastctc.crnn.read import Evaluation
from fastctc.crnn.training import distributed
from fastctc.crnn.training.config import TrainConfig, config_from_dict, settled
from fastctc.crnn.training.data import Loader
from fastctc.crnn.training.journal import tensorboard_writer
from fastctc.crnn.training.loop import SAMPLES_FOLDER, STATE_FILE, TrainError, TrainingLoop
from fastctc.crnn.training.pace import Pace

log = logging.getLogger(__name__)


@dataclass
class TrainResult:
    """What a finished run leaves.

    Attributes:
        checkpoint: its path.
        config: the recipe with everything filled in that was left open, except for the steps of a budget.
        steps: training steps that were done.
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
    """Train a recognizer and leave ``model.safetensors``, ``state.pt``, ``log.jsonl`` and ``curve.png``.

    Started by ``torchrun``, the processes share every batch. The first writes, and all return the result.

    Args:
        config: the recipe. On a resumed run the recipe in the state counts.
        out: the folder; made if missing.
        resume: go on from ``state.pt`` if it is there. A run of a given number of steps then has the result of an
            uninterrupted run, to the bit.
        workers: processes that draw or read images; None: one for each CPU. No influence on the result.
        cache: folder in which preprocessed images are kept, so that another run with the same images begins at
            once; None: they are not kept.
        tensorboard: write event files for TensorBoard into ``tensorboard`` in the folder.
        show_progress: show a progress bar on stderr, if that is a terminal.
        should_stop: asked before each step; true saves the state and ends the run with
            :class:`KeyboardInterrupt`.

    Returns:
        The checkpoint's path and its accuracy on images that were not trained on.

    Raises:
        FolderInUseError: another process writes into ``out``.
        TrainError: the loss stayed NaN or infinite, ``out`` holds a run and ``resume`` is false, or another
            process ended.
        fastctc.crnn.LabelError: the data cannot be used.
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
            config, state = distributed.from_first(lambda: _beginning(config, out, resume))
            torch.set_num_threads(config.threads or threads_before)
            loader = _loader(out, workers, cache, show_progress)
            pace = _pace_in(config, state)
            number = pace.round_of(1 if config.draw is None else config.draw.rounds)
            data, config = distributed.first_before_others(lambda: loader.load(config, number))
            for problem in data.problems if distributed.number() == 0 else ():
                log.warning("left out: %s", problem)
            loop = TrainingLoop(
                config, data, pace, out, loader,
                device=device, tensorboard=tensorboard, state=state, started=started,
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


def _beginning(config: TrainConfig, out: Path, resume: bool) -> tuple[TrainConfig, dict[str, Any] | None]:
    """Return the settled recipe, and the state to go on from; None to begin."""
    state = _find_state(out, resume)
    processes = distributed.count()
    config = settled(config if state is None else _recipe_in(state), processes)
    parts = config.schedule.parts or 1
    if parts % processes:
        raise ValueError(f"parts is {parts}, but {processes} processes share them: expected a multiple")
    return config, state


def _find_state(out: Path, resume: bool) -> dict[str, Any] | None:
    """Return the saved state to go on from; None to begin."""
    path = out / STATE_FILE
    if not path.exists():
        return None
    if not resume:
        raise TrainError(f"{out} holds a training run already: resume it, or choose another folder")
    return load_state(path)


def _recipe_in(state: dict[str, Any]) -> TrainConfig:
    try:
        return config_from_dict(state["config"])
    except ValueError as error:
        raise TrainError(str(error)) from error


def _pace_in(config: TrainConfig, state: dict[str, Any] | None) -> Pace:
    """Return the pace of a saved state; None: that of a beginning."""
    if state is not None and "pace" in state:
        return Pace(**state["pace"])
    pace = Pace.of(config.schedule.steps)
    if state is not None:  # fastctc 0.1 counted steps alone
        pace.position = float(state["step"])
    return pace


def saved_config(out: str | Path) -> TrainConfig | None:
    """Return the recipe of the run in a folder, to go on with; None if it holds none."""
    state = _find_state(Path(out), resume=True)
    return None if state is None else _recipe_in(state)


def _loader(out: Path, workers: int | None, cache: str | Path | None, show_progress: bool) -> Loader:
    """Return what loads images; several processes share those of the first by a file."""
    if cache is None and distributed.is_shared():
        cache = out / SAMPLES_FOLDER
    return Loader(
        workers, show_progress and distributed.number() == 0, None if cache is None else Path(cache)
    )


def _broken_off(out: Path, error: Exception) -> str:
    """Return what is left of a run in which something failed, most often another process."""
    try:
        step = load_state(out / STATE_FILE)["step"]
        left = (
            f"the state after step {step} is saved in {out}: the same command with --resume goes on from it"
        )
    except (OSError, CheckpointError):
        left = "no state was saved yet"
    process = f"process {distributed.number()} of {distributed.count()}"
    return f"training broke off in {process}, as it does when another one has ended; {left} ({error})"
