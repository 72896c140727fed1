"""``fastctc train``."""

from __future__ import annotations

import argparse
import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fastctc.cli.options import (
    ARCHITECTURES,
    add_augment_options,
    add_command,
    add_formula_options,
    add_preprocess_options,
    add_run_options,
    positive_float,
    positive_int,
)

if TYPE_CHECKING:
    from fastctc.crnn.train.config import TrainConfig
    from fastctc.crnn.train.run import TrainResult

log = logging.getLogger(__name__)


def add_train(commands: Any) -> None:
    """Declares the command."""
    parser = add_command(
        commands, "train", "train a recogniser on drawn formulas, or on labelled images",
        [
            "train --out runs/formulas",
            "train --out runs/formulas --resume",
            "train --out runs/mine --data data/mine --minutes 30",
            "train --out runs/again --data data/mine --minutes 30 --cache data/cache",
            "train --out runs/exact --steps 2000 --images 20000 --seed 3 --threads 2",
            "train --out runs/scans --data data/scans --median 3 --rotate 3 --noise 8",
            "train --out runs/shipped --preset shipped --threads 2",
            "train --data data/mine --overfit-one-batch",
        ],
        _train,
    )  # fmt: skip
    parser.add_argument(
        "--preset", choices=("quick", "shipped", "wide"), default="quick",
        help="recipe the other options change: quick takes 9 minutes on 2 CPU cores; shipped and wide made the"
        " checkpoints in the package, wide needs fastctc[fonts] (default: %(default)s)",
    )  # fmt: skip
    parser.set_defaults(usage_error=parser.error)
    parser.add_argument(
        "--overfit-one-batch", action="store_true",
        help="only check that the set-up can learn one batch by heart, in less than a minute; writes nothing,"
        " exit status 1 if it cannot",
    )  # fmt: skip
    add_run_options(parser)

    def option(*names: str, **settings: Any) -> None:
        parser.add_argument(*names, default=argparse.SUPPRESS, **settings)

    option(
        "--data",
        metavar="DIR",
        help="train on this folder: images with labels.tsv (file name, tab, text), labels.txt (the same, or"
        " parted by a comma or spaces) or labels.json, or a scene-text LMDB (data.mdb)",
    )
    option("--characters", help="the alphabet (default: of formulas, or all characters in the labels)")
    option("--steps", type=positive_int, help="training steps, instead of minutes")
    option("--images", type=positive_int, help="images to draw before training")
    add_formula_options(parser)
    option(
        "--architecture", choices=ARCHITECTURES,
        help="head of the small network: convolutional, BiLSTM or BiGRU; or the CRNN paper's network",
    )  # fmt: skip
    option(
        "--height", type=positive_int, help="rows images are resized to (default: 64, or 32 for vgg-bilstm)"
    )
    option("--batch-size", type=positive_int, help="images a step, of all processes together")
    option(
        "--parts", type=positive_int,
        help="parts a batch is computed in, the same for any number of processes that divides them (default: one"
        " for each process, at least 2)",
    )  # fmt: skip
    option("--optimizer", choices=("adamw", "muon"), help="muon needs half the steps")
    option("--max-lr", type=positive_float, help="peak of the learning rate")
    option(
        "--ema", type=float, metavar="SHARE",
        help="keep a moving average of the weights, of which a step keeps this share, as 0.999 (default: 0, off)",
    )  # fmt: skip
    option(
        "--precision", choices=("auto", "bf16", "fp32"), help="auto: bf16 where the processor multiplies it"
    )
    option("--device", help="cpu or cuda")
    option("--eval-images", type=positive_int, help="unseen images to measure accuracy on")
    option("--eval-every", type=positive_int, help="steps between evaluations")
    option("--save-every", type=positive_int, help="steps between saves")
    option("--log-every", type=positive_int, help="steps between lines of log.jsonl")
    add_preprocess_options(parser)
    add_augment_options(parser)


def _train(arguments: argparse.Namespace) -> int:
    if arguments.overfit_one_batch:
        return _overfit(arguments)
    if arguments.out is None:
        arguments.usage_error("the following arguments are required: --out")
    result = run_training(arguments, arguments.preset)
    if _is_first():
        print(f"checkpoint {result.checkpoint}")
        print(f"unseen images: {result.evaluation.summary()}")
    return 0


def _overfit(arguments: argparse.Namespace) -> int:
    from fastctc.crnn.train.overfit import overfit_one_batch

    outcome = overfit_one_batch(_recipe(arguments.preset, _given(arguments)))
    print(outcome.summary())
    return 0 if outcome.succeeded else 1


def _is_first() -> bool:
    """Whether this process speaks: of several that torchrun started, the first."""
    return int(os.environ.get("RANK", "0")) == 0


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options that were given and are settings of a recipe."""
    from fastctc.crnn.train.config import TrainConfig

    names = TrainConfig.__dataclass_fields__
    return {name: value for name, value in vars(arguments).items() if name in names}


def run_training(arguments: argparse.Namespace, preset: str) -> TrainResult:
    """Trains with a preset and the options that were given, from the start or resumed."""
    from tqdm.contrib.logging import logging_redirect_tqdm

    from fastctc.crnn.train.run import saved_config, train

    if not _is_first():
        logging.getLogger("fastctc").setLevel(logging.ERROR)
    given = _given(arguments)
    saved = saved_config(arguments.out) if arguments.resume else None
    if saved is not None:
        for name, value in given.items():
            if getattr(saved, name) != value:
                option = f"--{name.replace('_', '-')}"
                raise ValueError(f"{option} is {value}, but the run to resume has {getattr(saved, name)}")
        config = saved
    else:
        config = _recipe(preset, given)
        if arguments.resume:
            log.info("nothing to resume in %s: starting", arguments.out)
    try:
        with logging_redirect_tqdm():
            result = train(
                config, arguments.out, resume=arguments.resume, workers=arguments.workers,
                cache=arguments.cache, tensorboard=arguments.tensorboard,
            )  # fmt: skip
    except KeyboardInterrupt:
        log.info("stopped; go on with the same command and --resume")
        raise
    if result.problems:
        log.warning("%d samples were left out", len(result.problems))
    return result


def _recipe(preset: str, given: dict[str, Any]) -> TrainConfig:
    """A preset changed by options; a budget given one way replaces one preset in another."""
    from fastctc.crnn.train.config import PRESETS

    base: dict[str, Any] = {}
    if "steps" in given and "minutes" not in given:
        base["minutes"] = None
    elif "minutes" in given:
        base["steps"] = base["images"] = None
    if "data" in given:
        base["images"] = None
    return replace(PRESETS[preset], **(base | given))
