"""Label the pixels of floor plans, and read formulas, with a two-dimensional LSTM.

--task label: the class of a pixel is the sign in its room. A 2-D LSTM (grid_lstm.py) competes with convolutions of
about the same size. The score is the share of pixels with the right class.

--task read: the 2-D LSTM is a head of fastctc's CRNN, beside the heads that fastctc has. It reads the feature map
of the convolutions in both axes, and its states are summed over the rows. The score is the share of formulas
without a mistake.

Sources: Byeon, Breuel, Raue and Liwicki, Scene Labeling with LSTM Recurrent Neural Networks, CVPR 2015; Graves and
Schmidhuber, Offline Handwriting Recognition with Multidimensional Recurrent Neural Networks, NIPS 2008.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from experiment import make_parser, print_table, save, train
from floor_plans import CLASSES, floor_plans
from grid_lstm import GridLSTM
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from torch import Tensor, nn

from fastctc import Alphabet, ctc_loss, greedy_decode
from fastctc.crnn import CRNN, CRNNConfig, FormulaSource, PreprocessConfig
from fastctc.crnn.data import normalize, pad_batch, prepare
from fastctc.crnn.formulas import CHARACTERS
from fastctc.figures import COLORS, drawing_style, new_figure

BLOCK = 2  # pixels in each axis that are one cell of the grid
HEIGHT = 32  # rows of a prepared formula


@dataclass(frozen=True)
class Size:
    """The size of an experiment."""

    images: int = 1500
    tests: int = 200
    steps: int = 400
    batch: int = 16


FULL = Size(images=4000, tests=500, steps=600)

parser = make_parser(
    __file__,
    __doc__,
    "--full --out runs/plans",
    "--task read --out runs/formulas",
    "--steps 50 --out runs/short",
)
parser.add_argument("--task", choices=("label", "read"), default="label", help="default: %(default)s")
parser.add_argument("--steps", type=int, metavar="N", help=f"of training (default: {Size.steps})")


class Labeler(nn.Module):
    """Blocks of pixels in, logits of each pixel out, a body in between.

    Args:
        body: maps (N, BLOCK², H / BLOCK, W / BLOCK) to as many cells with other features.
        features: of the body's output.
    """

    def __init__(self, body: nn.Module, features: int) -> None:
        super().__init__()
        self.body = body
        self.classify = nn.Conv2d(features, len(CLASSES) * BLOCK**2, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, H, W) to logits (N, classes, H, W)."""
        return F.pixel_shuffle(self.classify(self.body(F.pixel_unshuffle(images[:, None], BLOCK))), BLOCK)


def recurrent_labeler(first: int = 16, between: int = 32, second: int = 20) -> Labeler:
    """Return two 2-D LSTMs with a feed-forward layer between them."""
    body = nn.Sequential(
        GridLSTM(BLOCK**2, first), nn.Conv2d(4 * first, between, 1), nn.Tanh(), GridLSTM(between, second)
    )
    return Labeler(body, 4 * second)


def convolutional_labeler(dilations: tuple[int, ...], channels: int = 31) -> Labeler:
    """Return convolutions 3 x 3 of these dilations, normalized, with ReLU."""
    layers: list[nn.Module] = []
    for inputs, d in zip((BLOCK**2, *(channels for _ in dilations)), dilations, strict=False):
        layers += [nn.Conv2d(inputs, channels, 3, padding=d, dilation=d), nn.BatchNorm2d(channels), nn.ReLU()]
    return Labeler(nn.Sequential(*layers), channels)


PLAIN, DILATED = (1, 1, 1, 1, 1, 1), (1, 1, 2, 4, 8, 1)


def pixels_seen(dilations: tuple[int, ...]) -> int:
    """Return the width of what a pixel's label depends on."""
    return BLOCK * (1 + 2 * sum(dilations))


class GridHead(nn.Module):
    """A head of a CRNN: a 2-D LSTM over the feature map, whose states are summed over the rows.

    Args:
        rows: of the feature map.
        channels: of the feature map.
        hidden: features of each direction.
    """

    def __init__(self, rows: int, channels: int, hidden: int) -> None:
        super().__init__()
        self.rows, self.lstm, self.features = rows, GridLSTM(channels, hidden), 4 * hidden

    def forward(self, frames: Tensor, lengths: Tensor | None) -> Tensor:
        """Map columns of the feature map (N, T, rows · channels) to frames (N, T, 4 · hidden)."""
        grid = frames.unflatten(2, (self.rows, -1)).permute(0, 3, 2, 1)  # (N, channels, rows, T)
        inside = None
        if lengths is not None:
            columns = torch.arange(frames.shape[1], device=frames.device) < lengths[:, None]
            inside = columns[:, None].expand(-1, self.rows, -1)
        return self.lstm(grid, inside).sum(2).transpose(1, 2)


def crnn(architecture: str, config: CRNNConfig) -> CRNN:
    """Return a CRNN of one of fastctc's architectures, or with a 2-D LSTM as its head."""
    if architecture != "2-D LSTM":
        return CRNN(replace(config, architecture=architecture))
    model = CRNN(config)
    model.project = nn.Sequential()
    model.head = GridHead(config.height // 8, 4 * config.channels, config.hidden // 2)  # type: ignore[assignment]
    model.classify = nn.Linear(model.head.features, config.num_classes)
    return model


def fit(model: nn.Module, loss: Callable[[Tensor], Tensor], size: Size, name: str, max_lr: float) -> None:
    """Train a model on random batches; ``loss`` takes the numbers of the images."""
    seconds = train(
        model, lambda: loss(torch.randint(size.images, (size.batch,))), size.steps, max_lr=max_lr, name=name
    )
    print(
        f"{name}: {sum(p.numel() for p in model.parameters())} parameters, {seconds:.0f} s of processor time"
    )


def label(size: Size, seed: int) -> tuple[list[tuple[object, ...]], Figure]:
    """Return the table of the networks that label floor plans, and a picture of what they label."""
    images, labels = floor_plans(size.images, seed + 1)
    test_images, test_labels = floor_plans(size.tests, seed + 2)
    networks = {
        "2-D LSTM": (recurrent_labeler, 0.01),
        f"convolutions, {pixels_seen(PLAIN)} pixels wide": (lambda: convolutional_labeler(PLAIN), 0.005),
        f"dilated, {pixels_seen(DILATED)} pixels wide": (lambda: convolutional_labeler(DILATED), 0.005),
    }
    frequent = float(test_labels.flatten().bincount().max() / test_labels.numel())
    rows: list[tuple[object, ...]] = [
        ("network", "score", "parameters"),
        ("most frequent class", frequent, 0),
    ]
    found = {"floor plan": test_images, "class": test_labels}
    for name, (make, max_lr) in networks.items():
        torch.manual_seed(seed)
        model = make()
        fit(model, lambda n, model=model: F.cross_entropy(model(images[n]), labels[n]), size, name, max_lr)
        with torch.no_grad():
            found[name] = torch.cat([model(part).argmax(1) for part in test_images.split(50)])
        share = float((found[name] == test_labels).float().mean())
        rows.append((name, share, sum(p.numel() for p in model.parameters())))
    return rows, sheet(found)


def sheet(found: dict[str, Tensor], count: int = 5) -> Figure:
    """Draw the first floor plans, their classes, and what the networks label, a row for each."""
    with drawing_style():
        figure = new_figure(1.5 * count, 1.6 * len(found))
        for axes_of_row, (name, images) in zip(
            figure.subplots(len(found), count), found.items(), strict=True
        ):
            for axes, image in zip(axes_of_row, images, strict=False):
                if image.is_floating_point():
                    axes.imshow(image, cmap="gray_r", vmin=-0.2, vmax=1)
                else:
                    axes.imshow(image, cmap=ListedColormap(["#333333", *COLORS[:3]]), vmin=0, vmax=3)
                axes.set(xticks=[], yticks=[])
            axes_of_row[0].set_ylabel(name.replace(", ", ",\n"))
        return figure


def formulas(count: int, seed: int, renderer: Any) -> tuple[Tensor, Tensor, list[str]]:
    """Draw formulas; return prepared images (count, 1, HEIGHT, W) float32, their widths, and the texts."""
    source = FormulaSource("default", renderer, seed, gray=True)
    config = PreprocessConfig(height=HEIGHT)
    images, texts = zip(*map(source, range(count)), strict=True)
    batch, widths = pad_batch([prepare(image, config).pixels for image in images])
    return normalize(batch, widths, config), widths, list(texts)


def read(size: Size, seed: int) -> tuple[list[tuple[object, ...]], None]:
    """Return the table of the heads that read formulas."""
    alphabet = Alphabet(CHARACTERS)
    images, widths, texts = formulas(size.images, seed + 1, "glyphs")
    test_images, test_widths, test_texts = formulas(size.tests, seed + 2, "captcha")
    config = CRNNConfig(alphabet.num_classes, height=HEIGHT, channels=16, hidden=96)
    rows: list[tuple[object, ...]] = [("network", "score", "parameters")]

    def loss(model: CRNN, chosen: Tensor) -> Tensor:
        log_probs, lengths = model(images[chosen], widths[chosen])
        tokens = [alphabet.encode(texts[n]) for n in chosen.tolist()]
        targets = torch.tensor([token for each in tokens for token in each])
        return ctc_loss(log_probs.transpose(0, 1), targets, lengths, list(map(len, tokens)), alphabet.blank)

    for name in ("conv", "bilstm", "bigru", "2-D LSTM"):
        torch.manual_seed(seed)
        model = crnn(name, config)
        fit(model, lambda chosen, model=model: loss(model, chosen), size, name, 0.005)
        with torch.no_grad():
            found = greedy_decode(*model(test_images, test_widths), blank=alphabet.blank).to_text(alphabet)
        share = sum(map(str.__eq__, found, test_texts)) / size.tests
        rows.append((name, share, sum(p.numel() for p in model.parameters())))
    return rows, None


def main(full: bool, out: Path, seed: int, task: str, steps: int | None) -> None:
    """Train the networks of a task, print a table, and write the result and a picture."""
    size = FULL if full else Size()
    if task == "read":
        size = replace(size, batch=2 * size.batch)
    size = replace(size, steps=steps or size.steps)
    rows, figure = (label if task == "label" else read)(size, seed)
    print_table(rows)
    table = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    result = {"task": task, "size": asdict(size), "seed": seed, "table": table}
    save(out, result, **({} if figure is None else {"labels": figure}))


if __name__ == "__main__":
    main(**vars(parser.parse_args()))
