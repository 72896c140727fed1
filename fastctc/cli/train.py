"""``fastctc train``."""

from __future__ import annotations

import argparse
import logging
import os
import signal
from collections.abc import Collection
from dataclasses import fields, replace
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

from tqdm.contrib.logging import logging_redirect_tqdm

from fastctc.cli.options import (
    add_drawing,
    add_settings,
    add_workers,
    drawn_domain,
    given,
    option_of,
    refuse_drawing,
)
from fastctc.crnn import PRESETS, TrainConfig, TrainResult, load_checkpoint, overfit_one_batch, train
from fastctc.crnn.data import DOMAINS
from fastctc.crnn.training import GROUPS, ResumeError, saved_config

log = logging.getLogger(__name__)

EXAMPLES = [
    "train --out runs/formulas",
    "train --out runs/formulas --resume",
    "train --out runs/mine --data data/mine --minutes 30",
    "train --out runs/mine --resume --minutes 60",
    "train --out runs/mine --data data/mine --val data/other --patience 5",
    "train --out runs/tuned --data data/mine --from formula --max-lr 0.0005",
    "train --out runs/again --data data/mine --minutes 30 --cache data/cache",
    "train --out runs/exact --steps 2000 --images 20000 --seed 3 --threads 2",
    "train --out runs/scans --data data/scans --median 3 --rotate 3 --noise 8",
    "train --out runs/formula --preset formula --threads 2",
    "train --out runs/names --words names.txt --fonts fonts/ --steps 3000",
    "train --data data/mine --overfit-one-batch",
]
TITLES = {
    "labels": "labels: how the texts of --data are read; the checkpoint keeps their direction",
    "preprocess": "preprocessing: what happens to every image, in this order; the checkpoint keeps it",
    "augment": "augmentation: random changes of training images, at most, in this order; 0: none",
    "model": "network",
    "optimizer": "optimizer",
    "schedule": "schedule",
}


def configure(parser: argparse.ArgumentParser, argv: list[str]) -> None:
    """Declare the options."""
    parser.set_defaults(usage_error=parser.error)
    parser.add_argument("--out", metavar="DIR", help="folder for model, state, log and curve")
    presets = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    presets.add_argument("--preset", choices=PRESETS, default=_preset_of(drawn_domain(argv)))
    name = presets.parse_known_args(argv)[0].preset
    preset = PRESETS[name]
    parser.set_defaults(default_preset=name)
    parser.add_argument(
        "--preset", choices=PRESETS,
        help="recipe that the other options change: quick takes 7 minutes on 2 CPU cores; formula and words made"
        " the checkpoints in the package and need fastctc[words] (default: quick, or the recipe of the domain)",
    )  # fmt: skip
    parser.add_argument(
        "--overfit-one-batch", action="store_true",
        help="check in less than a minute that the set-up can memorize one batch; write no file; exit status 1"
        " if it cannot",
    )  # fmt: skip
    add_run_options(parser, preset)
    add_drawing(parser, argv, preset.draw)
    for name in GROUPS:
        add_settings(parser, name, getattr(preset, name), TITLES[name])


def _preset_of(domain: str | None) -> str:
    """Return the first preset that draws a domain, or any."""
    return next(
        name for name, each in PRESETS.items() if domain is None or type(each.draw) is DOMAINS[domain].draw
    )


def add_run_options(
    parser: argparse.ArgumentParser,
    preset: TrainConfig,
    *,
    schedule: Collection[str] = (),
    recipe: Collection[str] | None = None,
) -> None:
    """Offer what train and demo have in common.

    Args:
        parser: of the command.
        preset: the recipe that the options change.
        schedule: settings of the schedule that are offered here.
        recipe: settings of the recipe itself that are offered; None: all.
    """
    parser.add_argument(
        "--resume", action="store_true",
        help="resume the run in DIR from its saved state. It may have more steps or minutes, and other threads,"
        " device, logging or place of the data; an option that contradicts the run is refused",
    )  # fmt: skip
    parser.add_argument(
        "--cache", metavar="DIR", type=Path,
        help="folder for preprocessed images, which a second run neither draws nor reads",
    )  # fmt: skip
    parser.add_argument(
        "--tensorboard", action="store_true", help="write logs for TensorBoard into DIR/tensorboard"
    )
    add_workers(parser)
    add_settings(parser, "recipe", preset, only=recipe)
    add_settings(parser, "schedule", preset.schedule, only=schedule)


def run(arguments: argparse.Namespace) -> int:
    """Train, or check the set-up."""
    if arguments.overfit_one_batch:
        if arguments.resume:
            raise ValueError(
                "--resume goes on with a run, but --overfit-one-batch begins anew: give one of them"
            )
        outcome = overfit_one_batch(_recipe(arguments, arguments.default_preset))
        print(outcome.summary())
        return 0 if outcome.succeeded else 1
    if arguments.out is None:
        arguments.usage_error("the following arguments are required: --out")
    result = run_training(arguments, arguments.preset, arguments.default_preset)
    if _is_first():
        print(f"checkpoint {result.checkpoint}")
        print(f"unseen images: {result.evaluation.summary()}")
    return report_unread(result)


def report_unread(result: TrainResult) -> int:
    """Return the exit status of a finished run: 1 if the model's output for an unseen image is not a number."""
    for problem in result.evaluation.problems[:10]:
        log.error("not read: %s", problem)
    return 1 if result.evaluation.problems else 0


def _is_first() -> bool:
    """Return True in the process that prints: of several that torchrun started, the first."""
    return int(os.environ.get("RANK", "0")) == 0


def run_training(arguments: argparse.Namespace, preset: str | None, default: str = "quick") -> TrainResult:
    """Train with a preset and the options that were given, from the start or resumed.

    Args:
        arguments: the options.
        preset: name of the recipe that the options change; None: the recipe of the run to resume, or ``default``.
        default: name of the recipe of a new run.
    """
    if not _is_first():
        logging.getLogger("fastctc").setLevel(logging.ERROR)
    config = saved_config(arguments.out) if arguments.resume else None
    if config is not None:
        config = _resumed(arguments, config) if preset is None else _recipe(arguments, preset)
    else:
        config = _recipe(arguments, preset or default)
        if arguments.resume:
            log.info("nothing to resume in %s: starting", arguments.out)
    try:
        with logging_redirect_tqdm(), _Interrupt() as should_stop:
            result = train(
                config, arguments.out, resume=arguments.resume, workers=arguments.workers,
                cache=arguments.cache, tensorboard=arguments.tensorboard, should_stop=should_stop,
            )  # fmt: skip
    except ResumeError as error:
        raise ValueError(f"{_option(error)} {error.reason}") from error
    except KeyboardInterrupt:
        log.info("stopped; go on with the same command and --resume")
        raise
    if result.problems:
        log.warning("%d samples were left out", len(result.problems))
    return result


class _Interrupt:
    """Ends an interrupted or terminated run after its step, with its state saved; at once the second time.

    It answers ``should_stop``, and listens from the first question on, which comes before the first step.
    """

    def __init__(self) -> None:
        self._asked, self._before = False, dict[int, Any]()

    def __enter__(self) -> _Interrupt:
        return self

    def __exit__(self, *_: object) -> None:
        self._listen_no_more()

    def __call__(self, step: int) -> bool:
        # torchrun ends its processes itself
        if not self._before and "RANK" not in os.environ and current_thread() is main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.getsignal(number)
                if self._before[number] is not signal.SIG_IGN:
                    signal.signal(number, self._ask)
        return self._asked

    def _ask(self, *_: object) -> None:
        self._asked = True
        self._listen_no_more()
        log.info("stopping after this step; interrupt again to stop without saving")

    def _listen_no_more(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _option(error: ResumeError) -> str:
    """Return the option of the setting that an error names."""
    draws = [domain.draw for domain in DOMAINS.values()]
    configs = draws if error.group == "draw" else [{"recipe": TrainConfig, **GROUPS}[error.group]]
    for config in configs:
        if error.setting in {each.name for each in fields(config)}:
            return option_of(config, error.setting)
    return f"--{error.setting.replace('_', '-')}"


def _resumed(arguments: argparse.Namespace, saved: TrainConfig) -> TrainConfig:
    """Return the recipe of the run to resume, changed by the options."""
    changes: dict[str, Any] = given(arguments, "recipe")
    if saved.draw is None and "domain" in arguments:
        refuse_drawing(arguments, f"the run to resume has --data {saved.data}")
    if "data" in changes and saved.draw is not None:
        raise ValueError(f"--data is {changes['data']}, but the run to resume draws its images")
    if saved.draw is not None:
        changes["draw"] = replace(saved.draw, **given(arguments, "draw"))
    for group in GROUPS:
        changes[group] = replace(getattr(saved, group), **given(arguments, group))
    return replace(saved, **changes)


def _recipe(arguments: argparse.Namespace, preset: str) -> TrainConfig:
    """Return a preset changed by options; a budget given one way replaces one preset in another."""
    config = PRESETS[preset]
    changes: dict[str, Any] = given(arguments, "recipe")
    parts = {group: given(arguments, group) for group in ("draw", *GROUPS)}
    if "steps" in parts["schedule"]:
        parts["schedule"].setdefault("minutes", None)
    elif "minutes" in parts["schedule"]:
        parts["schedule"]["steps"] = None
    if "data" in changes:
        refuse_drawing(arguments, "--data names images to train on")
        changes["draw"] = None
        if config.schedule.steps is None and not {"steps", "minutes"} & parts["schedule"].keys():
            parts["schedule"]["minutes"] = None  # the steps follow from the number of images
    else:
        if parts["schedule"].get("steps", 0) is None:
            parts["draw"].setdefault("images", None)
        assert config.draw is not None, "presets draw"
        domain = vars(arguments).get("drawn_domain")  # demo has no options of drawing
        if domain is not None and type(config.draw) is not DOMAINS[domain].draw:
            raise ValueError(
                f"--preset is {preset}, which does not draw {domain}: give --preset {_preset_of(domain)}"
            )
        changes["draw"] = replace(config.draw, **parts["draw"])
    if "start_from" in changes and parts["preprocess"]:  # options change what the checkpoint has
        config = replace(config, preprocess=load_checkpoint(changes["start_from"]).preprocess)
    for group in GROUPS:
        changes[group] = replace(getattr(config, group), **parts[group])
    return replace(config, **changes)
