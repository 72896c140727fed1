"""The ``fastctc`` command: one module for each subcommand, imported when it is used.

Exit status: 0 for success, 1 if some images could not be read, 2 for an error, whose reason is on stderr.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys

from fastctc.version import __version__

EXIT_STATUS = "exit status: 0 for success, 1 if some images could not be read, 2 for an error"
COMMANDS = {
    "read": "read images: one line per image with the path, a tab and the text; with --nbest, one line per"
    " hypothesis, with another tab and its natural-log probability plus the weights of what is known",
    "generate": "draw images: a folder of PNG files and labels.tsv",
    "explore": "draw what to see before training: samples, labels, sizes, contrast, filters",
    "train": "train a recognizer on drawn images, or on labeled images",
    "evaluate": "measure how well a checkpoint reads: labeled images, or drawings",
    "demo": "train a model within 9 minutes on 2 CPU cores, and read five new images with it",
    "lm": "estimate an n-gram model of characters from texts, for read --lm",
    "average": "average the weights of checkpoints that were trained from one another",
    "summary": "show a checkpoint's layers and sizes, and how it was trained",
    "export": "write a checkpoint as ONNX or as a torch.export program, checked against it",
}
"""The subcommands and what they do. The module of each has EXAMPLES, ``configure`` and ``run``."""


def main(argv: list[str] | None = None) -> int:
    """Run a command line; return the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    # Threads of torch that spin while they wait take ten times as long on a machine that does something else, too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # is read when torch is loaded
    os.environ.setdefault(
        "THP_MEM_ALLOC_ENABLE", "1"
    )  # huge pages: fewer page faults for the tensors of a step
    for stream in (sys.stdout, sys.stderr):  # what an encoding cannot show is escaped, and stops nothing
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    arguments = _parser(argv).parse_args(argv)
    import logging  # --help and --version do without it

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        status: int = arguments.run(arguments)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("fastctc: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of the output has stopped, as `head` does
        _discard_output()
        return 1
    except MemoryError as error:
        print(f"fastctc: out of memory: {error or 'use smaller images, or fewer at once'}", file=sys.stderr)
        return 2
    except (ValueError, OSError, RuntimeError, ModuleNotFoundError) as error:
        print(f"fastctc: {_message(error)}", file=sys.stderr)
        _discard_output()
        return 2


def _message(error: Exception) -> str:
    if type(error) is OSError and error.errno is not None and error.filename is None:
        return f"cannot write the standard output: {error.strerror}"
    return str(error)


def _discard_output() -> None:
    """Drop the output that cannot be written, which Python would try again at its exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser(argv: list[str]) -> argparse.ArgumentParser:
    """Return the parser of the command, with the options of the subcommand that ``argv`` names."""
    parser = argparse.ArgumentParser(
        prog="fastctc",
        description="Train a CTC recognizer of lines of text, and read images with it.",
        epilog="examples:\n  fastctc read formula.png\n  fastctc demo runs/demo\n  fastctc train --help\n\n"
        + EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    asked_for = next((word for word in argv if not word.startswith("-")), None)
    for name, summary in COMMANDS.items():
        if name != asked_for:
            commands.add_parser(name, help=summary)
            continue
        module = importlib.import_module(f"fastctc.cli.{name}")
        examples = "".join(f"  fastctc {example}\n" for example in module.EXAMPLES)
        command = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=f"examples:\n{examples}\n{EXIT_STATUS}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(run=module.run)
        module.configure(command, argv)
    return parser
