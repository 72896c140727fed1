"""The images of a training run: drawn or read, checked, and parted into training and evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from fastctc.crnn.data.batches import check_samples, split_holdout
from fastctc.crnn.data.cache import Collected, cached
from fastctc.crnn.data.collect import Problem, Samples, collect
from fastctc.crnn.data.preprocess import ImageLike, PreprocessConfig
from fastctc.crnn.data.readers import LabelError, Source, open_source
from fastctc.crnn.train.config import TrainConfig, model_config
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
            samples, problems = self._read(config.data, preprocess)
            alphabet = Alphabet(config.characters or "".join(sorted(set("".join(samples.texts)))) or "?")
            usable, unusable = check_samples(samples, alphabet, model_config(config, alphabet).frames)
            training, unseen = split_holdout(usable, config.seed, config.eval_images)
        else:
            from fastctc.crnn.formulas.grammar import CHARACTERS

            alphabet = Alphabet(config.characters or CHARACTERS)
            samples, problems = self._draw_round(config, number, preprocess)
            indices = range(FIRST_UNSEEN, FIRST_UNSEEN + config.eval_images)
            unseen, _ = self._draw("drawing unseen", config, "captcha", indices, preprocess, None)
            training, unusable = check_samples(samples, alphabet, model_config(config, alphabet).frames)
            config = replace(config, images=len(samples) + len(problems))
        return TrainingData(training, unseen, alphabet, preprocess, problems + unusable), config

    def draw(self, config: TrainConfig, number: int, preprocess: PreprocessConfig) -> Samples:
        """The training images of a later round."""
        return self._draw_round(config, number, preprocess)[0]

    def _draw_round(self, config: TrainConfig, number: int, preprocess: PreprocessConfig) -> Collected:
        """The images of a round: as many as are named, or fit into a share of the minutes."""
        seconds = None if config.images else 60 * DRAWING_SHARE * (config.minutes or 0)
        count = config.images or MAX_DRAWN
        indices = range(number * count, (number + 1) * count)
        return self._draw("drawing", config, config.renderer, indices, preprocess, seconds)

    def _draw(
        self, what: str, config: TrainConfig, renderer: str, indices: range, preprocess: PreprocessConfig,
        seconds: float | None,
    ) -> Collected:  # fmt: skip
        source = formula_source(config, renderer=renderer)

        def make() -> Collected:
            with self._bar(None if seconds else len(indices), what) as bar:
                return collect(
                    source, indices, preprocess,
                    workers=self.workers, seconds=seconds, on_progress=bar.update,
                )  # fmt: skip

        key = {"drawn": repr(source), "first": indices[0], "count": len(indices), "seconds": seconds}
        return self._kept(key, preprocess, make)

    def _read(self, data: str, preprocess: PreprocessConfig) -> Collected:
        source = open_source(data)

        def make() -> Collected:
            with self._bar(len(source), "reading") as bar:
                return collect(
                    source, range(len(source)), preprocess, workers=self.workers if len(source) > 2_000 else 0,
                    name=source.name, on_progress=bar.update,
                )  # fmt: skip

        return self._kept({"read": source.key()} if self.cache else {}, preprocess, make)

    def _kept(
        self, key: dict[str, Any], preprocess: PreprocessConfig, make: Callable[[], Collected]
    ) -> Collected:
        """What ``make`` returns, from the cache if there is one; LabelError if no sample could be read."""
        if self.cache is None:
            samples, problems = make()
        else:
            samples, problems = cached(self.cache, key | {"preprocess": asdict(preprocess)}, make)
        if problems and not samples:
            raise LabelError(f"none of {len(problems)} samples can be read; the first: {problems[0]}")
        return samples, problems

    def _bar(self, total: int | None, what: str) -> Any:
        return tqdm(total=total, desc=what, unit="img", disable=None if self.show_progress else True)


def round_of(config: TrainConfig, step: int) -> int:
    """Which set of drawn images a step is trained on."""
    return min(step * config.rounds // config.steps, config.rounds - 1) if config.steps else 0


def formula_source(config: TrainConfig, *, renderer: str | None = None, grey: bool = True) -> Source:
    """The series of drawn formulas that a configuration names, or the same by another renderer."""
    from fastctc.crnn.formulas.drawing import FormulaSource
    from fastctc.crnn.formulas.fonts import find_fonts

    settings: dict[str, Any] = {"look": config.look, "value": config.value, "seed": config.seed}
    captcha = FormulaSource(renderer="captcha", grey=grey, contest_share=config.contest_share, **settings)
    glyphs = replace(
        captcha, renderer="glyphs", variants=config.glyph_variants, varied=config.glyph_varied,
        fonts=find_fonts(packages=True) if config.glyph_fonts == "packages" else None,
    )  # fmt: skip
    mixed = _Mixture(captcha, glyphs, config.captcha_share)
    sources: dict[str, Source] = {"captcha": captcha, "glyphs": glyphs, "mixed": mixed}
    return sources[renderer or config.renderer]


@dataclass(frozen=True)
class _Mixture:
    """Two series of images interleaved: an evenly spread share of the first, the rest of the second."""

    first: Source
    second: Source
    share: float

    def __call__(self, index: int) -> tuple[ImageLike, str]:
        golden = 0.6180339887498949  # its multiples fill the unit interval evenly
        return (self.first if index * golden % 1 < self.share else self.second)(index)
