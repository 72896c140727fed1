"""The report of an exploration: one page of HTML with its pictures in it, and the pictures beside it."""

from __future__ import annotations

import base64
import html
import random
from collections.abc import Callable, Iterable
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fastctc.crnn.data.augment import AugmentConfig
from fastctc.crnn.data.collect import Problem
from fastctc.crnn.data.preprocess import PreprocessConfig, load_grey, steps
from fastctc.crnn.model.checkpoint import write_atomically
from fastctc.crnn.report.exploration import DataSet, Exploration, Measured, visible
from fastctc.crnn.report.exploration_figures import (
    Titled,
    augmentation_sheet,
    contrast_figure,
    filters_sheet,
    labels_figure,
    samples_sheet,
    sizes_figure,
    steps_sheet,
    thumbnail,
    write_png,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REPORT_FILE = "report.html"
PICTURES = 8  # of a report
_SAMPLES, _FAINTEST, _STEPPED = 48, 18, 6


class _Section(NamedTuple):
    """A picture of the report: the name of its file, its heading, what is to be said, how it is drawn."""

    name: str
    heading: str
    text: str
    draw: Callable[[], Figure]


def write_report(
    found: Exploration,
    data: DataSet,
    folder: Path,
    title: str,
    preprocess: PreprocessConfig,
    augment: AugmentConfig,
    *,
    seed: int = 0,
    on_picture: Callable[[int], object] = lambda done: None,
) -> Path:
    """Writes ``report.html`` and its pictures as PNG files, each whole or not at all.

    Args:
        found: what was found in ``data``.
        data: the samples, of which those that are shown are read again.
        folder: made if missing; an earlier report in it is replaced.
        title: what the data is called.
        preprocess: what will be done to the images.
        augment: how training will change them.
        seed: decides which samples are shown, and the random changes.
        on_picture: called with 1 after each picture.

    Returns:
        The path of the page.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    parts = []
    for section in _sections(found, data, preprocess, augment, seed) if found.measured else []:
        path = folder / f"{section.name}.png"
        figure = section.draw()
        write_atomically(path, lambda temporary, figure=figure: write_png(figure, temporary))  # type: ignore[misc]
        parts.append(_figure(section, path.read_bytes()))
        on_picture(1)
    page = _page(title, found, parts)
    report = folder / REPORT_FILE
    write_atomically(report, lambda temporary: temporary.write_text(page, encoding="utf-8"))
    return report


def _sections(
    found: Exploration, data: DataSet, preprocess: PreprocessConfig, augment: AugmentConfig, seed: int
) -> list[_Section]:
    rng = random.Random(seed)
    some = sorted(rng.sample(found.measured, min(_SAMPLES, len(found.measured))), key=lambda m: m.index)
    faint = found.lowest_contrasts(_FAINTEST)
    faintest = [m for m in faint if m.contrast > 0][: _STEPPED // 2]
    others = [m for m in some if m not in faintest]
    others = rng.sample(others, min(len(others), _STEPPED - len(faintest)))
    stepped = [m for pair in zip_longest(others, faintest) for m in pair if m is not None]
    shown = [(data(m.index)[0], f"{m.contrast:.3f}  {m.text}") for m in stepped]
    height = preprocess.height

    def originals(samples: Iterable[Measured], title: Callable[[Measured], str]) -> Callable[[], Figure]:
        return lambda: samples_sheet(
            [Titled(thumbnail(steps(data(m.index)[0], preprocess)[0][1]), title(m)) for m in samples]
        )

    return [
        _Section(
            "samples", "Samples", f"{len(some)} of the images, chosen at random, as they are.",
            originals(some, lambda m: m.text),
        ),
        _Section("labels", "Labels", "Of all samples.", lambda: labels_figure(found)),
        _Section(
            "sizes", "Sizes",
            "The larger a dot, the more images. CTC needs a frame for each character, and one more between"
            " two equal ones; a label in the red area has no path and cannot be learnt.",
            lambda: sizes_figure(found),
        ),
        _Section(
            "contrast", "Contrast", "Before any preprocessing, which lifts faint ink.",
            lambda: contrast_figure(found),
        ),
        _Section(
            "faintest", "The faintest images", "Those of least contrast, as they are.",
            originals(faint, lambda m: f"{m.contrast:.4f}  {m.text}"),
        ),
        _Section(
            "preprocessing", "Preprocessing, step by step",
            "What the model will be given, from the top down; above each image its contrast and its label."
            " Every second image is one of the faintest.",
            lambda: steps_sheet(shown, preprocess),
        ),
        _Section(
            "filters", "What a filter would change",
            f"Each row has one filter more than was asked for, at height {height}. Filters count in pixels of"
            " the original image.",
            lambda: filters_sheet(shown, preprocess),
        ),
        _Section(
            "augmentation", "Augmentation",
            "A training image under each change, as small and as large as it may be drawn, and images under"
            " all of them at random. What is off is shown at a usual strength.",
            lambda: augmentation_sheet([load_grey(image, preprocess) for image, _ in shown], augment, seed),
        ),
    ]  # fmt: skip


def _figure(section: _Section, png: bytes) -> str:
    picture = base64.b64encode(png).decode("ascii")
    return (
        f'<section id="{section.name}">\n<h2>{html.escape(section.heading)}</h2>\n'
        f"<p>{html.escape(section.text)}</p>\n"
        f'<img alt="{html.escape(section.heading)}" src="data:image/png;base64,{picture}">\n</section>\n'
    )


def _page(title: str, found: Exploration, parts: list[str]) -> str:
    title = html.escape(visible(title))
    rows = "".join(
        f"<tr><th>{name}</th><td>{html.escape(words)}</td></tr>\n" for name, words in found.summary().items()
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n<table>\n{rows}</table>\n"
        + _problems("Images that cannot be read", found.unreadable)
        + _problems("Labels that do not fit", found.too_long)
        + "".join(parts)
        + "</body>\n</html>\n"
    )


def _problems(heading: str, problems: list[Problem]) -> str:
    """A list of problems, folded if it is long; nothing if there are none."""
    if not problems:
        return ""
    items = "".join(f"<li>{html.escape(visible(str(p)))}</li>\n" for p in problems)
    opened = " open" if len(problems) <= 20 else ""
    return (
        f"<section>\n<h2>{heading}</h2>\n<details{opened}><summary>{len(problems):,}</summary>\n"
        f"<ul>\n{items}</ul>\n</details>\n</section>\n"
    )


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #333; background: #fff; max-width: 1100px;
  margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.6em } h2 { font-size: 1.2em; margin: 2em 0 0.2em } p { margin: 0.2em 0 0.8em }
table { border-collapse: collapse } td, th { border-bottom: 1px solid #ddd; padding: 0.3em 1em 0.3em 0;
  text-align: left; vertical-align: top; overflow-wrap: anywhere } th { font-weight: 600 }
img { width: 100%; height: auto } li { overflow-wrap: anywhere }
"""
