"""Images of handwritten digits on parts of photographs, both from scikit-learn: the drawn cats and dogs."""

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images
from torch import Tensor, nn

CATS, DOGS, OTHERS, NOTHING = (1, 4, 7), (0, 3, 6, 8), (2, 5, 9, 10), 10
BREEDS = 11  # ten digits, and none
SIDE = 32  # rows and columns of an image
PARTS = {"pretraining": (0, 1000), "training": (1000, 1300), "test": (1300, 1797)}  # of the 1,797 digits


class Scenes:
    """Images of digits on photographs.

    Attributes:
        images: (N, 3, H, W) uint8.
        breeds: (N) int64: digits, or 10 for none.
        is_dog: (N) bool; at random for an outlier.
        is_outlier: (N) bool.

    Args:
        part: ``"pretraining"``, ``"training"`` or ``"test"``; their digits differ
        count: number of images.
        outliers: share of outliers; None: all breeds are equally likely.
        seed: of the random numbers.
    """

    def __init__(self, part: str, count: int, outliers: float | None, seed: int) -> None:
        rng = np.random.default_rng(seed)
        digits, (first, end) = load_digits(), PARTS[part]
        photos = [each[:, 330:] if part == "test" else each[:, :310] for each in load_sample_images().images]
        if outliers is None:
            breeds = rng.integers(0, BREEDS, count)
        else:
            usual = np.where(rng.random(count) < 0.5, rng.choice(CATS, count), rng.choice(DOGS, count))
            breeds = np.where(rng.random(count) < outliers, rng.choice(OTHERS, count), usual)
        is_outlier = np.isin(breeds, OTHERS)
        self.breeds, self.is_outlier = torch.from_numpy(breeds), torch.from_numpy(is_outlier)
        self.is_dog = torch.from_numpy(np.where(is_outlier, rng.random(count) < 0.5, np.isin(breeds, DOGS)))
        sources = [digits.images[first:end][digits.target[first:end] == digit] for digit in range(10)]
        images = []
        for breed in breeds.tolist():
            digit = None if breed == NOTHING else rng.choice(sources[breed])
            images.append(draw(digit, photos[int(rng.integers(len(photos)))], rng))
        self.images = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)

    def inputs(self, indices: Tensor) -> Tensor:
        """Return images (N, 3, H, W) float32 around 0."""
        return self.images[indices].float() / 64 - 2


def draw(digit: np.ndarray | None, photo: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a part of a photograph (H, W, 3) uint8, with a digit in a color that differs from it."""
    y, x = (int(rng.integers(0, n - SIDE)) for n in photo.shape[:2])
    scene = photo[y : y + SIDE, x : x + SIDE].astype(np.float32)
    if digit is not None:
        width = int(rng.integers(16, 29))
        ink = Image.fromarray((digit * 15).astype(np.uint8)).resize((width, width), Image.Resampling.BICUBIC)
        page = Image.new("L", (SIDE, SIDE))
        page.paste(ink.rotate(rng.uniform(-15, 15)), tuple(rng.integers(-2, SIDE - width + 3, 2).tolist()))
        share = np.asarray(page, np.float32)[..., None] / 255
        color = rng.uniform(0, 90, 3) + (165 if scene.mean() < 128 else 0)
        scene = scene * (1 - share) + color * share
    return (scene + rng.normal(0, 8, scene.shape)).clip(0, 255).astype(np.uint8)


class SmallNetwork(nn.Module):
    """A small CNN: features, and a linear layer for the classes."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, 24), (24, 48), (48, 64)):
            layers += [
                nn.Conv2d(inputs, outputs, 3, padding=1),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
        self.features = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * (SIDE // 8) ** 2, 128), nn.ReLU())
        self.classify = nn.Linear(128, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 3, H, W) to logits (N, classes)."""
        return self.classify(self.features(images))
