"""The ``fastctc`` command: generate, train, evaluate and read formula images.

Exit status: 0 all went well; 1 done, but some images could not be read; 2 not done, the reason is on stderr.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # torch takes seconds to import: the commands do it, --help does not
    from fastctc.crnn.evaluate import Evaluation
    from fastctc.crnn.recognize import Recognizer
    from fastctc.crnn.train import TrainConfig, TrainResult

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
LOOKS = ("contest", "default", "mixed")
RENDERERS = ("captcha", "glyphs", "mixed")
VALUES = ("mixed", "none", "right", "wrong")
EXIT_STATUS = "exit status: 0 all went well; 1 done, but some images could not be read; 2 not done"


def main(argv: list[str] | None = None) -> int:
    """Runs a command line; returns the exit status."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        status: int = arguments.run(arguments)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("fastctc: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        sys.stderr.close()
        return 1
    except (ValueError, OSError, RuntimeError, ModuleNotFoundError) as error:
        print(f"fastctc: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastctc",
        description="Train a CTC recogniser of formula images, and read images with it.",
        epilog="examples:\n  fastctc read formula.png\n  fastctc demo runs/demo\n  fastctc train --help\n\n"
        + EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_read(commands)
    _add_generate(commands)
    _add_train(commands)
    _add_evaluate(commands)
    _add_demo(commands)
    return parser


def _add_command(
    commands: Any, name: str, summary: str, examples: Iterable[str], run: Any
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog="examples:\n" + "".join(f"  fastctc {example}\n" for example in examples) + "\n" + EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def _positive_float(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0")
    return value


def _count_from_zero(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


# --- read ----------------------------------------------------------------------------------------------


def _add_read(commands: Any) -> None:
    parser = _add_command(
        commands, "read", "read images: one line each, the path, a tab, the text",
        [
            "read formula.png",
            "read --json scans/ *.png",
            "read formula.png --explain why.png",
            "read --checkpoint runs/a/model.safetensors a.png",
        ],
        _read,
    )  # fmt: skip
    parser.add_argument(
        "images", metavar="IMAGE", nargs="+", type=Path, help="an image file, or a folder of them"
    )
    parser.add_argument(
        "--checkpoint", type=Path, help="model to read with (default: the one in the package)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line, with score and n-best")
    parser.add_argument(
        "--explain", metavar="PICTURE", type=Path,
        help="draw where the image shows each character and how sure that is: a .png, .pdf or .svg file",
    )  # fmt: skip
    parser.add_argument(
        "--batch-size", type=_positive_int, default=64, help="images at once (default: %(default)s)"
    )


def _read(arguments: argparse.Namespace) -> int:
    from fastctc.crnn.recognize import Recognizer

    recognizer = Recognizer.from_checkpoint(arguments.checkpoint)
    failed = 0
    paths: list[Path] = []
    for path in arguments.images:
        found = _images_in(path) if path.is_dir() else [path]
        if not found:
            print(f"{path}: no image in this folder", file=sys.stderr)
            failed += 1
        paths += found
    total = len(paths) + failed
    if arguments.explain and total != 1:
        raise ValueError(f"--explain draws one image, but {total} are to be read")
    for path, reading in zip(paths, recognizer.read_stream(paths, arguments.batch_size), strict=True):
        if reading.error is not None:
            print(f"{path}: {reading.error}", file=sys.stderr)
            failed += 1
        elif arguments.json:
            nbest = [{"text": h.text, "log_prob": h.log_prob} for h in reading.nbest]
            print(
                json.dumps({"path": str(path), "text": reading.text, "score": reading.score, "nbest": nbest})
            )
        else:
            print(f"{path}\t{reading.text}")
        if arguments.explain and reading.error is None:
            _explain(recognizer, path, arguments.explain)
    if failed:
        print(f"{failed} of {total} could not be read", file=sys.stderr)
    return 1 if failed else 0


def _explain(recognizer: Recognizer, image: Path, picture: Path) -> None:
    from fastctc.crnn.checkpoint import write_atomically
    from fastctc.crnn.explain import explain

    figure = explain(recognizer, image).plot()
    kind = picture.suffix or ".png"
    write_atomically(picture.with_suffix(kind), lambda path: figure.savefig(path, dpi=200, format=kind[1:]))


def _images_in(folder: Path) -> list[Path]:
    """The image files directly in a folder, by name."""
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
    )


# --- generate ------------------------------------------------------------------------------------------


def _add_formula_options(parser: argparse.ArgumentParser, **defaults: Any) -> None:
    def add(option: str, choices: tuple[str, ...], what: str) -> None:
        name = option.lstrip("-")
        shown = f" (default: {defaults[name]})" if name in defaults else ""
        default = defaults.get(name, argparse.SUPPRESS)
        parser.add_argument(option, choices=choices, default=default, help=what + shown)

    add("--look", LOOKS, "fonts and spacing of a formula contest, or the captcha package's own")
    add(
        "--renderer", RENDERERS, "the captcha package itself, or its glyphs drawn beforehand, which is faster"
    )
    add("--value", VALUES, "what follows the expression: nothing, =value, or a wrong =value")


def _add_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers", type=_count_from_zero, help="processes that draw (default: one for each CPU)"
    )


def _add_generate(commands: Any) -> None:
    parser = _add_command(
        commands, "generate", "draw formula images: a folder of PNG files and labels.tsv",
        ["generate data/formulas --count 1000", "generate data/other --look default --value right --seed 7"],
        _generate,
    )  # fmt: skip
    parser.add_argument("folder", metavar="DIR", type=Path, help="where to write; must not have a labels.tsv")
    parser.add_argument(
        "--count", type=_positive_int, default=1000, help="how many images (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=_count_from_zero, default=0, help="which images (default: %(default)s)"
    )
    _add_formula_options(parser, look="contest", renderer="captcha", value="mixed")
    _add_workers(parser)


def _generate(arguments: argparse.Namespace) -> int:
    from tqdm import tqdm

    from fastctc.crnn.data import default_workers, write_folder
    from fastctc.crnn.drawing import FormulaSource

    source = FormulaSource(
        look=arguments.look, renderer=arguments.renderer, seed=arguments.seed, value=arguments.value
    )
    workers = default_workers() if arguments.workers is None else arguments.workers
    workers = workers if arguments.count > 500 else 0
    with tqdm(total=arguments.count, desc="drawing", unit="img", disable=None) as bar:
        write_folder(source, arguments.folder, arguments.count, workers=workers, on_progress=bar.update)
    print(f"{arguments.count} images and labels.tsv in {arguments.folder}")
    return 0


# --- train ---------------------------------------------------------------------------------------------


def _add_train(commands: Any) -> None:
    parser = _add_command(
        commands, "train", "train a recogniser on drawn formulas, or on a folder of images with labels.tsv",
        [
            "train --out runs/formulas",
            "train --out runs/formulas --resume",
            "train --out runs/mine --data data/mine --minutes 30",
            "train --out runs/exact --steps 2000 --images 20000 --seed 3 --threads 2",
            "train --out runs/shipped --preset shipped --threads 2",
        ],
        _train,
    )  # fmt: skip
    parser.add_argument(
        "--preset", choices=("quick", "shipped"), default="quick",
        help="recipe the other options change: quick takes 9 minutes on 2 CPU cores; shipped made the"
        " checkpoint in the package (default: %(default)s)",
    )  # fmt: skip
    _add_run_options(parser)

    def option(*names: str, **settings: Any) -> None:
        parser.add_argument(*names, default=argparse.SUPPRESS, **settings)

    option(
        "--data",
        metavar="DIR",
        help="train on this folder: image files and labels.tsv (file name, tab, text)",
    )
    option("--characters", help="the alphabet (default: of formulas, or all characters in the labels)")
    option("--steps", type=_positive_int, help="training steps, instead of minutes")
    option("--images", type=_positive_int, help="images to draw before training")
    _add_formula_options(parser)
    option(
        "--architecture", choices=("conv", "vgg-bilstm"), help="small and fast, or the CRNN paper's network"
    )
    option(
        "--height", type=_positive_int, help="rows images are resized to (default: 64, or 32 for vgg-bilstm)"
    )
    option("--batch-size", type=_positive_int, help="images a step")
    option("--max-lr", type=_positive_float, help="peak of the learning rate")
    option(
        "--precision", choices=("auto", "bf16", "fp32"), help="auto: bf16 where the processor multiplies it"
    )
    option("--device", help="cpu or cuda")
    option("--eval-images", type=_positive_int, help="unseen images to measure accuracy on")
    option("--eval-every", type=_positive_int, help="steps between evaluations")
    option("--save-every", type=_positive_int, help="steps between saves")


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    """What train and demo have in common."""
    if parser.prog.endswith("demo"):
        parser.add_argument("out", metavar="DIR", type=Path, help="where model, state, log and examples go")
    else:
        parser.add_argument(
            "--out", metavar="DIR", type=Path, required=True, help="where model, state and log go"
        )
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run in DIR, exactly where it was saved"
    )
    suppress = argparse.SUPPRESS
    parser.add_argument(
        "--minutes", type=_positive_float, default=suppress, help="time for drawing and training"
    )
    parser.add_argument(
        "--seed", type=_count_from_zero, default=suppress, help="decides everything random (default: 0)"
    )
    parser.add_argument(
        "--threads", type=_positive_int, default=suppress, help="threads of torch (default: its choice)"
    )
    _add_workers(parser)


def _train(arguments: argparse.Namespace) -> int:
    result = _run_training(arguments, arguments.preset)
    print(f"checkpoint {result.checkpoint}")
    print(f"unseen images: {result.evaluation.summary()}")
    return 0


def _run_training(arguments: argparse.Namespace, preset: str) -> TrainResult:
    """Trains with a preset and the options that were given, from the start or resumed."""
    from tqdm.contrib.logging import logging_redirect_tqdm

    from fastctc.crnn.train import TrainConfig, saved_config, train

    given = {
        name: value for name, value in vars(arguments).items() if name in TrainConfig.__dataclass_fields__
    }
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
            result = train(config, arguments.out, resume=arguments.resume, workers=arguments.workers)
    except KeyboardInterrupt:
        log.info("stopped; go on with the same command and --resume")
        raise
    if result.problems:
        log.warning("%d samples were left out", len(result.problems))
    return result


def _recipe(preset: str, given: dict[str, Any]) -> TrainConfig:
    """A preset changed by options; a budget given one way replaces one preset in another."""
    from fastctc.crnn.train import PRESETS

    base: dict[str, Any] = {}
    if "steps" in given and "minutes" not in given:
        base["minutes"] = None
    elif "minutes" in given:
        base["steps"] = base["images"] = None
    if "data" in given:
        base["images"] = None
    return replace(PRESETS[preset], **(base | given))


# --- evaluate ------------------------------------------------------------------------------------------


def _add_evaluate(commands: Any) -> None:
    parser = _add_command(
        commands, "evaluate", "measure how well a checkpoint reads: a folder with labels.tsv, or drawings",
        [
            "evaluate shipped --look contest --count 2000",
            "evaluate runs/demo/model.safetensors data/mine --mistakes 10",
            "evaluate shipped data/mine --json",
        ],
        _evaluate,
    )  # fmt: skip
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a checkpoint file, or 'shipped'")
    parser.add_argument(
        "folder", metavar="DIR", nargs="?", help="image files and labels.tsv; without it, drawn formulas"
    )
    parser.add_argument(
        "--count", type=_positive_int, default=1000, help="images to draw (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=_count_from_zero, default=1, help="which are drawn (default: %(default)s)"
    )
    parser.add_argument("--mistakes", type=_count_from_zero, default=0, help="show so many of the mistakes")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    _add_formula_options(parser, look="contest", renderer="captcha", value="mixed")
    _add_workers(parser)


def _evaluate(arguments: argparse.Namespace) -> int:
    from fastctc.crnn.checkpoint import load_checkpoint
    from fastctc.crnn.data import FolderSource, collect, default_workers
    from fastctc.crnn.drawing import FormulaSource
    from fastctc.crnn.evaluate import evaluate
    from fastctc.crnn.recognize import SHIPPED_CHECKPOINT
    from fastctc.crnn.train import FIRST_UNSEEN

    name = SHIPPED_CHECKPOINT if arguments.checkpoint == "shipped" else arguments.checkpoint
    checkpoint = load_checkpoint(name)
    if arguments.folder is not None:
        folder = FolderSource(arguments.folder)
        samples, problems = collect(folder, range(len(folder)), checkpoint.preprocess, name=folder.name)
    else:
        source = FormulaSource(
            look=arguments.look, renderer=arguments.renderer, seed=arguments.seed, value=arguments.value
        )
        workers = default_workers() if arguments.workers is None else arguments.workers
        indices = range(FIRST_UNSEEN, FIRST_UNSEEN + arguments.count)
        workers = workers if arguments.count > 500 else 0
        samples, problems = collect(source, indices, checkpoint.preprocess, workers=workers)
    for problem in problems:
        print(problem, file=sys.stderr)
    result = evaluate(checkpoint.model, samples, checkpoint.alphabet, checkpoint.preprocess)
    _print_evaluation(result, len(problems), arguments)
    if problems:
        print(f"{len(problems)} of {len(problems) + result.count} images could not be read", file=sys.stderr)
    return 1 if problems else 0


def _print_evaluation(result: Evaluation, unreadable: int, arguments: argparse.Namespace) -> None:
    if arguments.json:
        figures = {
            "count": result.count, "correct": result.correct, "exact_match": result.exact_match,
            "character_error_rate": result.character_error_rate, "edits": result.edits,
            "characters": result.characters, "unreadable": unreadable,
        }  # fmt: skip
        mistakes = [
            {"name": name, "text": right, "read": read}
            for name, right, read in result.mistakes[: arguments.mistakes]
        ]
        print(json.dumps(figures | {"mistakes": mistakes}))
        return
    print(result.summary())
    for name, right, read in result.mistakes[: arguments.mistakes]:
        print(f"{name}\t{right}\tread as\t{read}")


# --- demo ----------------------------------------------------------------------------------------------


def _add_demo(commands: Any) -> None:
    parser = _add_command(
        commands, "demo", "train a model within 9 minutes on 2 CPU cores, and read five new images with it",
        ["demo runs/demo", "demo runs/demo --resume", "demo runs/short --minutes 2"],
        _demo,
    )  # fmt: skip
    _add_run_options(parser)


def _demo(arguments: argparse.Namespace) -> int:
    from fastctc.crnn.data import write_folder
    from fastctc.crnn.recognize import Recognizer
    from fastctc.crnn.train import FIRST_UNSEEN, formula_source

    result = _run_training(arguments, "quick")
    folder = arguments.out / "examples"
    (folder / "labels.tsv").unlink(missing_ok=True)
    source = formula_source(result.config, renderer="captcha", grey=False)
    first = FIRST_UNSEEN + result.config.eval_images
    write_folder(source, folder, 5, first=first)
    print(f"checkpoint {result.checkpoint}")
    print(f"unseen images: {result.evaluation.summary()}")
    paths = _images_in(folder)
    for path, reading in zip(paths, Recognizer.from_checkpoint(result.checkpoint).read(paths), strict=True):
        print(f"{path}\t{reading.text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
