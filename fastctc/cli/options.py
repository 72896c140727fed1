"""Options that several commands share, and options made from the fields of configurations.

An option of a configuration is stored as ``group.field``, and left out of the arguments where it is not given.
"""

from __future__ import annotations

import argparse
import unicodedata
from collections.abc import Callable, Collection
from dataclasses import Field, fields, replace
from pathlib import Path
from typing import Any

import torch

from fastctc.crnn import DrawConfig, Recognizer, load_checkpoint
from fastctc.crnn.data import DOMAINS, constraints, help_of, kind_of, shipped_checkpoint, shipped_checkpoints
from fastctc.crnn.read import HOTWORD_BONUS, PRECISIONS, scorers_from_files
from fastctc.figures import PICTURE_SUFFIXES
from fastctc.text import Alphabet


def positive_int(text: str) -> int:
    """Return the whole number of an option, at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def one_line(text: object) -> str:
    """Return a text as it stands in a line of output: line breaks, tabs and other control characters escaped."""
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c
        for c in str(text)
    )


def picture_file(text: str) -> Path:
    """Return the path of a picture to write; without a suffix it becomes a PNG file."""
    path = Path(text) if Path(text).suffix else Path(f"{text}.png")
    if path.suffix not in PICTURE_SUFFIXES:
        raise argparse.ArgumentTypeError(f"{text} does not end in {', '.join(PICTURE_SUFFIXES)}")
    return path


def count_from_zero(text: str) -> int:
    """Return the whole number of an option, at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def add_settings(
    parser: argparse.ArgumentParser,
    group: str,
    defaults: Any,
    title: str | None = None,
    *,
    only: Collection[str] | None = None,
    without: Collection[str] = (),
) -> None:
    """Offer the settings of a configuration as options.

    Args:
        parser: parser of the command.
        group: the part before the dot in the name of a stored value.
        defaults: a dataclass whose fields are made by :func:`fastctc.crnn.data.setting`; ``--help`` shows its
            values as the defaults.
        title: of the options in ``--help``; None: among the others.
        only: names of the fields that are offered; None: all.
        without: names of fields that are not offered.
    """
    config = defaults.__class__
    place = parser if title is None else parser.add_argument_group(title)
    helps = help_of(config)
    for each in fields(config):
        if (
            "check" not in each.metadata
            or each.name in without
            or (only is not None and each.name not in only)
        ):
            continue
        kind, _, choices = kind_of(config, each.name)
        default = getattr(defaults, each.name)
        shown = "" if default is None or default is False else f" (default: {default})"
        what: dict[str, Any] = {"help": (helps[each.name] + shown).replace("%", "%%")}
        if kind is bool:
            what["action"] = "store_true"
        else:
            shown_as = each.metadata["metavar"] or (None if choices else each.name.upper())
            what |= {"type": _reader(kind, each), "choices": choices or None, "metavar": shown_as}
        place.add_argument(
            option_of(config, each.name), dest=f"{group}.{each.name}", default=argparse.SUPPRESS, **what
        )


def _reader(kind: Any, setting: Field[Any]) -> Callable[[str], Any]:
    """Return a function that parses the value of an option and checks the setting's bounds."""

    def read(text: str) -> Any:
        value, check = kind(text), setting.metadata["check"]
        if check is not None and not check(value):
            raise argparse.ArgumentTypeError(
                f"{text} is out of bounds, expected {setting.metadata['expected']}"
            )
        return value

    read.__name__ = kind.__name__  # for argparse's own errors
    return read


def option_of(config: type, name: str) -> str:
    """Return the option that a field of a configuration is set by."""
    (each,) = (each for each in fields(config) if each.name == name)
    return "--" + str(each.metadata.get("option", name)).replace("_", "-")


def given(arguments: argparse.Namespace, group: str) -> dict[str, Any]:
    """Return the settings of a group that were given, by the names of their fields."""
    stored = {name.partition("."): value for name, value in vars(arguments).items()}
    return {field: value for (prefix, dot, field), value in stored.items() if dot and prefix == group}


def drawn_domain(argv: list[str]) -> str | None:
    """Return the domain that ``--domain`` names or whose options are given; None: the command line names none.

    An option that several domains have, such as ``--look``, does not decide.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--domain", choices=DOMAINS)
    named: str | None = parser.parse_known_args(argv)[0].domain
    if named is not None:
        return named
    used = {word.partition("=")[0] for word in argv}
    offered = {
        name: {option_of(domain.draw, each.name) for each in fields(domain.draw)}
        for name, domain in DOMAINS.items()
    }
    shared = set.intersection(*offered.values())
    return next((name for name, options in offered.items() if used & (options - shared)), None)


def trained_domain(argv: list[str]) -> str | None:
    """Return the domain whose drawings the checkpoint on a command line was trained on; None if there is none."""
    for word in argv[1:]:
        if shipped_checkpoint(word) or Path(word).exists():
            try:
                recipe = load_checkpoint(word).training.get("recipe") or {}
            except (OSError, ValueError):  # no checkpoint, or the command tells what is wrong with it
                continue
            domain = (recipe.get("draw") or {}).get("domain")
            return domain if domain in DOMAINS else None
    return None


def add_drawing(
    parser: argparse.ArgumentParser,
    argv: list[str],
    training: DrawConfig | None = None,
    *,
    default: str | None = None,
) -> None:
    """Offer the settings of drawing: of the domain that the command line names.

    Args:
        parser: parser of the command.
        argv: the command line.
        training: settings of a recipe, which are all offered; None: settings of images to show or to write.
        default: the domain if none is named; None: the recipe's, or the first.
    """
    names = list(DOMAINS)
    of_training = [name for name in names if type(training) is DOMAINS[name].draw]
    name = drawn_domain(argv) or default or (of_training or names)[0]
    parser.add_argument(
        "--domain", choices=names,
        help=f"what is drawn (default: {name}; an option of another domain names it too)",
    )  # fmt: skip
    parser.set_defaults(drawn_domain=name)
    draw = training if training is not None and name in of_training else DOMAINS[name].draw()
    if training is None:
        draw = draw.unseen()
    add_settings(parser, "draw", draw, f"drawing {name}", without=() if training else ("images", "rounds"))


def drawing_of(arguments: argparse.Namespace) -> DrawConfig:
    """Return the settings of drawn images that are shown, written or evaluated."""
    return replace(DOMAINS[arguments.drawn_domain].draw().unseen(), **given(arguments, "draw"))


def refuse_drawing(arguments: argparse.Namespace, images: str) -> None:
    """Raise ValueError if an option is about drawn images although the images are read.

    Args:
        arguments: the options.
        images: what names the images that are read.
    """
    drawing = given(arguments, "draw")
    if arguments.domain is not None:
        drawing = {"domain": arguments.domain} | drawing
    if drawing:
        option = "--" + next(iter(drawing)).replace("_", "-")
        raise ValueError(f"{option} is about drawn images, but {images}")


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Take a checkpoint."""
    names = " or ".join(repr(name) for name in shipped_checkpoints())
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help=f"a checkpoint file, or {names}")


def add_decoding(parser: argparse.ArgumentParser) -> None:
    """Offer the options of decoding."""
    parser.add_argument(
        "--beam-size", type=positive_int, metavar="N",
        help="beam search with N prefixes (default: greedy, or 20 with one of the options below)",
    )  # fmt: skip
    group = parser.add_argument_group("knowledge", "what is known about the texts; the options combine")
    names = ", ".join(constraints())
    group.add_argument(
        "--constraint", metavar=f"{{{names}}}|REGEX",
        help="which texts are allowed. formula: all formulas without '=' or with the right value behind it; a false"
        " equation is never returned. Or a regular expression that the whole text matches, such as '[A-Z]{2}\\d+'",
    )  # fmt: skip
    group.add_argument(
        "--lexicon", type=Path, metavar="FILE",
        help="allow only words of a file, one in each line. A text is words with spaces between them, or one word"
        " if the model has no space",
    )  # fmt: skip
    group.add_argument(
        "--lm", type=Path, metavar="FILE",
        help="an n-gram model, ARPA or ARPA.gz: of characters, or with --lexicon of words. fastctc lm makes one of"
        " characters. The model 'words' reads with its own one if no other option of this group is given; none"
        " turns it off",
    )  # fmt: skip
    group.add_argument("--lm-weight", type=float, metavar="X", help="weight of the n-gram model (default: 1)")
    group.add_argument(
        "--word-bonus", type=float, metavar="X",
        help="added to the score for each word of the lexicon (default: 0)",
    )  # fmt: skip
    group.add_argument(
        "--hotwords", type=Path, metavar="FILE",
        help="words that are likely: each line has one, then optionally a blank and its bonus, a natural logarithm"
        f" (default: {HOTWORD_BONUS:g})",
    )  # fmt: skip


_NO_LM = Path("none")


def knowledge_of(arguments: argparse.Namespace, alphabet: Alphabet) -> dict[str, Any]:
    """Return what the options tell about the texts, as the arguments ``constraint`` and ``scorer`` of reading."""
    for option, needed in (("lm_weight", "lm"), ("word_bonus", "lexicon")):
        if getattr(arguments, option) is not None and getattr(arguments, needed) is None:
            raise ValueError(f"--{option.replace('_', '-')} is given without --{needed}")
    known, name = constraints(), arguments.constraint
    lm = None if arguments.lm == _NO_LM else arguments.lm
    try:
        scorers = scorers_from_files(
            alphabet, pattern=None if name in known else name, lexicon=arguments.lexicon, lm=lm,
            hotwords_file=arguments.hotwords, lm_weight=arguments.lm_weight, word_bonus=arguments.word_bonus,
        )  # fmt: skip
    except ValueError as error:
        if name is None or name in known or not str(error).startswith("pattern"):
            raise
        raise ValueError(
            f"--constraint is none of {', '.join(known)}, and as a regular expression: {error}"
        ) from None
    default = () if arguments.lm == _NO_LM else None  # None: what the model reads with by itself
    return {"constraint": known[name]() if name in known else None, "scorer": scorers or default}


def has_model(arguments: argparse.Namespace, recognizer: Recognizer) -> bool:
    """Return True if the options, or a recognizer without them, give hypotheses scores of a model."""
    if arguments.lexicon or arguments.hotwords or arguments.lm not in (None, _NO_LM):
        return True
    return recognizer.scorer is not None and arguments.lm is None and arguments.constraint is None


def share(text: str) -> float:
    """Return a number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 1")
    return value


def add_running(parser: argparse.ArgumentParser) -> None:
    """Offer where a model runs, and on how many threads."""
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument(
        "--threads", type=positive_int, metavar="N", help="threads of torch (default: torch's choice)"
    )
    parser.add_argument(
        "--precision", choices=PRECISIONS, default=PRECISIONS[0],
        help="bf16 is faster where the processor multiplies it (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--ignore-case", action="store_true",
        help="read all letters as small ones, by the sum of the probabilities of both cases",
    )  # fmt: skip
    parser.add_argument(
        "--second-look", type=share, metavar="P",
        help="an image that is read with less confidence than P, from 0 to 1, is read in other forms too: wider,"
        " narrower, in its colors, straightened from an arc, and turned if it is tall; these vote; 0.5 suits"
        " photographs, 0 is none (default: 0.05 for words, else none)",
    )  # fmt: skip


def recognizer_of(arguments: argparse.Namespace, checkpoint: str | None = None) -> Recognizer:
    """Return the model of a checkpoint, by default the command's, on its device; set the number of threads."""
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    return Recognizer.load(
        checkpoint or arguments.checkpoint,
        arguments.device,
        precision=arguments.precision,
        ignore_case=arguments.ignore_case,
        second_look=arguments.second_look,
    )


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Offer the number of processes that draw or read."""
    parser.add_argument(
        "--workers", type=count_from_zero, metavar="N",
        help="processes that draw or read images (default: one per CPU)",
    )  # fmt: skip


def add_folder(parser: argparse.ArgumentParser) -> None:
    """Take a folder of labeled images."""
    parser.add_argument(
        "folder", metavar="DIR", nargs="?", type=Path,
        help="images with labels.tsv, labels.txt or labels.json, a scene-text LMDB (data.mdb), or tar or Parquet"
        " shards; without it, images are drawn",
    )  # fmt: skip
