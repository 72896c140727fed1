"""Two classes of photographs: a pretrained network as feature extractor, fine-tuned, and as a finder of outliers.

The images are handwritten digits on photographs, both from scikit-learn. "Cats" are the digits with straight
strokes alone (1, 4, 7), "dogs" the digits with round strokes alone (0, 3, 6, 8). Outliers are other digits and
photographs without a digit. The pretrained network was trained on other images of all ten digits and of none.

With --photos, the images are your photographs of cats and dogs, and the pretrained network is one of timm.

The score is the log-loss, with predictions as they are and clipped to [0.005, 0.995].
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiment import chosen_size, make_parser, print_table, save, train
from matplotlib.figure import Figure
from photographs import SPECIES, Photographs, TimmNetwork, find_photographs
from scenes import BREEDS, CATS, DOGS, Scenes, SmallNetwork
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, cross_entropy

from fastctc.figures import COLORS, drawing_style, new_figure

CLIP = (0.005, 0.995)
SMALLEST = 1e-15  # Kaggle clips here, because ln 0 is infinite


@dataclass(frozen=True)
class Size:
    """The size of an experiment."""

    pretraining: int = 6000  # images
    training: int = 300
    test: int = 1000
    outliers: float = 0.05  # share of the images for training and test
    pretraining_steps: int = 500
    steps: int = 120


FULL = Size(pretraining=20_000, test=4000, pretraining_steps=1400, steps=250)

parser = make_parser(__file__, __doc__, "--full --out runs/cats_and_dogs", "--photos data/dogs-vs-cats/train")
parser.add_argument(
    "--photos", type=Path, metavar="FOLDER", help="photographs such as cat.0.jpg and dog.0.jpg"
)
parser.add_argument("--network", default="resnet18", metavar="NAME", help="of timm (default: %(default)s)")
parser.add_argument("--steps", type=int, help="of training and of fine-tuning")


@dataclass(frozen=True)
class Task:
    """Images of two classes, and a network that was trained on other images.

    Attributes:
        training, test: with ``images``, ``is_dog``, ``is_outlier`` and ``inputs(indices)``.
        pretrained: its classes are breeds; it has the parts ``features`` and ``classify``.
        fresh: returns an untrained network of the same kind with two classes.
        species: the classes of ``pretrained`` that are cats or dogs.
        tops: values of N. An image is an outlier if none of its N most probable classes is in ``species``.
    """

    training: Any
    test: Any
    pretrained: nn.Module
    fresh: Callable[[], nn.Module]
    species: tuple[int, ...]
    tops: tuple[int, ...]


def drawn(size: Size, seed: int) -> Task:
    """Return the task with drawn images; its network is pretrained here."""
    earlier = Scenes("pretraining", size.pretraining, None, seed)
    training = Scenes("training", size.training, size.outliers, seed + 1)
    test = Scenes("test", size.test, size.outliers, seed + 2)
    torch.manual_seed(seed)
    network, everything = SmallNetwork(BREEDS), torch.arange(size.pretraining)
    fit(network, earlier, earlier.breeds, everything, size.pretraining_steps, 3e-3, "pretraining")
    return Task(training, test, network, partial(SmallNetwork, 2), CATS + DOGS, (1, 2, 3))


def photographed(folder: Path, name: str, size: Size, seed: int) -> Task:
    """Return the task with photographs and a pretrained network of timm."""
    network = TimmNetwork(name, None, pretrained=True).eval()
    paths = find_photographs(folder, size.training + size.test, seed)
    training, test = (Photographs(part) for part in (paths[: size.training], paths[size.training :]))
    return Task(training, test, network, partial(TimmNetwork, name, 2, False), SPECIES, (10, 20, 30))


def fit(
    network: nn.Module, data: Any, targets: Tensor, rows: Tensor, steps: int, max_lr: float, name: str
) -> None:
    """Train a network on some rows of the data, whose images are shifted and brightened at random."""
    generator = torch.Generator().manual_seed(0)

    def batch_loss() -> Tensor:
        chosen = rows[torch.randint(len(rows), (48,), generator=generator)]
        images, far = data.inputs(chosen), data.images.shape[-1] // 10
        shift = torch.randint(-far, far + 1, (2,), generator=generator).tolist()
        images = images.roll(shift, (2, 3)) + 0.5 * torch.randn(48, 1, 1, 1, generator=generator)
        return cross_entropy(network(images), targets[chosen])

    train(network, batch_loss, steps, max_lr=max_lr, name=name)


@torch.no_grad()
def apply(network: nn.Module, data: Any) -> Tensor:
    """Return the outputs of a network in evaluation mode for all images."""
    batches = torch.arange(len(data.images)).split(200)
    return torch.cat([network(data.inputs(indices)) for indices in batches])


def find_outliers(task: Task, top: int) -> Tensor:
    """Return (N) bool: training images without a cat or a dog among the most probable classes."""
    likely = apply(task.pretrained, task.training).topk(top).indices
    return ~torch.isin(likely, torch.tensor(task.species)).any(1)


def losses(is_dog: Tensor, dog: np.ndarray) -> dict[str, float]:
    """Return accuracy and log-loss of the probabilities of a dog, as they are and clipped."""
    right = is_dog.numpy()
    return {
        "accuracy": float(((dog > 0.5) == right).mean()),
        "log_loss": float(log_loss(right, dog.clip(SMALLEST, 1 - SMALLEST), labels=[False, True])),
        "clipped_log_loss": float(log_loss(right, dog.clip(*CLIP), labels=[False, True])),
    }


def compare(task: Task, rows: Tensor, steps: int, seed: int) -> dict[str, np.ndarray]:
    """Return the probability of a dog in each test image, by each method, after training on some rows."""
    training, test = task.training, task.test

    def classic(model: object, features: Callable[[Any], Tensor]) -> np.ndarray:
        fitted = make_pipeline(StandardScaler(), model).fit(features(training)[rows], training.is_dog[rows])
        return np.asarray(fitted.predict_proba(features(test))[:, 1], np.float64)

    def neural(network: nn.Module, max_lr: float, name: str) -> np.ndarray:
        fit(network, training, training.is_dog.long(), rows, steps, max_lr, name)
        return apply(network, test).double().softmax(1)[:, 1].numpy()

    def pixels(data: Any) -> Tensor:
        return adaptive_avg_pool2d(data.images.float(), 32).flatten(1)

    extract = partial(apply, task.pretrained.features)
    support = CalibratedClassifierCV(SVC(), ensemble=False)
    found = {
        "kNN on pixels": classic(KNeighborsClassifier(5), pixels),
        "SVM on pixels": classic(support, pixels),
    }
    torch.manual_seed(seed)
    found["network from scratch"] = neural(task.fresh(), 3e-3, "from scratch")
    found["extracted features, SVM"] = classic(support, extract)
    softmax = LogisticRegression(C=0.1, max_iter=1000).fit(extract(training)[rows], training.is_dog[rows])
    found["extracted features, softmax"] = np.asarray(softmax.predict_proba(extract(test))[:, 1], np.float64)
    tuned = task.fresh()
    tuned.features.load_state_dict(task.pretrained.features.state_dict())
    with torch.no_grad():  # starts from the softmax, so that its first steps do not spoil the features
        tuned.classify.weight.copy_(torch.from_numpy(softmax.coef_) * torch.tensor([[-0.5], [0.5]]))
        tuned.classify.bias.copy_(float(softmax.intercept_[0]) * torch.tensor([-0.5, 0.5]))
    found["fine-tuned network"] = neural(tuned, 3e-4, "fine-tuned")
    return found


def plot_losses(scores: dict[str, dict[str, float]]) -> Figure:
    """Draw the loss of one image by its prediction, and the log-loss of each method with and without the clip."""
    with drawing_style():
        figure = new_figure(7.5, 3.0)
        left, right = figure.subplots(1, 2)
        dog = np.concatenate([np.geomspace(1e-6, 0.5, 200), 1 - np.geomspace(0.5, 1e-6, 200)])
        logit = np.log10(dog / (1 - dog))
        left.plot(logit, -np.log(dog), color=COLORS[0], label="it is a dog")
        left.plot(logit, -np.log(1 - dog), color=COLORS[1], label="it is a cat")
        ends = np.log10(np.array(CLIP) / (1 - np.array(CLIP)))
        left.axvspan(*ends, color=COLORS[2], alpha=0.12, label="clipped range")
        ticks = np.array([1e-6, 0.0001, 0.005, 0.5, 0.995, 0.9999, 1 - 1e-6])
        left.set_xticks(np.log10(ticks / (1 - ticks)), [f"{tick:g}" for tick in ticks], rotation=45)
        left.set_xlabel("predicted probability of a dog")
        left.set_ylabel("loss of the image")
        left.set_ylim(0, 18)
        left.legend(frameon=False, fontsize=7, loc="upper center", ncols=3, columnspacing=1, handlelength=1)
        places = np.arange(len(scores))
        for shift, key, label in ((-0.2, "log_loss", "as predicted"), (0.2, "clipped_log_loss", "clipped")):
            color = COLORS[0] if shift < 0 else COLORS[2]
            right.barh(
                places + shift, [each[key] for each in scores.values()], 0.38, color=color, label=label
            )
        right.set_yticks(places, list(scores))
        right.invert_yaxis()
        right.set_xlabel("log-loss of the test images")
        right.legend(frameon=False, fontsize=7)
    return figure


def plot_images(data: Any, found: Tensor, columns: int = 10) -> Figure:
    """Draw cats, dogs, and the images that were found to be outliers; a wrongly found one is marked."""
    usual = ~data.is_outlier
    rows = {
        "cats": (usual & ~data.is_dog).nonzero()[:columns, 0],
        "dogs": (usual & data.is_dog).nonzero()[:columns, 0],
        "outliers found": found.nonzero()[:columns, 0],
        "outliers missed": (data.is_outlier & ~found).nonzero()[:columns, 0],
    }
    with drawing_style():
        figure = new_figure(7.0, 3.4)
        grid = figure.subplots(len(rows), columns)
        for axes in grid.flat:
            axes.axis("off")
        for row, (name, indices) in zip(grid, rows.items()):
            row[0].set_title(name, loc="left", fontsize=8)
            for axes, index in zip(row, indices.tolist()):
                axes.imshow(data.images[index].permute(1, 2, 0))
                if found[index] and usual[index]:
                    axes.text(
                        0.5,
                        -0.05,
                        "a usual image",
                        transform=axes.transAxes,
                        ha="center",
                        va="top",
                        fontsize=5,
                    )
    return figure


def main() -> None:
    """Find outliers, compare the methods, and clip their predictions."""
    options = parser.parse_args()
    size = chosen_size(options, Size(), FULL)
    seed = options.seed
    task = photographed(options.photos, options.network, size, seed) if options.photos else drawn(size, seed)
    training = task.training
    outliers = {}
    for top in task.tops:
        flagged = find_outliers(task, top)
        right = int((flagged & training.is_outlier).sum())
        outliers[f"top {top}"] = {"found": right, "wrong": int(flagged.sum()) - right}
    planted = int(training.is_outlier.sum())
    print_table([(f"{planted} outliers planted", "found", "usual images found"),
                 *((name, each["found"], each["wrong"]) for name, each in outliers.items())])  # fmt: skip
    flagged = find_outliers(task, task.tops[0])
    predictions = compare(task, (~flagged).nonzero()[:, 0], size.steps, seed)
    scores = {name: losses(task.test.is_dog, dog) for name, dog in predictions.items()}
    print_table(
        [("", "accuracy", "log-loss", "clipped")]
        + [(name, each["accuracy"], f"{each['log_loss']:.3f}", f"{each['clipped_log_loss']:.3f}")
           for name, each in scores.items()]
    )  # fmt: skip
    result = {"seed": seed, "size": asdict(size), "planted": planted, "outliers": outliers, "methods": scores}
    save(options.out, result, losses=plot_losses(scores), images=plot_images(training, flagged))


if __name__ == "__main__":
    main()
