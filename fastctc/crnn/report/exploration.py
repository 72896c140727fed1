"""The content of a data set, before training on it: labels, sizes, contrast, and problems."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from fastctc.crnn.data import (
    ImageError,
    ImageLike,
    LabelError,
    NamedSource,
    PreprocessConfig,
    Problem,
    frames_needed,
    prepare,
)
from fastctc.crnn.report.duplicates import Look, look_of, pairs_between, pairs_within
from fastctc.crnn.report.look_alikes import look_alikes, named
from fastctc.crnn.report.visible import visible_character


@dataclass(frozen=True)
class Measured:
    """The measurements of a sample whose image could be read.

    Attributes:
        index: of the sample in its data set.
        name: name of the sample in reports.
        text: its label.
        width, height: pixels of the original image, upright.
        contrast: standard deviation of the original's gray levels, as a share of 255.
        frames: number of frames that the model makes of the image.
        frames_needed: frames that CTC needs for the text, see :func:`fastctc.crnn.data.frames_needed`.
        look: what equal and nearly equal images are found by.
    """

    index: int
    name: str
    text: str
    width: int
    height: int
    contrast: float
    frames: int
    frames_needed: int
    look: Look = field(repr=False)


@dataclass
class Exploration:
    """The findings in a data set.

    Attributes:
        count: labeled samples.
        lengths: number of labels of each length in characters.
        characters: number of occurrences of each character in all labels.
        different: number of different labels.
        measured: the images that were looked at and could be read, in the order of the data set.
        unreadable: the samples that could not be read.
        too_long: the samples whose label needs more frames than the model makes of the image.
        changed: the samples whose label another Unicode form changed.
        duplicates: the samples whose image is there before, equal or nearly equal.
        leaks: the samples whose image is in another data set, too.
        suspects: the samples whose label a trained model does not believe, the least credible first.
    """

    count: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    characters: Counter[str] = field(default_factory=Counter)
    different: int = 0
    measured: list[Measured] = field(default_factory=list)
    unreadable: list[Problem] = field(default_factory=list)
    too_long: list[Problem] = field(default_factory=list)
    changed: list[Problem] = field(default_factory=list)
    duplicates: list[Problem] = field(default_factory=list)
    leaks: list[Problem] = field(default_factory=list)
    suspects: list[Problem] = field(default_factory=list)

    @property
    def look_alikes(self) -> list[Problem]:
        """Return the groups of characters that look alike, see :func:`fastctc.crnn.report.look_alikes`."""
        return [
            Problem(
                "look alike" if len(group) > 1 else "invisible",
                ", ".join(named(character, self.characters[character]) for character in group),
            )
            for group in look_alikes(self.characters)
        ]

    @property
    def alphabet(self) -> str:
        """Return the characters of all labels, in the order of their code points."""
        return "".join(sorted(self.characters))

    def lowest_contrasts(self, count: int) -> list[Measured]:
        """Return the images with the least contrast, the faintest first."""
        return sorted(self.measured, key=lambda each: (each.contrast, each.index))[:count]

    def summary(self) -> dict[str, str]:
        """Return the figures as text, by subject."""
        lengths = f"{_range(self.lengths.elements())} characters; {self.different:,} different"
        if self.lengths[0]:
            lengths += f"; {self.lengths[0]:,} empty"
        rarest = sorted(self.characters.items(), key=lambda item: (item[1], item[0]))[:3]
        alphabet = f"{len(self.characters):,} characters: {''.join(map(visible_character, self.alphabet))}"
        if rarest:
            alphabet += "; the rarest: " + ", ".join(f"{visible_character(c)} ({n:,})" for c, n in rarest)
        if alike := len(self.look_alikes):
            alphabet += f"; groups that look alike: {alike:,}"
        if self.changed:
            lengths += f"; changed by the Unicode form: {len(self.changed):,}"
        words = {"labels": f"{self.count:,}: {lengths}", "alphabet": alphabet}
        seen, unread = len(self.measured), len(self.unreadable)
        words["images"] = f"{seen:,} of {seen + unread:,} that were looked at could be read"
        if self.measured:
            widths, heights = ([getattr(m, side) for m in self.measured] for side in ("width", "height"))
            words["sizes"] = f"{_range(widths)} pixels wide; {_range(heights)} high"
            contrasts = [m.contrast for m in self.measured]
            words["contrast"] = (
                f"{min(contrasts):.3f} to {max(contrasts):.3f}, median {statistics.median(contrasts):.3f}"
                " (standard deviation of gray levels / 255)"
            )
            words["copies"] = f"{len(self.duplicates):,} here before, {len(self.leaks):,} in the other data"
            words["frames"] = (
                f"{_range(m.frames for m in self.measured)} per image;"
                f" labels that need more than their image has: {len(self.too_long):,}"
            )
        return words


def explore(
    data: NamedSource,
    preprocess: PreprocessConfig,
    frames: Callable[[int], int],
    *,
    limit: int = 2000,
    seed: int = 0,
    on_progress: Callable[[int], object] = lambda done: None,
) -> Exploration:
    """Count all labels of a data set, and measure its images, or ``limit`` of them chosen by ``seed``.

    Args:
        data: the samples. Those that cannot be read are listed, and raise no error.
        preprocess: how images are prepared.
        frames: returns the frames that the model makes of an image, by its width in pixels after preprocessing.
        limit: images to look at.
        seed: decides which.
        on_progress: called with the number of samples done since the last call.
    """
    found = Exploration(count=len(data))
    chosen = set(range(len(data)))
    if limit < len(data):
        chosen = set(np.random.default_rng(seed).choice(len(data), limit, replace=False).tolist())
    texts = set()
    for index in range(len(data)):
        name = data.name(index)
        try:
            image, text = data(index)
            _note_change(found.changed, data, index, name, text)
            texts.add(text)
            found.lengths[len(text)] += 1
            found.characters.update(text)
            if index in chosen:
                found.measured.append(_measured(index, name, image, text, preprocess, frames))
        except (ImageError, LabelError) as error:
            where = f" ({data.place(index)})" if hasattr(data, "place") else ""
            found.unreadable.append(Problem(name, f"{error}{where}"))
        on_progress(1)
    found.different = len(texts)
    found.too_long = [
        Problem(m.name, f"label {m.text!r} needs {m.frames_needed} frames, the image has {m.frames}")
        for m in found.measured
        if m.frames_needed > m.frames
    ]
    found.duplicates = [
        _copy(found.measured[later], found.measured[earlier], equal)
        for earlier, later, equal in pairs_within([each.look for each in found.measured])
    ]
    return found


def leaks(found: Exploration, other: Exploration) -> list[Problem]:
    """Return the samples of a data set whose images are in another one, such as a test set."""
    looks, others = ([each.look for each in side.measured] for side in (found, other))
    pairs = pairs_between(looks, others)
    return [_copy(found.measured[one], other.measured[two], equal) for one, two, equal in pairs]


def _copy(sample: Measured, first: Measured, equal: bool) -> Problem:
    labels = (
        f"both have the label {sample.text!r}"
        if sample.text == first.text
        else f"but its label is {sample.text!r}, the other's {first.text!r}"
    )
    return Problem(
        sample.name, f"{'the same image as' if equal else 'nearly the image'} {first.name}; {labels}"
    )


def _note_change(changed: list[Problem], data: NamedSource, index: int, name: str, text: str) -> None:
    """Add a sample to the changed ones if its stored text is another than its text."""
    stored = data.stored_text(index) if hasattr(data, "stored_text") else text
    if stored != text:
        before, after = (
            " ".join(f"U+{ord(character):04X}" for character in each if not character.isascii())
            for each in (stored, text)
        )
        changed.append(Problem(name, f"{text!r}: {before} became {after}"))


def _measured(
    index: int,
    name: str,
    image: ImageLike,
    text: str,
    preprocess: PreprocessConfig,
    frames: Callable[[int], int],
) -> Measured:
    pixels, contrast, (width, height), _ = prepare(image, preprocess)
    needed = frames_needed([ord(character) for character in text])
    return Measured(
        index, name, text, width, height, contrast, frames(pixels.shape[1]), needed, look_of(pixels)
    )


def _range(numbers: Iterable[int]) -> str:
    """Return the least, the greatest and the median of whole numbers, in words."""
    ordered = sorted(numbers)
    if not ordered:
        return "no"
    low, high, median = ordered[0], ordered[-1], statistics.median(ordered)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}, median {median:,g}"
