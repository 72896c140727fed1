"""The report of an exploration."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fastctc.crnn.data import AugmentConfig, NamedSource, PreprocessConfig, prepare, steps
from fastctc.crnn.report.exploration import Exploration, Measured
from fastctc.crnn.report.exploration_figures import (
    augmentation_sheet,
    contrast_figure,
    filters_sheet,
    labels_figure,
    sizes_figure,
    steps_sheet,
)
from fastctc.crnn.report.page import Section, write_page
from fastctc.crnn.report.sheets import Titled, flow, thumbnail

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = 8
"""Pictures of a report."""

_SAMPLES, _FAINTEST, _STEPPED = 48, 18, 6


def write_exploration_report(
    found: Exploration,
    data: NamedSource,
    folder: str | Path,
    title: str,
    preprocess: PreprocessConfig,
    augment: AugmentConfig,
    *,
    seed: int = 0,
    on_picture: Callable[[int], object] = lambda done: None,
) -> Path:
    """Write ``report.html`` and its pictures as PNG files, each file whole or not at all.

    Args:
        found: what was found in ``data``.
        data: the samples, of which those that are shown are read again.
        folder: made if missing; an earlier report in it is replaced.
        title: name of the data.
        preprocess: how images are prepared.
        augment: random changes in training.
        seed: decides which samples are shown, and the random changes.
        on_picture: called with 1 after each picture.

    Returns:
        The path of the page.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    sections: list[Section] = []
    if found.measured:
        chosen = _choose(found, seed)
        sections = [
            *_sections_of_data(found, chosen, data, preprocess),
            *_sections_of_settings(chosen, data, preprocess, augment, seed),
        ]
    problems = {
        "Samples that cannot be read": found.unreadable,
        "Labels that are too long for their image": found.too_long,
        "Labels that the Unicode form changed": found.changed,
        "Images that are there twice": found.duplicates,
        "Images that are in the other data, too": found.leaks,
        "Labels that the model does not believe": found.suspects,
        "Characters that look alike": found.look_alikes,
    }
    return write_page(
        Path(folder), title, found.summary(), sections, problems=problems, on_picture=on_picture
    )


class _Chosen(NamedTuple):
    """Samples that are shown.

    Attributes:
        some: samples chosen at random.
        faintest: samples of least contrast.
        few: some of both, for the effects of settings. The last is a faint one.
    """

    some: list[Measured]
    faintest: list[Measured]
    few: list[Measured]


def _choose(found: Exploration, seed: int) -> _Chosen:
    rng = random.Random(seed)
    some = sorted(rng.sample(found.measured, min(_SAMPLES, len(found.measured))), key=lambda m: m.index)
    faintest = found.lowest_contrasts(_FAINTEST)
    faint = [m for m in faintest if m.contrast > 0][: _STEPPED // 2]
    others = [m for m in some if m not in faint]
    others = rng.sample(others, min(len(others), _STEPPED - len(faint)))
    few = [m for pair in zip_longest(others, faint) for m in pair if m is not None]
    return _Chosen(some, faintest, few)


def _sections_of_data(
    found: Exploration, chosen: _Chosen, data: NamedSource, preprocess: PreprocessConfig
) -> list[Section]:
    """Return the sections about the samples as they are."""

    def originals(samples: Iterable[Measured], title: Callable[[Measured], str]) -> Figure:
        return flow([Titled(thumbnail(steps(data(m.index)[0], preprocess)[0][1]), title(m)) for m in samples])

    return [
        Section(
            "samples", "Samples", f"{len(chosen.some)} of the images, chosen at random, as they are.",
            partial(originals, chosen.some, lambda m: m.text),
        ),
        Section("labels", "Labels", "All labels are counted.", partial(labels_figure, found)),
        Section(
            "sizes", "Sizes",
            "The area of a dot stands for the number of images. CTC needs a frame for each character, and one"
            " more between two equal ones. A label in the red area has no path, so it cannot be learned.",
            partial(sizes_figure, found),
        ),
        Section(
            "contrast", "Contrast", "Contrast is measured before preprocessing, which lifts faint ink.",
            partial(contrast_figure, found),
        ),
        Section(
            "faintest", "The faintest images", "The images of least contrast, as they are.",
            partial(originals, chosen.faintest, lambda m: f"{m.contrast:.4f}  {m.text}"),
        ),
    ]  # fmt: skip


def _sections_of_settings(
    chosen: _Chosen, data: NamedSource, preprocess: PreprocessConfig, augment: AugmentConfig, seed: int
) -> list[Section]:
    """Return the sections about the effects of preprocessing and augmentation."""
    shown = [(data(m.index)[0], f"{m.contrast:.3f}  {m.text}") for m in chosen.few]
    prepared = [prepare(image, preprocess).pixels for image, _ in shown]
    return [
        Section(
            "preprocessing", "Preprocessing, step by step",
            "From top to bottom, each row is one step on the way to the model's input. The contrast and the"
            " label stand above each image. Every second image is one of the faintest.",
            partial(steps_sheet, shown, preprocess),
        ),
        Section(
            "filters", "Effects of the filters",
            f"Each row adds one filter to the configuration, at height {preprocess.rows}. Filters count in"
            " pixels of the original image.",
            partial(filters_sheet, shown, preprocess),
        ),
        Section(
            "augmentation", "Augmentation",
            "Each row shows one change, weak and strong. A change that is off is shown at a usual strength."
            " The last rows show all changes that are on, at random, as in training.",
            partial(augmentation_sheet, prepared, augment, seed),
        ),
    ]  # fmt: skip
