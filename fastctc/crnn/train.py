"""Training a recogniser: seeded, resumable after a kill, within a budget of steps or minutes.

Everything random in a step (order, shifts, dropout) is drawn from the seed and the step's number, and the
learning rate is a function of the step; so the state of a run is its weights, its optimizer and a number.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from fastctc.crnn.batches import Batch, BatchMaker, check_samples, split_holdout
from fastctc.crnn.cache import Collected, cached
from fastctc.crnn.checkpoint import Checkpoint, load_checkpoint, load_state, save_checkpoint, save_state
from fastctc.crnn.collect import Problem, Samples, collect, default_workers
from fastctc.crnn.evaluate import Evaluation, evaluate
from fastctc.crnn.model import CRNN, CRNNConfig
from fastctc.crnn.optimize import StepReport, make_optimizer, one_cycle, training_step
from fastctc.crnn.preprocess import ImageLike, PreprocessConfig
from fastctc.crnn.readers import LabelError, Source, open_source
from fastctc.text import Alphabet

log = logging.getLogger(__name__)

STATE_FILE = "state.pt"
MODEL_FILE = "model.safetensors"
LOG_FILE = "log.jsonl"
FIRST_UNSEEN = (
    1_000_000_000  # evaluation images of a drawn series start at this index, beyond any training image
)
DRAWING_SHARE = 0.2  # of a budget of minutes, if the number of images is left open
MAX_DRAWN = 200_000  # in memory 12 kB each, if their number is left open
MAX_BAD_STEPS = 20


class TrainError(RuntimeError):
    """Training cannot go on: it diverged, or its state does not fit what was asked."""


@dataclass(frozen=True)
class TrainConfig:
    """A training recipe. Kept in the training state and in the checkpoint.

    Attributes:
        data: labelled images to train on, see :func:`fastctc.crnn.readers.open_source`; None: formulas are
            drawn.
        look, renderer, value: which formulas are drawn, see :class:`fastctc.crnn.drawing.FormulaSource`.
        captcha_share: with renderer ``"mixed"``, how many of the images the ``captcha`` package draws; the
            others are composed of its glyphs, ten times faster, but a model that has seen few of the
            package's own reads them less well.
        images: how many images are drawn; None: what can be drawn in a fifth of ``minutes``.
        rounds: how many times, evenly over the run, the images are replaced by as many new ones.
        characters: the alphabet; None: of the formulas, or of all labels in ``data``.
        architecture: ``"conv"`` or ``"vgg-bilstm"``.
        channels, hidden: sizes of the network, see :class:`fastctc.crnn.model.CRNNConfig`; None: as usual.
        height: rows images are resized to; None: 64 for ``"conv"``, 32 for ``"vgg-bilstm"``.
        stem_stride: 2 halves the image in the first convolution, see :class:`fastctc.crnn.model.CRNNConfig`;
            None: 2 for ``"conv"`` from height 64 on, else 1.
        steps: training steps; None: what fits into ``minutes``.
        minutes: wall time for drawing and training together, turned into ``images`` and ``steps`` at the
            start.
        batch_size: images a step.
        max_lr: peak of the one-cycle learning rate.
        warmup: share of the steps in which the rate rises.
        weight_decay, clip: of AdamW, and the largest gradient norm.
        shift, stretch: of images in training, see :class:`fastctc.crnn.batches.BatchMaker`.
        seed: decides images, weights, order, shifts and dropout.
        threads: of torch in this process; sums depend on it. None: torch's choice.
        precision: ``"bf16"`` (autocast), ``"fp32"``, or ``"auto"``: bf16 where the processor has it.
        device: ``"cpu"`` or ``"cuda"``.
        eval_images: unseen images that accuracy is measured on.
        eval_every, save_every: steps between evaluations, and between saves.
        buckets: batches in a window that is sorted by width, see :class:`fastctc.crnn.batches.BatchMaker`.
        cache: folder to keep preprocessed images in, for the next run with the same data; None: they are kept
            in memory only, as are images drawn by time.
    """

    data: str | None = None
    look: str = "contest"
    renderer: str = "mixed"
    value: str = "mixed"
    captcha_share: float = 0.4
    images: int | None = 20_000
    rounds: int = 1
    characters: str | None = None
    architecture: str = "conv"
    channels: int | None = None
    hidden: int | None = None
    height: int | None = None
    stem_stride: int | None = None
    steps: int | None = 2_000
    minutes: float | None = None
    batch_size: int = 64
    max_lr: float = 3e-3
    warmup: float = 0.15
    weight_decay: float = 1e-2
    clip: float = 5.0
    shift: int = 4
    stretch: float = 0.08
    seed: int = 0
    threads: int | None = None
    precision: str = "auto"
    device: str = "cpu"
    eval_images: int = 1_000
    eval_every: int = 500
    save_every: int = 250
    buckets: int = 32
    cache: str | None = None

    def __post_init__(self) -> None:
        for name in ("batch_size", "eval_images", "eval_every", "save_every", "rounds", "buckets"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")
        for name in ("images", "steps", "minutes", "threads", "height"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} is {value}, expected more than 0")
        if self.precision not in ("auto", "bf16", "fp32"):
            raise ValueError(f"precision is {self.precision!r}, expected 'auto', 'bf16' or 'fp32'")
        if self.minutes is None and (self.steps is None or (self.images is None and self.data is None)):
            raise ValueError("steps and images may be left open only with minutes")
        if self.data is not None and self.rounds > 1:
            raise ValueError(f"rounds is {self.rounds}, but only drawn images can be replaced by new ones")


PRESETS = {
    "quick": TrainConfig(look="contest", images=70_000, steps=None, minutes=8.5),
    "shipped": TrainConfig(
        look="mixed",
        images=100_000,
        rounds=2,
        steps=14_000,
        threads=1,
        eval_images=4_000,
        eval_every=2_000,
        save_every=500,
    ),
}


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


class _Data(NamedTuple):
    train: Samples
    unseen: Samples
    alphabet: Alphabet
    preprocess: PreprocessConfig
    problems: list[Problem]


def train(
    config: TrainConfig,
    out: str | Path,
    *,
    resume: bool = False,
    workers: int | None = None,
    show_progress: bool = True,
    should_stop: Callable[[int], bool] = lambda step: False,
) -> TrainResult:
    """Trains a recogniser and leaves ``model.safetensors``, ``state.pt`` and ``log.jsonl`` in a folder.

    Args:
        config: the recipe. On a resumed run the recipe in the state counts.
        out: the folder; made if missing.
        resume: go on from ``state.pt`` if it is there. The result is the one of an uninterrupted run.
        workers: processes that draw or read images; None: one for each CPU. No influence on the result.
        show_progress: a progress bar on stderr, if that is a terminal.
        should_stop: asked before each step; true saves the state and ends the run with
            :class:`KeyboardInterrupt`.

    Returns:
        The checkpoint's path and its accuracy on images that were not trained on.

    Raises:
        TrainError: the loss stayed NaN or infinite, or ``out`` holds a run and ``resume`` is false.
        fastctc.crnn.readers.LabelError: the data cannot be used.
    """
    started = time.monotonic()
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    state = _find_state(out, resume)
    if state is not None:
        config = _config_from(state)
    threads_before = torch.get_num_threads()
    config = _settled(config)
    torch.set_num_threads(config.threads or threads_before)
    try:
        workers = default_workers() if workers is None else workers
        number = _round(config, state["step"] if state else 0)
        data, config = load_data(config, number, workers, show_progress)
        run = _Run(config, data, number, out, started, workers, show_progress)
        run.restore(state) if state is not None else run.begin()
        return run.finish(run.loop(should_stop))
    finally:
        torch.set_num_threads(threads_before)


def _find_state(out: Path, resume: bool) -> dict[str, Any] | None:
    """The saved state to go on from; None to begin."""
    path = out / STATE_FILE
    if not path.exists():
        return None
    if not resume:
        raise TrainError(f"{out} holds a training run already: resume it, or choose another folder")
    return load_state(path)


def _config_from(state: dict[str, Any]) -> TrainConfig:
    known = {f.name for f in fields(TrainConfig)}
    unknown = sorted(set(state["config"]) - known)
    if unknown:
        raise TrainError(f"the training state has settings this fastctc does not know: {', '.join(unknown)}")
    return TrainConfig(**state["config"])


def saved_config(out: str | Path) -> TrainConfig | None:
    """The recipe of the run in a folder, to go on with; None if it holds none."""
    state = _find_state(Path(out), resume=True)
    return None if state is None else _config_from(state)


def _settled(config: TrainConfig) -> TrainConfig:
    """The recipe with everything that follows from the machine and from other settings filled in."""
    conv = config.architecture == "conv"
    height = config.height or (64 if conv else 32)
    stem_stride = config.stem_stride or (2 if conv and height >= 64 else 1)
    threads = config.threads or torch.get_num_threads()
    return replace(
        config, height=height, stem_stride=stem_stride, threads=threads, precision=_precision(config)
    )


def _precision(config: TrainConfig) -> str:
    """Resolves ``"auto"``: bf16 pays only where the processor multiplies it."""
    if config.precision != "auto":
        return config.precision
    if torch.device(config.device).type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    checks = [
        getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    ]
    return "bf16" if any(check() for check in checks if check is not None) else "fp32"


# --- Data ----------------------------------------------------------------------------------------------


def load_data(
    config: TrainConfig, number: int, workers: int, show_progress: bool
) -> tuple[_Data, TrainConfig]:
    """Draws or reads the samples of a round and checks them; the configuration returned says how many."""
    preprocess = PreprocessConfig(height=_height(config))
    if config.data is not None:
        samples, problems = _read_data(config, preprocess, workers, show_progress)
        alphabet = Alphabet(config.characters or "".join(sorted(set("".join(samples.texts)))) or "?")
        usable, unusable = check_samples(samples, alphabet, _model_config(config, alphabet).frames)
        training, unseen = split_holdout(usable, config.seed, config.eval_images)
        problems += unusable
    else:
        from fastctc.crnn.formulas import CHARACTERS

        alphabet = Alphabet(config.characters or CHARACTERS)
        samples, problems = _draw(config, number, preprocess, workers, show_progress)
        unseen = draw_unseen(config, preprocess, workers, show_progress)
        training, unusable = check_samples(samples, alphabet, _model_config(config, alphabet).frames)
        problems += unusable
        config = replace(config, images=len(training) + len(problems))
    for problem in problems:
        log.warning("left out: %s", problem)
    return _Data(training, unseen, alphabet, preprocess, problems), config


@dataclass(frozen=True)
class _Mixture:
    """Two series of images interleaved: an evenly spread share of the first, the rest of the second."""

    first: Source
    second: Source
    share: float

    def __call__(self, index: int) -> tuple[ImageLike, str]:
        golden = 0.6180339887498949  # its multiples fill the unit interval evenly
        return (self.first if index * golden % 1 < self.share else self.second)(index)


def formula_source(config: TrainConfig, *, renderer: str | None = None, grey: bool = True) -> Source:
    """The series of drawn formulas that a configuration names, or the same by another renderer."""
    from fastctc.crnn.drawing import FormulaSource

    renderer = renderer or config.renderer
    settings: dict[str, Any] = {"look": config.look, "value": config.value, "seed": config.seed, "grey": grey}
    if renderer == "mixed":
        captcha = FormulaSource(renderer="captcha", **settings)
        return _Mixture(captcha, FormulaSource(renderer="glyphs", **settings), config.captcha_share)
    settings["renderer"] = renderer
    return FormulaSource(**settings)


def _round(config: TrainConfig, step: int) -> int:
    """Which set of drawn images a step is trained on."""
    return min(step * config.rounds // config.steps, config.rounds - 1) if config.steps else 0


def _draw(
    config: TrainConfig, number: int, preprocess: PreprocessConfig, workers: int, show_progress: bool
) -> Collected:
    """The training images of a round: as many as are named, or fit into a share of the minutes."""
    count = config.images or MAX_DRAWN
    indices = range(number * count, (number + 1) * count)
    return _collect_drawn("drawing", config, config.renderer, indices, preprocess, workers, show_progress)


def draw_unseen(
    config: TrainConfig, preprocess: PreprocessConfig, workers: int, show_progress: bool
) -> Samples:
    """Evaluation images of the same look that are never trained on, drawn by the ``captcha`` package."""
    config = replace(config, images=config.eval_images)
    indices = range(FIRST_UNSEEN, FIRST_UNSEEN + config.eval_images)
    return _collect_drawn("drawing unseen", config, "captcha", indices, preprocess, workers, show_progress)[0]


def _collect_drawn(
    what: str, config: TrainConfig, renderer: str, indices: range, preprocess: PreprocessConfig, workers: int,
    show_progress: bool,
) -> Collected:  # fmt: skip
    """Draws formulas: all, or what fits into a share of the minutes if the number of images is left open."""
    source = formula_source(config, renderer=renderer)
    seconds = None if config.images else 60 * DRAWING_SHARE * (config.minutes or 0)

    def make() -> Collected:
        with _bar(what, config.images and len(indices), show_progress) as bar:
            return collect(
                source, indices, preprocess, workers=workers, seconds=seconds, on_progress=bar.update
            )

    key = {"drawn": repr(source), "first": indices[0], "count": len(indices)}
    return _kept(config.cache if seconds is None else None, key, preprocess, make)


def _read_data(
    config: TrainConfig, preprocess: PreprocessConfig, workers: int, show_progress: bool
) -> Collected:
    source = open_source(config.data or "")
    workers = workers if len(source) > 2_000 else 0

    def make() -> Collected:
        with _bar("reading", len(source), show_progress) as bar:
            return collect(
                source, range(len(source)), preprocess,
                workers=workers, name=source.name, on_progress=bar.update,
            )  # fmt: skip

    return _kept(config.cache, {"read": source.key()} if config.cache else {}, preprocess, make)


def _kept(
    cache: str | None, key: dict[str, Any], preprocess: PreprocessConfig, make: Callable[[], Collected]
) -> Collected:
    """What ``make`` returns, from the cache if there is one; LabelError if no sample could be read."""
    if cache is None:
        samples, problems = make()
    else:
        samples, problems = cached(cache, key | {"preprocess": asdict(preprocess)}, make)
    if problems and not samples:
        raise LabelError(f"none of {len(problems)} samples can be read; the first: {problems[0]}")
    return samples, problems


def _bar(what: str, total: int | None, show: bool) -> Any:
    return tqdm(total=total, desc=what, unit="img", disable=None if show else True)


def _height(config: TrainConfig) -> int:
    assert config.height is not None, "train() settles it"
    return config.height


def _model_config(config: TrainConfig, alphabet: Alphabet) -> CRNNConfig:
    num_classes = alphabet.num_classes
    shape = CRNNConfig.paper(num_classes) if config.architecture == "vgg-bilstm" else CRNNConfig(num_classes)
    return replace(
        shape,
        architecture=config.architecture,
        height=_height(config),
        stem_stride=config.stem_stride or 1,
        channels=config.channels or shape.channels,
        hidden=config.hidden or shape.hidden,
    )


# --- The run -------------------------------------------------------------------------------------------


class _Clock:
    """Where the time of the last steps went."""

    def __init__(self) -> None:
        self.data = self.compute = 0.0
        self.images = 0

    def rate(self) -> str:
        total = self.data + self.compute
        return f"{self.images / max(1e-9, total):.0f} img/s, {100 * self.data / max(1e-9, total):.0f}% data"


class _Run:
    """A training run: its model, its optimizer, its step."""

    def __init__(
        self,
        config: TrainConfig,
        data: _Data,
        number: int,
        out: Path,
        started: float,
        workers: int,
        show_progress: bool,
    ) -> None:
        self.config, self.data, self.out = config, data, out
        self.started, self.workers, self.show_progress = started, workers, show_progress
        self.earlier = 0.0  # seconds spent before this process, on a resumed run
        self.step = self.bad_steps = 0
        torch.manual_seed(config.seed)
        shape = _model_config(config, data.alphabet)
        self.model: CRNN = CRNN(shape).to(config.device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = make_optimizer(self.model, config.weight_decay)
        self._begin_round(number, data.train)
        self.data = data._replace(train=Samples())

    def _begin_round(self, number: int, samples: Samples) -> None:
        """Makes batches of these samples from now on."""
        config = self.config
        self.round, self.fingerprint = number, samples.fingerprint()
        self.batches = BatchMaker(
            samples,
            self.data.alphabet,
            config.batch_size,
            seed=config.seed,
            shift=config.shift,
            stretch=config.stretch,
            buckets=config.buckets,
        )

    def _draw_round(self, number: int) -> None:
        """Replaces the training images by newly drawn ones."""
        self._begin_round(number, Samples())  # lets go of the old ones first
        samples, problems = _draw(self.config, number, self.data.preprocess, self.workers, self.show_progress)
        for problem in problems:
            log.warning("left out: %s", problem)
        self._begin_round(number, samples)

    def begin(self) -> None:
        """Settles the number of steps and writes the first state."""
        if self.config.steps is None:
            self.config = replace(self.config, steps=self._steps_that_fit())
        (self.out / LOG_FILE).unlink(missing_ok=True)
        self.save()

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up a saved state."""
        if state["round"] == self.round and state["data"] != self.fingerprint:
            raise TrainError("the training data is not what the run began with: it cannot be resumed")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.bad_steps, self.earlier = state["step"], state["bad_steps"], state["seconds"]

    def save(self) -> None:
        """Writes state and checkpoint."""
        state = {
            "config": asdict(self.config),
            "step": self.step,
            "bad_steps": self.bad_steps,
            "seconds": self.seconds(),
            "round": self.round,
            "data": self.fingerprint,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        save_state(state, self.out / STATE_FILE)

    def seconds(self) -> float:
        """Wall time of this run, drawing included, over all its processes."""
        return self.earlier + time.monotonic() - self.started

    def loop(self, should_stop: Callable[[int], bool]) -> Evaluation:
        """Trains up to the last step; returns the evaluation of the weights as they are stored."""
        steps = self.config.steps or 0
        self.model.train()
        clock, exact = _Clock(), float("nan")
        with tqdm(
            total=steps,
            initial=self.step,
            desc="training",
            unit="step",
            disable=None if self.show_progress else True,
        ) as bar:
            while self.step < steps:
                if should_stop(self.step):
                    self.save()
                    raise KeyboardInterrupt
                report = self._advance(clock)
                bar.update()
                if self.step % 20 == 0:
                    bar.set_postfix_str(
                        f"loss {report.loss:.3f}, exact {100 * exact:.1f}%,"
                        f" blank {100 * report.blank_rate:.0f}%,"
                        f" {clock.rate()}"
                    )
                if self.step % self.config.eval_every == 0 and self.step < steps:
                    exact = self._evaluate().exact_match
                    self._log(report, clock, exact)
                    clock = _Clock()
                if self.step % self.config.save_every == 0 or self.step == steps:
                    self.save()
        save_checkpoint(self._checkpoint(None), self.out / MODEL_FILE)
        self.model = load_checkpoint(self.out / MODEL_FILE).model.to(self.config.device)
        evaluation = self._evaluate()
        if clock.images:
            self._log(report, clock, evaluation.exact_match)
        return evaluation

    def finish(self, evaluation: Evaluation) -> TrainResult:
        """Writes the final checkpoint with its record."""
        path = self.out / MODEL_FILE
        save_checkpoint(self._checkpoint(evaluation), path)
        return TrainResult(path, self.config, evaluation, self.data.problems, self.bad_steps)

    def _advance(self, clock: _Clock) -> StepReport:
        """One step, timed."""
        began = time.perf_counter()
        number = _round(self.config, self.step)
        if number != self.round:
            self._draw_round(number)
        batch = self.batches.batch(self.step)
        ready = time.perf_counter()
        report = self._train_on(self.model, self.optimizer, batch, self.step)
        clock.data += ready - began
        clock.compute += time.perf_counter() - ready
        clock.images += len(batch.widths)
        self.step += 1
        self.bad_steps = self.bad_steps + 1 if report.skipped else 0
        if self.bad_steps >= MAX_BAD_STEPS:
            raise TrainError(
                f"loss or gradient was not finite in {MAX_BAD_STEPS} steps in a row, up to step {self.step}:"
                " lower max_lr, or use precision 'fp32'"
            )
        return report

    def _train_on(self, model: CRNN, optimizer: torch.optim.Optimizer, batch: Batch, step: int) -> StepReport:
        config = self.config
        lr, momentum = one_cycle(step, config.steps or 1, config.max_lr, config.warmup)
        for group in optimizer.param_groups:
            group["lr"], group["betas"] = lr, (momentum, group["betas"][1])
        torch.manual_seed(config.seed * 1_000_003 + step)  # dropout
        return training_step(
            model, optimizer, batch, self.data.preprocess, self.data.alphabet,
            clip=config.clip, bf16=config.precision == "bf16",
        )  # fmt: skip

    def _steps_that_fit(self) -> int:
        """Measures a few steps on a copy of the model and fills the rest of the minutes with such."""
        model = copy.deepcopy(self.model).train()
        optimizer = make_optimizer(model, self.config.weight_decay)
        times = []
        for step in range(24):
            began = time.perf_counter()
            self._train_on(model, optimizer, self.batches.batch(step), step)
            times.append(time.perf_counter() - began)
        step_seconds = sorted(times[4:])[len(times[4:]) // 2]
        began = time.perf_counter()
        self._evaluate()
        evaluation_seconds = time.perf_counter() - began
        left = 60 * (self.config.minutes or 0) - self.seconds() - evaluation_seconds
        return max(1, int(0.95 * left / (step_seconds + evaluation_seconds / self.config.eval_every)))

    def _evaluate(self) -> Evaluation:
        return evaluate(
            self.model, self.data.unseen, self.data.alphabet, self.data.preprocess, device=self.config.device
        )

    def _log(self, report: StepReport, clock: _Clock, exact: float) -> None:
        """Appends a line of figures to the log file, and says it."""
        entry = {
            "step": self.step, "seconds": round(self.seconds(), 1), "loss": round(report.loss, 5),
            "blank_rate": round(report.blank_rate, 4), "exact_match": round(exact, 5),
            "images_per_second": round(clock.images / (clock.data + clock.compute), 1),
            "data_seconds": round(clock.data, 3), "compute_seconds": round(clock.compute, 3),
        }  # fmt: skip
        with (self.out / LOG_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        log.info(
            "step %d of %d, %.1f min: loss %.4f, exact match %.2f%% of %d unseen, blank rate %.0f%%, %s",
            self.step, self.config.steps, self.seconds() / 60, report.loss, 100 * exact,
            len(self.data.unseen),
            100 * report.blank_rate, clock.rate(),
        )  # fmt: skip

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
        return Checkpoint(self.model, self.data.alphabet, self.data.preprocess, record)
