"""Photographs of cats and dogs in a folder, and networks of timm with their weights for ImageNet."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

SPECIES = (*range(281, 289), *range(151, 269))  # of ImageNet's 1,000 classes: 8 cats, 118 dogs
SIDE = 224
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


class Photographs:
    """Photographs whose file names start with ``cat`` or ``dog``, as Kaggle's.

    Attributes:
        images: (N, 3, H, W) uint8, the middle of each photograph.
        is_dog: (N) bool.
        is_outlier: (N) bool, all False: nobody has planted one.

    Raises:
        ValueError: the folder has not both cats and dogs.
    """

    def __init__(self, paths: list[Path]) -> None:
        self.is_dog = torch.tensor([path.name.lower().startswith("dog") for path in paths])
        if not 0 < int(self.is_dog.sum()) < len(paths):
            raise ValueError(
                f"{len(paths)} photographs have {int(self.is_dog.sum())} dogs, expected cats and dogs"
            )
        self.is_outlier = torch.zeros(len(paths), dtype=torch.bool)
        self.images = torch.from_numpy(np.stack([load(path) for path in paths])).permute(0, 3, 1, 2)

    def inputs(self, indices: Tensor) -> Tensor:
        """Return images (N, 3, H, W) float32, normalized as for ImageNet."""
        mean, deviation = (torch.tensor(each)[:, None, None] for each in (MEAN, DEVIATION))
        return (self.images[indices].float() / 255 - mean) / deviation


def load(path: Path) -> np.ndarray:
    """Return the middle of a photograph (H, W, 3) uint8, upright."""
    with Image.open(path) as file:
        photo = ImageOps.exif_transpose(file).convert("RGB")
    return np.asarray(ImageOps.fit(photo, (SIDE, SIDE), Image.Resampling.BICUBIC))


def find_photographs(folder: Path, count: int, seed: int) -> list[Path]:
    """Return at most ``count`` photographs of cats and dogs in a folder, in random order.

    Raises:
        ValueError: there is none.
    """
    kinds = (".jpg", ".jpeg", ".png")
    named = [each for each in sorted(folder.rglob("*")) if each.name.lower().startswith(("cat", "dog"))]
    paths = [each for each in named if each.suffix.lower() in kinds]
    if not paths:
        raise ValueError(f"{folder} has no photograph, expected files such as cat.0.jpg and dog.0.jpg")
    order = np.random.default_rng(seed).permutation(len(paths))
    return [paths[i] for i in order[:count]]


class TimmNetwork(nn.Module):
    """A network of timm: features, and a linear layer for the classes.

    Args:
        name: of the network, such as ``"resnet18"``.
        classes: number of classes; None: ImageNet's, with the layer that timm has for them.
        pretrained: with weights for ImageNet, which timm downloads; else random weights.

    Raises:
        ModuleNotFoundError: timm is not installed.
    """

    def __init__(self, name: str, classes: int | None, pretrained: bool) -> None:
        super().__init__()
        try:
            import timm
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("photographs need timm: pip install timm") from error
        self.features = timm.create_model(name, pretrained=pretrained)
        self.classify = self.features.get_classifier()
        self.features.reset_classifier(0)
        if classes is not None:
            self.classify = nn.Linear(self.features.num_features, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 3, H, W) to logits (N, classes)."""
        return self.classify(self.features(images))
