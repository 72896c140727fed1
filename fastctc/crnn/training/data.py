"""The images of a training run: drawn or read, checked, and split into training and evaluation."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from fastctc.crnn.data import (
    Collected,
    FolderInUseError,
    KeyedSource,
    LabelError,
    PreprocessConfig,
    Problem,
    Samples,
    cached,
    check_samples,
    collect,
    collect_all,
    direction_for,
    direction_of,
    make_alphabet,
    open_source,
    progress,
    split_holdout,
    with_mirrored,
)
from fastctc.crnn.training.config import TrainConfig, model_config
from fastctc.text import Alphabet

# Evaluation images of a drawn series start at this index, beyond any training image.
FIRST_UNSEEN = 1_000_000_000
DRAWING_SHARE = 0.2  # of a budget of minutes, if the number of images is left open
MAX_DRAWN = 200_000  # in memory 12 kB each, if their number is left open


log = logging.getLogger(__name__)


class TrainingData(NamedTuple):
    """Samples to train on, samples to evaluate, and the problems of the others."""

    train: Samples
    unseen: Samples
    alphabet: Alphabet
    preprocess: PreprocessConfig
    problems: list[Problem]


def usable_samples(
    config: TrainConfig, samples: Samples, start: Alphabet | None = None
) -> tuple[Alphabet, Samples, list[Problem]]:
    """Return the alphabet of a recipe's model, the samples it can learn from, and the problems of the others.

    Args:
        config: the recipe.
        samples: images and texts.
        start: alphabet of the checkpoint that the run starts from; None: there is none.

    Raises:
        LabelError: no sample is usable.
    """
    drawn = "" if config.draw is None else config.draw.characters
    wanted = config.characters or drawn or "".join(sorted(set("".join(samples.texts))))
    if start is not None and not config.characters:
        wanted = start.characters + "".join(c for c in wanted if c not in start.characters)
    direction = direction_for(samples.texts, config.labels.direction)
    if start is not None and config.labels.direction == "auto":
        direction = direction_of(start) or direction
    if direction is not None:
        wanted = with_mirrored(wanted)
    alphabet = make_alphabet(wanted or "?", direction=direction)
    return alphabet, *check_samples(samples, alphabet, model_config(config, alphabet).frames)


def _check_share(least: float, usable: Samples, problems: list[Problem]) -> None:
    """Raise LabelError if less than a share of the samples is usable: then the settings are likely wrong."""
    count = len(usable) + len(problems)
    if len(usable) < least * count:
        raise LabelError(
            f"only {len(usable)} of {count} samples can be used, less than min_usable, {least:g}; the first of the"
            f" others: {problems[0]}"
        )


@dataclass(frozen=True)
class Loader:
    """How images are drawn and read; the settings do not change the images.

    Attributes:
        workers: processes that draw; 0 draws in this one; None: one for each CPU if they are worth it.
        show_progress: a progress bar on stderr, if that is a terminal.
        cache: folder in which the preprocessed images are kept; None: in memory only.
    """

    workers: int | None = 0
    show_progress: bool = False
    cache: Path | None = None

    def load(
        self, config: TrainConfig, number: int, start: Alphabet | None = None
    ) -> tuple[TrainingData, TrainConfig]:
        """Draw or read the samples of a round and check them.

        Args:
            config: the recipe.
            number: the round.
            start: alphabet of the checkpoint that the run starts from; None: there is none.

        Returns:
            The data, and the recipe with the alphabet, the direction and the number of drawn images.

        Raises:
            LabelError: the data cannot be used.
        """
        preprocess = config.preprocess
        if config.data is not None:
            samples, problems = self._read(config.data, config)
        else:
            assert config.draw is not None, "a recipe has data or draw"
            samples, problems = self._draw_round(config, number)
            config = replace(config, draw=replace(config.draw, images=len(samples) + len(problems)))
        alphabet, usable, unusable = usable_samples(config, samples, start)
        most, training = config.schedule.eval_images, usable
        if config.val is not None:
            unseen, unread = self._read(config.val, config)
            unseen, problems = unseen.sampled(most, config.seed), problems + unread
        elif config.data is not None:
            training, unseen = split_holdout(usable, config.seed, most)
        else:
            unseen = self._draw_unseen(config)
        _check_share(config.min_usable, usable, problems + unusable)
        labels = replace(config.labels, direction=direction_of(alphabet) or "stored")
        config = replace(config, characters=alphabet.characters, labels=labels)
        return TrainingData(training, unseen, alphabet, preprocess, problems + unusable), config

    def draw(self, config: TrainConfig, number: int) -> Samples:
        """Return the usable images of a later round; not from the cache if another process writes into it."""
        try:
            samples, _ = self._draw_round(config, number)
        except FolderInUseError as error:
            log.warning("drawing without the cache: %s", error)
            samples, _ = replace(self, cache=None)._draw_round(config, number)
        return usable_samples(config, samples)[1]

    def _draw_round(self, config: TrainConfig, number: int) -> Collected:
        """Return the images of a round: as many as are named, or fit into a share of the minutes."""
        assert config.draw is not None
        images, minutes = config.draw.images, config.schedule.minutes
        seconds = None if images else 60 * DRAWING_SHARE * (minutes or 0)
        count = images or MAX_DRAWN
        indices = range(number * count, (number + 1) * count)
        return self._draw("drawing", config.draw.source(config.seed), indices, config.preprocess, seconds)

    def _draw_unseen(self, config: TrainConfig) -> Samples:
        assert config.draw is not None
        source = config.draw.unseen().source(config.seed)
        indices = range(FIRST_UNSEEN, FIRST_UNSEEN + config.schedule.eval_images)
        return self._draw("drawing unseen", source, indices, config.preprocess, None)[0]

    def _draw(
        self,
        what: str,
        source: KeyedSource,
        indices: range,
        preprocess: PreprocessConfig,
        seconds: float | None,
    ) -> Collected:
        def make() -> Collected:
            with self._bar(None if seconds else len(indices), what) as bar:
                return collect(
                    source, indices, preprocess, workers=self.workers, seconds=seconds, on_progress=bar.update
                )

        key = source.key() | {"first": indices[0], "count": len(indices), "seconds": seconds}
        return self._kept(key, preprocess, make)

    def _read(self, data: str, config: TrainConfig) -> Collected:
        source, preprocess = open_source(data, config.labels), config.preprocess

        def make() -> Collected:
            with self._bar(len(source), "reading") as bar:
                return collect_all(source, preprocess, workers=self.workers, on_progress=bar.update)

        return self._kept({"read": source.key()} if self.cache else {}, preprocess, make)

    def _kept(
        self, key: dict[str, Any], preprocess: PreprocessConfig, make: Callable[[], Collected]
    ) -> Collected:
        """Return what ``make`` returns, from the cache if there is one; LabelError if no sample could be read."""
        if self.cache is None:
            samples, problems = make()
        else:
            samples, problems = cached(self.cache, key | {"preprocess": asdict(preprocess)}, make)
        if problems and not samples:
            raise LabelError(f"none of {len(problems)} samples can be read; the first: {problems[0]}")
        return samples, problems

    def _bar(self, total: int | None, what: str) -> Any:
        return progress(what, "img", total, show=self.show_progress)
