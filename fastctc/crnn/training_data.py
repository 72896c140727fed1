"""The images of a training run: drawn or read, checked, and parted into training and evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from fastctc.crnn.batches import check_samples, split_holdout
from fastctc.crnn.cache import cached
from fastctc.crnn.collect import Problem, Samples, collect
from fastctc.crnn.preprocess import ImageLike, PreprocessConfig
from fastctc.crnn.readers import FolderSource, Source
from fastctc.crnn.recipe import TrainConfig, model_config
from fastctc.text import Alphabet

# Evaluation images of a drawn series start at this index, beyond any training image.
FIRST_UNSEEN = 1_000_000_000
DRAWING_SHARE = 0.2  # of a budget of minutes, if the number of images is left open
MAX_DRAWN = 200_000  # in memory 12 kB each, if their number is left open


class TrainingData(NamedTuple):
    """What a run trains on and is judged by."""

    train: Samples
    unseen: Samples
    alphabet: Alphabet
    preprocess: PreprocessConfig
    problems: list[Problem]


@dataclass(frozen=True)
class Loader:
    """How images are drawn and read; no influence on what they are.

    Attributes:
        workers: processes that draw; 0 draws in this one.
        show_progress: a progress bar on stderr, if that is a terminal.
        cache: folder in which the preprocessed images are kept; None: in memory only.
    """

    workers: int = 0
    show_progress: bool = False
    cache: Path | None = None

    def load(self, config: TrainConfig, number: int) -> tuple[TrainingData, TrainConfig]:
        """Draws or reads the samples of a round and checks them; the recipe returned says how many.

        Raises:
            LabelError: the data cannot be used.
        """
        preprocess = config.preprocess()
        if config.data is not None:
            samples, problems = self._read_folder(config.data, preprocess)
            alphabet = Alphabet(config.characters or "".join(sorted(set("".join(samples.texts)))) or "?")
            usable, unusable = check_samples(samples, alphabet, model_config(config, alphabet).frames)
            training, unseen = split_holdout(usable, config.seed, config.eval_images)
            problems = problems + unusable
        else:
            from fastctc.crnn.formulas import CHARACTERS

            alphabet = Alphabet(config.characters or CHARACTERS)
            training = self.draw(config, number, preprocess)
            unseen = self._draw_unseen(config, preprocess)
            training, problems = check_samples(training, alphabet, model_config(config, alphabet).frames)
            config = replace(config, images=len(training) + len(problems))
        return TrainingData(training, unseen, alphabet, preprocess, problems), config

    def draw(self, config: TrainConfig, number: int, preprocess: PreprocessConfig) -> Samples:
        """The training images of a round: as many as are named, or fit into a share of the minutes."""
        seconds = None if config.images else 60 * DRAWING_SHARE * (config.minutes or 0)
        count = config.images or MAX_DRAWN
        indices = range(number * count, (number + 1) * count)
        return self._draw("drawing", config, config.renderer, indices, preprocess, seconds)

    def _draw_unseen(self, config: TrainConfig, preprocess: PreprocessConfig) -> Samples:
        """Evaluation images of the same look that are never trained on, drawn by the ``captcha`` package."""
        indices = range(FIRST_UNSEEN, FIRST_UNSEEN + config.eval_images)
        return self._draw("drawing unseen", config, "captcha", indices, preprocess, None)

    def _draw(
        self, what: str, config: TrainConfig, renderer: str, indices: range, preprocess: PreprocessConfig,
        seconds: float | None,
    ) -> Samples:  # fmt: skip
        def make() -> tuple[Samples, list[Problem]]:
            with self._bar(None if seconds else len(indices), what) as bar:
                return collect(
                    formula_source(config, renderer=renderer), indices, preprocess,
                    workers=self.workers, seconds=seconds, on_progress=bar.update,
                )  # fmt: skip

        names = ("look", "value", "contest_share", "glyph_variants", "captcha_share", "seed")
        key = {name: getattr(config, name) for name in names}
        key |= {"renderer": renderer, "first": indices.start, "count": len(indices), "seconds": seconds}
        return self._kept(key, preprocess, make)[0]

    def _read_folder(self, folder: str, preprocess: PreprocessConfig) -> tuple[Samples, list[Problem]]:
        source = FolderSource(folder)

        def make() -> tuple[Samples, list[Problem]]:
            with self._bar(len(source), "reading") as bar:
                return collect(
                    source, range(len(source)), preprocess, workers=self.workers if len(source) > 2_000 else 0,
                    name=source.name, on_progress=bar.update,
                )  # fmt: skip

        if self.cache is None:
            return make()
        key = {"folder": str(source.folder.resolve()), "entries": source.entries}
        return self._kept(key | {"files": _file_stamps(source)}, preprocess, make)

    def _kept(
        self,
        key: dict[str, Any],
        preprocess: PreprocessConfig,
        make: Callable[[], tuple[Samples, list[Problem]]],
    ) -> tuple[Samples, list[Problem]]:
        import fastctc

        if self.cache is None:
            return make()
        return cached(self.cache, key | {"preprocess": asdict(preprocess), "by": fastctc.__version__}, make)

    def _bar(self, total: int | None, what: str) -> Any:
        return tqdm(total=total, desc=what, unit="img", disable=None if self.show_progress else True)


def round_of(config: TrainConfig, step: int) -> int:
    """Which set of drawn images a step is trained on."""
    return min(step * config.rounds // config.steps, config.rounds - 1) if config.steps else 0


def formula_source(config: TrainConfig, *, renderer: str | None = None, grey: bool = True) -> Source:
    """The series of drawn formulas that a configuration names, or the same by another renderer."""
    from fastctc.crnn.drawing import FormulaSource

    renderer = renderer or config.renderer
    settings: dict[str, Any] = {
        "look": config.look, "value": config.value, "seed": config.seed, "grey": grey,
        "contest_share": config.contest_share, "variants": config.glyph_variants,
    }  # fmt: skip
    if renderer == "mixed":
        captcha = FormulaSource(renderer="captcha", **settings)
        return _Mixture(captcha, FormulaSource(renderer="glyphs", **settings), config.captcha_share)
    settings["renderer"] = renderer
    return FormulaSource(**settings)


@dataclass(frozen=True)
class _Mixture:
    """Two series of images interleaved: an evenly spread share of the first, the rest of the second."""

    first: Source
    second: Source
    share: float

    def __call__(self, index: int) -> tuple[ImageLike, str]:
        golden = 0.6180339887498949  # its multiples fill the unit interval evenly
        return (self.first if index * golden % 1 < self.share else self.second)(index)


def _file_stamps(source: FolderSource) -> list[tuple[int, int] | None]:
    """Size and time of change of each image file; None where there is none."""
    stamps: list[tuple[int, int] | None] = []
    for index in range(len(source)):
        path, _ = source(index)
        try:
            status = path.stat()
        except OSError:
            stamps.append(None)
        else:
            stamps.append((status.st_size, status.st_mtime_ns))
    return stamps
