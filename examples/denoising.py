"""Restore damaged images of formulas with a convolutional encoder and an LSTM decoder that sees the damaged image.

Source: Haque, Rahman and Siddique, Image denoising and restoration with CNN-LSTM Encoder Decoder with Direct
Attention, arXiv:1801.05141. The encoder makes a vector of the image. The decoder takes this vector and the damaged
image, column by column, and draws the clean image. Reading the damaged image itself is the direct attention.

The score is the peak signal-to-noise ratio (PSNR), and the share of formulas that fastctc's recognizer reads
without a mistake, before and after.
"""

import itertools
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from experiment import make_parser, print_table, save, train
from matplotlib.figure import Figure
from PIL import Image, ImageFilter
from torch import Tensor, nn

from fastctc.crnn import Recognizer
from fastctc.crnn.formulas import captcha_draws_from, captcha_image, random_formula
from fastctc.crnn.report import Titled, grid

WIDTH, HEIGHT = 180, 60  # pixels of an image
GROUP = 4  # columns that the decoder reads at a step
NOISE = 0.2  # standard deviation, where white is 1
BLOCKS, BLOCK = 4, 10  # missing squares, and their side in pixels


@dataclass(frozen=True)
class Size:
    """The size of an experiment."""

    images: int = 1500
    tests: int = 200
    steps: int = 300
    batch: int = 16
    hidden: int = 96


FULL = Size(images=4000, tests=500, steps=600)

parser = make_parser(__file__, __doc__, "--full --out runs/denoising", "--steps 60 --out runs/short")
parser.add_argument("--steps", type=int, metavar="N", help=f"of training (default: {Size.steps})")


def draw(count: int, seed: int) -> tuple[Tensor, Tensor, list[str]]:
    """Draw formulas with the ``captcha`` package, and damage them.

    Returns:
        clean and damaged (count, HEIGHT, WIDTH) float32 from 0, black, to 1, white; the formulas.
    """
    clean, damaged, texts = [], [], []
    for i in range(count):
        rng = random.Random(f"{seed}/{i}")
        texts.append(random_formula(rng))
        ink = tuple(rng.randint(10, 160) for _ in range(3))
        with captcha_draws_from(rng):
            captcha = captcha_image().ImageCaptcha(WIDTH, HEIGHT)
            image = captcha.create_captcha_image(texts[-1], ink, (250, 250, 250))
            clean.append(_gray(image))
            captcha.create_noise_dots(image, ink)
            captcha.create_noise_curve(image, ink)
        pixels = _gray(image) + NOISE * np.random.default_rng(rng.getrandbits(32)).standard_normal(
            (HEIGHT, WIDTH)
        )
        for _ in range(BLOCKS):
            y, x = rng.randint(0, HEIGHT - BLOCK), rng.randint(0, WIDTH - BLOCK)
            pixels[y : y + BLOCK, x : x + BLOCK] = 0
        damaged.append(pixels.clip(0, 1))
    return _tensor(clean), _tensor(damaged), texts


def _gray(image: Image.Image) -> np.ndarray:
    return np.asarray(image.filter(ImageFilter.SMOOTH).convert("L")) / 255


def _tensor(images: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(images)).float()


def conv(inputs: int, outputs: int, stride: int | tuple[int, int] = 1) -> nn.Sequential:
    """Return a convolution 3 x 3, normalized, with ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


class Restorer(nn.Module):
    """The paper's encoder-decoder, with a few convolutions after it.

    Args:
        hidden: features of the vector, and of each direction of the LSTM.
        direct: whether the decoder sees the damaged image; else it sees the vector only.
    """

    def __init__(self, hidden: int, *, direct: bool = True) -> None:
        super().__init__()
        self.direct = direct
        self.encode = nn.Sequential(
            conv(1, 16, 2), conv(16, 32, 2), conv(32, 32, (2, 1)), conv(32, 32, (2, 1))
        )
        self.vector = nn.Linear(32 * 4 * (WIDTH // GROUP), hidden)
        inputs = hidden + (HEIGHT * GROUP if direct else 0)
        self.lstm = nn.LSTM(inputs, hidden, num_layers=2, bidirectional=True, batch_first=True)
        self.paint = nn.Linear(2 * hidden, HEIGHT * GROUP)
        layers = 2 if direct else 1
        self.finish = nn.Sequential(
            nn.PixelUnshuffle(4), conv(16 * layers, 48), conv(48, 48), nn.Conv2d(48, 16, 3, padding=1),
            nn.PixelShuffle(4),
        )  # fmt: skip

    def forward(self, damaged: Tensor) -> Tensor:
        """Map damaged images (N, HEIGHT, WIDTH) to the logits of restored ones."""
        ink = 1 - damaged
        steps = WIDTH // GROUP
        vector = self.vector(self.encode(ink[:, None]).flatten(1))
        read = vector[:, None].expand(-1, steps, -1)  # (N, steps, hidden)
        if self.direct:
            columns = ink.unflatten(2, (steps, GROUP)).permute(0, 2, 1, 3).flatten(2)
            read = torch.cat([read, columns], dim=2)
        painted = self.paint(self.lstm(read)[0]).unflatten(2, (HEIGHT, GROUP))  # (N, steps, HEIGHT, GROUP)
        layers = [painted.permute(0, 2, 1, 3).flatten(2)] + [ink] * self.direct
        return -self.finish(torch.stack(layers, dim=1))[:, 0]


class ConvolutionalRestorer(nn.Module):
    """The paper's baseline: convolutions down to an eighth of the height, and up again."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.Sequential(
            conv(1, channels // 2, 2),
            conv(channels // 2, channels, 2),
            conv(channels, channels),
            conv(channels, channels),
        )
        self.up = nn.Sequential(
            conv(channels, channels), nn.Conv2d(channels, 16, 3, padding=1), nn.PixelShuffle(4)
        )

    def forward(self, damaged: Tensor) -> Tensor:
        """Map damaged images (N, HEIGHT, WIDTH) to the logits of restored ones."""
        return -self.up(self.down(1 - damaged[:, None]))[:, 0]


def psnr(images: Tensor, clean: Tensor) -> float:
    """Return the mean peak signal-to-noise ratio in decibels; white is 1."""
    return float((-10 * (images - clean).square().mean((1, 2)).log10()).mean())


def to_pixels(image: Tensor) -> np.ndarray:
    """Return an image (H, W) as uint8."""
    return (255 * image.clamp(0, 1)).round().byte().numpy()


def filtered(damaged: Tensor, kind: ImageFilter.Filter) -> Tensor:
    """Return the images after a filter of Pillow."""
    return _tensor([np.asarray(Image.fromarray(to_pixels(each)).filter(kind)) / 255 for each in damaged])


@torch.no_grad()
def restored(model: nn.Module, damaged: Tensor) -> Tensor:
    """Return the images that a model restores."""
    return torch.cat([model(each).float().sigmoid() for each in damaged.split(64)])


@dataclass
class Outcome:
    """Restored images of one way, and what they score."""

    name: str
    images: Tensor
    psnr: float
    read: float
    parameters: int | None = None


def judge(clean: Tensor, texts: list[str]) -> Callable[..., Outcome]:
    """Return a function that scores images by their PSNR and by the recognizer's exact matches."""
    recognizer = Recognizer.load("formula")

    def score(name: str, images: Tensor, parameters: int | None = None) -> Outcome:
        readings = recognizer.read([to_pixels(each) for each in images])
        right = sum(reading.text == text for reading, text in zip(readings, texts, strict=True))
        return Outcome(name, images, psnr(images, clean), right / len(texts), parameters)

    return score


def sheet(outcomes: list[Outcome], texts: list[str], count: int = 6) -> Figure:
    """Draw the first images of each way in a row."""
    rows = [
        [
            Titled(to_pixels(image), text if n == 0 else "")
            for image, text in zip(outcome.images[:count], texts)
        ]
        for n, outcome in enumerate(outcomes)
    ]
    return grid(
        rows, [outcome.name.replace(", ", ",\n").replace("al enc", "al\nenc") for outcome in outcomes]
    )


def main(full: bool, out: Path, seed: int, steps: int | None) -> None:
    """Train the networks, print a table, and write the result and a sheet of images."""
    size = FULL if full else Size()
    steps = steps or size.steps
    size = replace(size, steps=steps, images=min(size.images, steps * size.batch))
    torch.manual_seed(seed)
    train_clean, train_damaged, _ = draw(size.images, seed + 1)
    clean, damaged, texts = draw(size.tests, seed + 2)
    score = judge(clean, texts)
    filters = {
        "median filter": [ImageFilter.MedianFilter(pixels) for pixels in (3, 5, 7)],
        "Gaussian filter": [ImageFilter.GaussianBlur(pixels) for pixels in (1.5, 2.0, 2.5, 3.0)],
    }
    best = {
        name: max((filtered(damaged, kind) for kind in kinds), key=lambda images: psnr(images, clean))
        for name, kinds in filters.items()
    }
    outcomes = [score("clean", clean), score("damaged", damaged), *itertools.starmap(score, best.items())]
    networks = {
        "convolutional encoder-decoder": ConvolutionalRestorer(48),
        "LSTM decoder, vector only": Restorer(size.hidden, direct=False),
        "LSTM decoder, direct attention": Restorer(size.hidden),
    }
    for name, network in networks.items():

        def batch_loss(network: nn.Module = network) -> Tensor:
            chosen = torch.randint(size.images, (size.batch,))
            return F.mse_loss(network(train_damaged[chosen]).float().sigmoid(), train_clean[chosen])

        train(network, batch_loss, size.steps, name=name)
        parameters = sum(p.numel() for p in network.parameters())
        outcomes.append(score(name, restored(network, damaged), parameters))
    print_table(
        [("", "PSNR", "read without mistake", "parameters")]
        + [(o.name, f"{o.psnr:.1f} dB", o.read, o.parameters or "") for o in outcomes]
    )
    result = {o.name: {"psnr": o.psnr, "read": o.read, "parameters": o.parameters} for o in outcomes}
    save(out, {"size": asdict(size), "seed": seed, "outcomes": result}, sheet=sheet(outcomes, texts))


if __name__ == "__main__":
    main(**vars(parser.parse_args()))
