"""Score every formula there is against one image, by one call of the loss.

No search: each of the 27,000 expressions of formulas, without and with its value, gets its exact CTC probability.
Equations that do not hold are not among them.

    python examples/score_all_formulas.py formula.png
    python examples/score_all_formulas.py formula.png --top 3 --checkpoint runs/a/model.safetensors
"""

import argparse
import time
from pathlib import Path

import torch

import fastctc
from fastctc.crnn import Recognizer
from fastctc.crnn.formulas import all_expressions, evaluate

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
)
parser.add_argument("image", type=Path)
parser.add_argument("--top", type=int, default=10, help="formulas to print (default: %(default)s)")
parser.add_argument("--checkpoint", default="formula", help="model to read with (default: %(default)s)")


def main(image: Path, top: int, checkpoint: str) -> None:
    """Print the most probable formulas, their probabilities normalized over all formulas."""
    recognizer = Recognizer.load(checkpoint)
    alphabet, reading = recognizer.alphabet, recognizer.read(image)
    if reading.evidence is None:
        raise SystemExit(f"{image}: {reading.error}")
    log_probs = reading.evidence.log_probs  # (T, C)

    expressions = all_expressions()
    formulas = expressions + [f"{expression}={evaluate(expression)}" for expression in expressions]
    targets = torch.tensor([token for formula in formulas for token in alphabet.encode(formula)])
    lengths = torch.tensor([len(formula) for formula in formulas])

    began = time.perf_counter()
    losses = fastctc.ctc_loss(
        log_probs[:, None].expand(-1, len(formulas), -1),  # every formula sees the same frames: no copy
        targets,
        torch.tensor(len(log_probs)).expand(len(formulas)),
        lengths,
        blank=alphabet.blank,
        reduction="none",
    )
    seconds = time.perf_counter() - began
    if torch.isinf(losses).all():
        raise SystemExit(f"{image}: {len(log_probs)} frames are too few for any formula")

    probabilities = (-losses.double()).softmax(0)  # of a formula, given that it is one of them
    best = probabilities.topk(min(max(top, 1), len(formulas)))
    for probability, index in zip(best.values.tolist(), best.indices.tolist()):
        print(f"{formulas[index]:12}  probability {probability:.6f}  log-probability {-losses[index]:.3f}")
    print(f"{len(formulas)} formulas scored in {1000 * seconds:.0f} ms")


if __name__ == "__main__":
    main(**vars(parser.parse_args()))
