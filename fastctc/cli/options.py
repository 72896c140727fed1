"""Options and their checks that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastctc.crnn.read.constraint import Constraint

ARCHITECTURES = ("conv", "bilstm", "bigru", "vgg-bilstm")
LOOKS = ("contest", "default", "mixed")
RENDERERS = ("captcha", "glyphs", "mixed")
VALUES = ("mixed", "none", "right", "wrong")
EXIT_STATUS = "exit status: 0 all went well; 1 done, but some images could not be read; 2 not done"


def add_command(
    commands: Any, name: str, summary: str, examples: Iterable[str], run: Any
) -> argparse.ArgumentParser:
    """A subcommand with its summary, examples and exit status in --help, and the function that runs it."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog="examples:\n" + "".join(f"  fastctc {example}\n" for example in examples) + "\n" + EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def positive_int(text: str) -> int:
    """An option's whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def positive_float(text: str) -> float:
    """An option's number above 0."""
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0")
    return value


def count_from_zero(text: str) -> int:
    """An option's whole number of at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def images_in(folder: Path) -> list[Path]:
    """The image files directly in a folder, by name."""
    from fastctc.crnn.data.preprocess import image_suffixes

    suffixes = image_suffixes()
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes and path.is_file())


def add_formula_options(parser: argparse.ArgumentParser, **defaults: Any) -> None:
    """Which formulas are drawn; without a default here, an option left out is left out of the arguments."""

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


def add_preprocess_options(parser: argparse.ArgumentParser) -> None:
    """Filters of every image; an option left out is left out of the arguments."""
    group = parser.add_argument_group(
        "preprocessing", "what is done to every image, in this order; the checkpoint keeps it"
    )

    def add(option: str, **settings: Any) -> None:
        group.add_argument(option, default=argparse.SUPPRESS, **settings)

    add("--median", type=int, metavar="SIZE", help="median filter of SIZE x SIZE pixels, odd: removes specks")
    add("--gaussian", type=float, metavar="PIXELS", help="Gaussian filter of this standard deviation")
    add("--equalize", action="store_true", help="histogram equalisation of the ink")
    add("--binarize", action="store_true", help="black and white, by Otsu's threshold")
    add("--opening", type=int, metavar="SIZE", help="opening of the ink, odd: removes specks")
    add("--closing", type=int, metavar="SIZE", help="closing of the ink, odd: fills gaps")


def add_augment_options(parser: argparse.ArgumentParser) -> None:
    """Random changes of training images; an option left out is left out of the arguments."""
    group = parser.add_argument_group(
        "augmentation", "how much training images are changed at most, at random, in this order; 0: not"
    )

    def add(option: str, metavar: str, what: str) -> None:
        group.add_argument(option, type=float, metavar=metavar, default=argparse.SUPPRESS, help=what)

    add("--shift", "PIXELS", "shift to the sides, and by half as much up or down (default: 4)")
    add("--stretch", "SHARE", "stretch or squeeze (default: 0.08)")
    add("--rotate", "DEGREES", "rotation, 15 at most (default: 0)")
    add("--blur", "PIXELS", "Gaussian blur of this standard deviation (default: 0)")
    add("--contrast", "SHARE", "contrast of faint ink against strong ink (default: 0)")
    add("--noise", "LEVELS", "Gaussian noise of this standard deviation in grey levels (default: 0)")


def add_decoding(parser: argparse.ArgumentParser) -> None:
    """How texts are found in what the model says."""
    parser.add_argument(
        "--beam-size", type=positive_int, metavar="N",
        help="beam search with so many prefixes (default: greedy, or 20 with --constraint)",
    )  # fmt: skip
    parser.add_argument(
        "--constraint", choices=("formula",),
        help="formula: of all formulas without '=' or with the right value behind it, the most probable one."
        " Opt-in, because a wrong equation is then never read as it is drawn",
    )  # fmt: skip


def constraint_of(arguments: argparse.Namespace) -> Constraint | None:
    """The constraint that ``--constraint`` names."""
    from fastctc.crnn.read.constraint import FormulaConstraint

    return FormulaConstraint() if arguments.constraint == "formula" else None


def add_workers(parser: argparse.ArgumentParser) -> None:
    """How many processes draw or read."""
    parser.add_argument(
        "--workers", type=count_from_zero, help="processes that draw (default: one for each CPU)"
    )


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """What train and demo have in common."""
    if parser.prog.endswith("demo"):
        parser.add_argument("out", metavar="DIR", type=Path, help="where model, state, log and examples go")
    else:
        parser.add_argument("--out", metavar="DIR", type=Path, help="where model, state, log and curve go")
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run in DIR, exactly where it was saved"
    )
    suppress = argparse.SUPPRESS
    parser.add_argument(
        "--minutes", type=positive_float, default=suppress, help="time for drawing and training"
    )
    parser.add_argument(
        "--seed", type=count_from_zero, default=suppress, help="decides everything random (default: 0)"
    )
    parser.add_argument(
        "--threads", type=positive_int, default=suppress, help="threads of torch (default: its choice)"
    )
    parser.add_argument(
        "--cache", metavar="DIR", type=Path,
        help="keep the preprocessed images here: a second run neither draws nor reads them",
    )  # fmt: skip
    parser.add_argument(
        "--tensorboard", action="store_true", help="write logs for TensorBoard into DIR/tensorboard"
    )
    add_workers(parser)
