"""The ``fastctc`` command: one module a command. torch takes seconds to import, so they import it when they run.

Exit status: 0 all went well; 1 done, but some images could not be read; 2 not done, the reason is on stderr.
"""

from __future__ import annotations

import argparse
import logging
import sys

from fastctc.cli.demo import add_demo
from fastctc.cli.evaluate import add_evaluate
from fastctc.cli.explore import add_explore
from fastctc.cli.export import add_export
from fastctc.cli.generate import add_generate
from fastctc.cli.options import EXIT_STATUS
from fastctc.cli.read import add_read
from fastctc.cli.summary import add_summary
from fastctc.cli.train import add_train


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
    add_read(commands)
    add_generate(commands)
    add_explore(commands)
    add_train(commands)
    add_evaluate(commands)
    add_demo(commands)
    add_summary(commands)
    add_export(commands)
    return parser
