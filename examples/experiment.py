"""The common parts of the example networks: options, the training loop, and the files of a result."""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from fastctc.crnn.data import to_json, write_atomically
from fastctc.crnn.training import fast_precision
from fastctc.figures import write_png

S = TypeVar("S")  # a size of an experiment, a dataclass


def make_parser(script: str, description: str | None, *examples: str) -> argparse.ArgumentParser:
    """Return a parser with the options of every experiment.

    Args:
        script: path of the script, ``__file__``.
        description: the text above the options.
        examples: options to show in the help.
    """
    name = Path(script).stem
    shown = "".join(f"\n  python examples/{name}.py {example}".rstrip() for example in ("", *examples))
    parser = argparse.ArgumentParser(
        description=description,
        epilog=f"examples:{shown}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--full", action="store_true", help="the size of the figures in the documentation")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", default=Path("runs") / name,
        help="where result.json and the pictures go (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of data and weights (default: 0)")
    return parser


def chosen_size(options: argparse.Namespace, small: S, full: S) -> S:
    """Return the size that the options choose, and let torch use two threads at most.

    Args:
        options: with ``full``, and fields of the size that are options of their own, where they were given.
        small: the default size, a dataclass.
        full: the size of ``--full``.
    """
    torch.set_num_threads(min(2, torch.get_num_threads()))
    size = full if options.full else small
    named = {each.name: getattr(options, each.name, None) for each in fields(size)}
    return replace(size, **{name: value for name, value in named.items() if value is not None})


def train(
    model: nn.Module, batch_loss: Callable[[], Tensor], steps: int, *, max_lr: float = 3e-3, name: str = ""
) -> float:
    """Train a model with AdamW and one cycle of the learning rate; print the loss ten times.

    Args:
        model: the model, which is in evaluation mode afterwards.
        batch_loss: returns the loss of the next batch.
        steps: number of steps.
        max_lr: highest learning rate.
        name: of the model, in what is printed.

    Returns:
        The processor time in seconds.
    """
    began = time.process_time()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=max_lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr, total_steps=steps, pct_start=0.15)
    losses = []
    model.train()
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_precision("cpu", "vgg-bilstm") == "bf16"):
            loss = batch_loss()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if step * 10 // steps > (step - 1) * 10 // steps:
            print(f"{name}: step {step} of {steps}, loss {sum(losses) / len(losses):.3f}", flush=True)
            losses.clear()
    model.eval()
    return time.process_time() - began


def print_table(rows: Sequence[Sequence[object]]) -> None:
    """Print rows in columns; the first row is the head. Numbers with a point are shares, in percent."""
    texts = [[f"{cell:.1%}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for first, *rest in texts:
        cells = [first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(rest, widths[1:], strict=True))]
        print("  ".join(cells))


def save(out: Path, result: Mapping[str, Any], **figures: Figure) -> None:
    """Write ``result.json`` and a PNG file of each figure, and print their paths.

    Args:
        out: folder, made if missing; files of these names are replaced.
        result: figures of the experiment.
        figures: pictures by their names without a suffix.
    """
    write_atomically(out / "result.json", (to_json(dict(result), indent=2) + "\n").encode())
    print(out / "result.json")
    for name, figure in figures.items():
        write_atomically(out / f"{name}.png", lambda path, figure=figure: write_png(figure, path))
        print(out / f"{name}.png")
