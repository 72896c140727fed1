"""Pass the features of a CNN to an RNN: the columns of the feature map are the time axis, not its channels.

Three networks learn to read long strings from images, such as 73791096754314441539:

- channels as time: the feature map (N, C, H, W) as C steps of H * W features. This is the mistake.
- columns as time: the same layers, the same feature map as W steps of C * H features.
- fastctc's CRNN: batch normalization, ReLU, and dilated convolutions instead of the RNN.

The score is the share of unseen images that are read without any mistake.
"""

import random
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from experiment import chosen_size, make_parser, print_table, save, train
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from torch import Tensor, nn

from fastctc import Alphabet, ctc_loss, greedy_decode
from fastctc.crnn import CRNN, CRNNConfig, PreprocessConfig
from fastctc.crnn.data import normalize
from fastctc.crnn.formulas import find_fonts
from fastctc.crnn.read import edit_distance
from fastctc.figures import drawing_style, new_figure

DIGITS = "0123456789"
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
SPECIAL = "!?.,:;+-*()="
WORDS = [
    "apple", "bridge", "cloud", "dance", "early", "forest", "green", "house", "island", "jump", "kettle", "lemon",
    "music", "night", "ocean", "paper", "quiet", "river", "stone", "table", "under", "voice", "water", "yellow",
]  # fmt: skip


@dataclass(frozen=True)
class Size:
    """The size of an experiment."""

    height: int = 32
    width: int = 128
    length: int = 10  # characters of the tested strings, and the most of the trained ones
    channels: int = 16  # of the first convolution
    hidden: int = 96
    images: int = 6000
    tests: int = 500
    steps: int = 700
    batch: int = 16
    crnn: float = 0.5  # share of the steps that fastctc's CRNN is trained


FULL = Size(height=64, width=256, length=20, hidden=128, images=12_000, tests=1000, steps=1600, crnn=1.0)

NETWORKS = ("channels as time", "columns as time", "fastctc's CRNN")

parser = make_parser(
    __file__, __doc__, "--full --out runs/digits", "--text words", "--steps 200 --length 5 --out runs/short"
)
parser.add_argument("--text", choices=("digits", "words"), default="digits", help="default: %(default)s")
parser.add_argument("--steps", type=int, help="of training, for each network")
parser.add_argument("--length", type=int, help="characters of the tested strings")


def random_text(kind: str, length: int, rng: random.Random, shortest: int = 1) -> str:
    """Return digits, or words with spaces and special characters, of a random length, more often of a long one."""
    length = round(rng.triangular(min(shortest, length), length, length))
    if kind == "digits":
        return "".join(rng.choices(DIGITS, k=length))
    text = ""
    while len(text) < length:
        word = rng.choice([rng.choice(WORDS), "".join(rng.choices(LETTERS, k=rng.randint(1, 7)))])
        word = rng.choice([str, str.capitalize, str.upper])(word)
        text += (" " if text else "") + word + (rng.choice(SPECIAL) if rng.random() < 0.3 else "")
    return text[:length].rstrip()


def draw(text: str, size: Size, fonts: list[ImageFont.FreeTypeFont], rng: random.Random) -> np.ndarray:
    """Return a gray image (H, W) of a text, in one of the fonts and at a random size and place."""
    font = rng.choice(fonts)
    left, top, right, bottom = font.getbbox(text)
    room = min((size.width - 4) / (right - left), (size.height - 4) / font.size)
    font = font.font_variant(size=font.size * room * rng.uniform(0.85, 1.0))
    left, top, right, bottom = font.getbbox(text)
    x = rng.uniform(1, max(1, size.width - (right - left) - 1))
    y = rng.uniform(1, max(1, size.height - (bottom - top) - 1))
    paper, ink = rng.randint(190, 255), rng.randint(0, 120)
    image = Image.new("L", (size.width, size.height), paper)
    place = (round(x - left), round(y - top))  # at a fraction of a pixel, Pillow cuts the top off
    ImageDraw.Draw(image).text(place, text, font=font, fill=ink)
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.7)))
    return np.asarray(Image.blend(image, Image.effect_noise(image.size, rng.uniform(10, 60)), 0.15))


class Strings:
    """Drawn images with their texts, and the classes of the characters."""

    def __init__(self, kind: str, size: Size, count: int, seed: int, shortest: int = 1) -> None:
        rng = random.Random(seed)
        fonts = [ImageFont.truetype(path, 16) for path in find_fonts()]
        self.texts = [random_text(kind, size.length, rng, shortest) for _ in range(count)]
        self.images = torch.from_numpy(np.stack([draw(text, size, fonts, rng) for text in self.texts]))[
            :, None
        ]
        self.alphabet = Alphabet(DIGITS if kind == "digits" else LETTERS + SPECIAL + " ")

    def inputs(self, indices: list[int]) -> Tensor:
        """Return normalized images (N, 1, H, W)."""
        images = self.images[indices]
        return normalize(images, torch.full((len(indices),), images.shape[3]), PreprocessConfig())

    def targets(self, indices: list[int]) -> tuple[Tensor, list[int]]:
        """Return the classes of all characters, one text after another, and the lengths."""
        texts = [self.texts[index] for index in indices]
        return torch.tensor(self.alphabet.encode("".join(texts))), list(map(len, texts))


class ConvRecurrent(nn.Module):
    """The network of the question: two convolutions, each with a pooling, and a bidirectional LSTM.

    Batch normalization and ReLU after each convolution are an addition, so that it learns sooner.

    Args:
        size: height, width, channels and hidden features are used.
        num_classes: characters and the blank.
        time: the axis of the feature map that becomes time: ``"channels"`` or ``"columns"``.
    """

    def __init__(self, size: Size, num_classes: int, time: str) -> None:
        super().__init__()
        c, rows, columns = size.channels, size.height // 4, size.width // 4
        self.time = time
        self.features = nn.Sequential(
            nn.Conv2d(1, c, 3, padding=1), nn.BatchNorm2d(c), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
            nn.Conv2d(c, 2 * c, 3, padding=1), nn.BatchNorm2d(2 * c), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        )  # fmt: skip
        inputs = rows * columns if time == "channels" else 2 * c * rows
        self.rnn = nn.LSTM(inputs, size.hidden, batch_first=True, bidirectional=True)
        self.classify = nn.Linear(2 * size.hidden, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 1, H, W) to logits (N, T, classes)."""
        maps = self.features(images)  # (N, C, H', W')
        if self.time == "channels":
            steps = maps.flatten(2)  # (N, C, H' * W'): a step is one feature of the whole image
        else:
            steps = maps.permute(0, 3, 1, 2).flatten(2)  # (N, W', C * H'): a step is one place of the image
        return self.classify(self.rnn(steps)[0]).float()


class Recognizer(nn.Module):
    """The network of the package, with the interface of :class:`ConvRecurrent`."""

    def __init__(self, size: Size, num_classes: int) -> None:
        super().__init__()
        stride = size.height // 32  # as many frames as ConvRecurrent
        self.crnn = CRNN(
            CRNNConfig(num_classes, height=size.height, stem_stride=stride, pooled_columns=4 // stride)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 1, H, W) to logits (N, T, classes)."""
        return self.crnn.logits(images)[0]


def learn(model: nn.Module, data: Strings, size: Size, name: str, seed: int, max_lr: float) -> float:
    """Train a model on drawn strings; return the processor time in seconds."""
    rng = random.Random(seed)

    def batch_loss() -> Tensor:
        indices = rng.sample(range(len(data.texts)), size.batch)
        targets, lengths = data.targets(indices)
        logits = model(data.inputs(indices)).transpose(0, 1)  # (T, N, classes)
        frames = [logits.shape[0]] * size.batch
        return ctc_loss(logits, targets, frames, lengths, from_logits=True, zero_infinity=True)

    return train(model, batch_loss, size.steps, max_lr=max_lr, name=name)


@torch.no_grad()
def read(model: nn.Module, data: Strings) -> list[str]:
    """Return the text that a model reads in each image."""
    found: list[str] = []
    for start in range(0, len(data.texts), 100):
        logits = model(data.inputs(list(range(start, min(start + 100, len(data.texts))))))
        found += greedy_decode(logits, from_logits=True).to_text(data.alphabet)
    return found


def score(texts: list[str], found: list[str]) -> dict[str, float]:
    """Return the share of texts read without a mistake, and the edits per character."""
    edits = list(map(edit_distance, texts, found))
    return {"exact": edits.count(0) / len(texts), "wrong_characters": sum(edits) / sum(map(len, texts))}


def try_network(
    name: str, data: Strings, unseen: Strings, size: Size, seed: int
) -> tuple[list[str], dict[str, float]]:
    """Train one of the networks; return what it reads in unseen images, and its figures."""
    torch.manual_seed(seed)
    classes = data.alphabet.num_classes
    if "time" in name:
        model: nn.Module = ConvRecurrent(size, classes, time=name.split()[0])
        seconds = learn(model, data, size, name, seed, max_lr=8e-3)
    else:
        model = Recognizer(size, classes)
        seconds = learn(
            model, data, replace(size, steps=int(size.crnn * size.steps)), name, seed, max_lr=4e-3
        )
    found = read(model, unseen)
    parameters = sum(p.numel() for p in model.parameters())
    return found, score(unseen.texts, found) | {"cpu_seconds": seconds, "parameters": parameters}


def plot(data: Strings, found: dict[str, list[str]], count: int = 5) -> Figure:
    """Draw images, each with the text that every network reads in it."""
    with drawing_style():
        figure = new_figure(7.0, 1.0 * count)
        for row, (left, right) in enumerate(figure.subplots(count, 2)):
            left.imshow(data.images[row, 0], cmap="gray", vmin=0, vmax=255)
            lines = [f"{name}:  {texts[row]}" for name, texts in found.items()]
            right.text(0, 0.5, "\n".join(lines), transform=right.transAxes, va="center", fontsize=8)
            for axes in (left, right):
                axes.axis("off")
    return figure


def main() -> None:
    """Train the networks and compare what they read."""
    options = parser.parse_args()
    size = chosen_size(options, Size(), FULL)
    data = Strings(options.text, size, size.images, options.seed)
    unseen = Strings(options.text, size, size.tests, options.seed + 1_000_000, shortest=size.length)
    found, scores = {}, {}
    for name in NETWORKS:
        found[name], scores[name] = try_network(name, data, unseen, size, options.seed)
    print_table(
        [("", "exact", "wrong characters")]
        + [(name, each["exact"], each["wrong_characters"]) for name, each in scores.items()]
    )
    result = {"text": options.text, "seed": options.seed, "size": asdict(size), "networks": scores}
    save(options.out, result, readings=plot(unseen, found))


if __name__ == "__main__":
    main()
