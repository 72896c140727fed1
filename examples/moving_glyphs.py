"""Classify a short sequence of images by an LSTM over a CNN: in which direction does a glyph move?

The CNN maps each image to features, and the LSTM reads the features in order. A single image has no information on
the direction, because every place is equally likely in each class. The same weights predict with any batch size and
any number of images.
"""

from dataclasses import asdict, dataclass

import numpy as np
import torch
from experiment import chosen_size, make_parser, print_table, save, train
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

from fastctc.crnn import plot_network
from fastctc.crnn.formulas import find_fonts
from fastctc.figures import drawing_style, new_figure

STEPS = {"right": (0, 1), "down": (1, 0), "left": (0, -1), "up": (-1, 0)}
CLASSES = list(STEPS)
GLYPHS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
SIDE = 32  # rows and columns of an image
SHORTEST, LONGEST = 4, 8  # images of a sequence


@dataclass(frozen=True)
class Size:
    """The size of an experiment."""

    sequences: int = 3000
    tests: int = 600
    steps: int = 400
    batch: int = 16


FULL = Size(sequences=10_000, tests=2000, steps=1500)

parser = make_parser(__file__, __doc__, "--full --out runs/glyphs", "--steps 100")
parser.add_argument("--steps", type=int, help="of training, for each network")


def draw(kind: int, rng: np.random.Generator, fonts: list[ImageFont.FreeTypeFont]) -> np.ndarray:
    """Return a sequence (T, H, W) uint8 of a glyph that moves by 3 to 6 pixels from image to image.

    What leaves the image on one side comes back on the other. The place in the first image is uniform, so the place
    in every image is uniform in each class.
    """
    glyph = Image.new("L", (SIDE, SIDE))
    center = (SIDE / 2, SIDE / 2)
    ImageDraw.Draw(glyph).text(center, rng.choice(list(GLYPHS)), 255, rng.choice(fonts), anchor="mm")
    turned = np.asarray(glyph.rotate(rng.uniform(0, 360), Image.Resampling.BILINEAR), np.float32)
    place, speed = rng.integers(0, SIDE, 2), rng.integers(3, 7)
    length = rng.integers(SHORTEST, LONGEST + 1)
    places = place + np.arange(length)[:, None] * speed * np.array(STEPS[CLASSES[kind]])
    images = np.stack([np.roll(turned, (y, x), (0, 1)) for y, x in places.tolist()])
    noisy = images * rng.uniform(0.5, 1.0) + rng.normal(0, 10, images.shape)
    return noisy.clip(0, 255).astype(np.uint8)


class Sequences:
    """Drawn sequences, each with its class."""

    def __init__(self, count: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        fonts = [ImageFont.truetype(path, 20) for path in find_fonts()]
        self.classes = torch.from_numpy(rng.integers(0, len(CLASSES), count))
        self.images = [torch.from_numpy(draw(kind, rng, fonts)) for kind in self.classes.tolist()]

    def inputs(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """Return sequences (N, T, 1, H, W), padded with empty images, and their lengths (N)."""
        chosen = [self.images[index] for index in indices]
        padded = pad_sequence(chosen, batch_first=True)[:, :, None]
        return padded.float() / 128 - 0.5, torch.tensor([len(each) for each in chosen])


class FrameClassifier(nn.Module):
    """A CNN for each image of a sequence, and what makes one class of them.

    Args:
        over: ``"lstm"``: the last state of an LSTM over the features. ``"mean"``: the mean of the features, which
            has no order. ``"one"``: the features of the first image alone.
    """

    def __init__(self, over: str = "lstm", features: int = 64) -> None:
        super().__init__()
        self.over = over
        self.cnn = nn.Sequential(
            nn.Conv2d(1, 16, 5, 2, padding=2), nn.GroupNorm(1, 16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2, padding=1), nn.GroupNorm(1, 32), nn.ReLU(),
            nn.Flatten(), nn.Linear(32 * (SIDE // 4) ** 2, features), nn.LayerNorm(features),
        )  # fmt: skip
        self.lstm = nn.LSTM(features, features, batch_first=True) if over == "lstm" else None
        self.classify = nn.Linear(features, len(CLASSES))

    def forward(self, images: Tensor, lengths: Tensor) -> Tensor:
        """Map sequences (N, T, 1, H, W) and their lengths (N) to logits (N, classes)."""
        if self.over == "one":
            images, lengths = images[:, :1], torch.ones_like(lengths)
        features = self.cnn(images.flatten(0, 1)).unflatten(0, images.shape[:2])  # (N, T, features)
        if self.lstm is not None:
            packed = pack_padded_sequence(features, lengths, batch_first=True, enforce_sorted=False)
            return self.classify(self.lstm(packed)[1][0][-1])  # the state after the last image
        inside = (torch.arange(features.shape[1]) < lengths[:, None])[..., None]
        return self.classify((features * inside).sum(1) / lengths[:, None])


def learn(model: FrameClassifier, data: Sequences, size: Size, seed: int) -> float:
    """Train a model; return the processor time in seconds."""
    rng = np.random.default_rng(seed)

    def batch_loss() -> Tensor:
        indices = rng.choice(len(data.images), size.batch, replace=False).tolist()
        return cross_entropy(model(*data.inputs(indices)), data.classes[indices])

    return train(model, batch_loss, size.steps, max_lr=5e-3, name=model.over)


@torch.no_grad()
def predict(model: FrameClassifier, data: Sequences, batch: int, backward: bool = False) -> Tensor:
    """Return log-probabilities (N, classes), computed with a batch size, of sequences or of reversed ones."""
    found = []
    for start in range(0, len(data.images), batch):
        images, lengths = data.inputs(list(range(start, min(start + batch, len(data.images)))))
        if backward:
            images = pad_sequence([x[:n].flip(0) for x, n in zip(images, lengths)], batch_first=True)
        found.append(model(images, lengths).log_softmax(1))
    return torch.cat(found)


def accuracy(log_probs: Tensor, classes: Tensor) -> float:
    """Return the share of sequences whose most probable class is the right one."""
    return float((log_probs.argmax(1) == classes).float().mean())


def plot(data: Sequences, log_probs: Tensor) -> Figure:
    """Draw one sequence of each class, with the most probable class and its probability."""
    with drawing_style():
        figure = new_figure(7.0, 3.4)
        grid = figure.subplots(len(CLASSES), LONGEST + 1, width_ratios=[1.3, *[1] * LONGEST])
        for axes in grid.flat:
            axes.axis("off")
        for kind, row in enumerate(grid):
            index = int((data.classes == kind).nonzero()[0])
            for axes, image in zip(row[1:], data.images[index]):
                axes.imshow(image, cmap="gray", vmin=0, vmax=255)
            best = int(log_probs[index].argmax())
            text = f"{CLASSES[kind]}\nfound: {CLASSES[best]}\n{float(log_probs[index, best].exp()):.1%}"
            row[0].text(0, 0.5, text, transform=row[0].transAxes, va="center", fontsize=8)
    return figure


def main() -> None:
    """Train the networks, compare them, and predict with several batch sizes."""
    options = parser.parse_args()
    size = chosen_size(options, Size(), FULL)
    data, unseen = Sequences(size.sequences, options.seed), Sequences(size.tests, options.seed + 1_000_000)
    rows = {"one": "one image", "mean": "all images, without their order", "lstm": "LSTM over the images"}
    shares, seconds = {}, {}
    for over, name in rows.items():
        torch.manual_seed(options.seed)
        model = FrameClassifier(over)
        seconds[name] = learn(model, data, size, options.seed)
        log_probs = predict(model, unseen, 100)
        shares[name] = accuracy(log_probs, unseen.classes)
    backward = predict(model, unseen, 100, backward=True)
    shares["LSTM, images reversed"] = accuracy(backward, unseen.classes)
    shares["LSTM, images reversed: opposite direction"] = accuracy(backward, (unseen.classes + 2) % 4)
    print_table([("", "accuracy"), *shares.items(), ("chance", 1 / len(CLASSES))])
    difference = max(float((predict(model, unseen, n) - log_probs).abs().max()) for n in (1, 7))
    print(f"batches of 1, 7 and 100: log-probabilities differ by at most {difference:.1e}")
    result = {"seed": options.seed, "size": asdict(size), "accuracy": shares, "chance": 1 / len(CLASSES),
              "cpu_seconds": seconds, "batch_difference": difference}  # fmt: skip
    network = plot_network(model, *unseen.inputs([0, 1]), title="CNN and LSTM")
    save(options.out, result, sequences=plot(unseen, log_probs), network=network)


if __name__ == "__main__":
    main()
