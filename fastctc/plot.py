"""Pictures of alignments: the place of each label in an image or a sound, and its confidence. Needs matplotlib.

All panels share one axis. Its unit is a frame, or what frames stand for: seconds, columns of an image.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from fastctc.figures import BLANK, COLORS, FAINT, new_figure, styled, text_fonts
from fastctc.text import TextSpan

if TYPE_CHECKING:
    import numpy.typing as npt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Image = npt.NDArray[Any]

__all__ = ["plot_alignment", "plot_posteriors"]

_WIDTH = 6.5  # of a figure, in inches


@styled
def plot_posteriors(
    posteriors: Tensor, labels: Sequence[str], *, scale: float = 1.0, axes: Axes | None = None
) -> Axes:
    """Draw the probability of each label over time.

    Args:
        posteriors: (T, S) the probability that label i emits frame t, as from
            ``fastctc.ctc_posteriors(..., compact=True)`` for one sample. The blank has the rest, up to 1.
        labels: S names.
        scale: length of a frame, in the unit of the axis.
        axes: axes to draw into; None: the axes of a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: posteriors are not (T, S) for S labels.
        ModuleNotFoundError: matplotlib is not installed.
    """
    if posteriors.dim() != 2 or posteriors.shape[1] != len(labels):
        raise ValueError(
            f"posteriors must have shape (T, S) with S = {len(labels)} labels, got {tuple(posteriors.shape)}"
        )
    gamma = posteriors.detach().cpu().double().numpy()
    if axes is None:
        axes = new_figure(_WIDTH, 2.0).subplots()
    edges = np.arange(len(gamma) + 1) * scale
    dotted: Any = (0, (1, 1.5))
    blank = axes.stairs(
        1 - gamma.sum(1), edges, baseline=None, color=BLANK, lw=1.0, ls=dotted, label="blank", zorder=1
    )
    for i, name in enumerate(labels):
        color, seen = COLORS[i % len(COLORS)], np.where(gamma[:, i] < 1e-3, np.nan, gamma[:, i])
        axes.stairs(seen, edges, fill=True, color=color, alpha=0.35, lw=0, zorder=2)
        axes.stairs(seen, edges, color=color, lw=1.0, label=name, zorder=3)
    axes.set_xlim(0, max(len(gamma), 1) * scale)
    axes.set_ylim(0, 1.04)
    axes.set_yticks([0, 0.5, 1])
    axes.set_ylabel("posterior")
    axes.legend(
        handles=[blank], loc="lower right", bbox_to_anchor=(1, 0.98), frameon=False, fontsize=7, borderpad=0
    )
    return axes


@styled
def plot_alignment(
    spans: Sequence[TextSpan],
    *,
    image: Image | None = None,
    posteriors: Tensor | None = None,
    scale: float = 1.0,
    end: float | None = None,
    title: str | None = None,
    note: str | None = None,
    unit: str = "frame",
) -> Figure:
    """Draw an image, the aligned spans with their text and confidence, and the posterior of each label.

    Args:
        spans: pieces of text from :func:`fastctc.text.character_spans` or :func:`fastctc.text.word_spans`.
        image: (H, W), or (H, W, 3 or 4), uint8, such as a spectrogram. It spans 0 to W, so ``unit`` is one of
            its columns. None: no image.
        posteriors: (T, S), one column for each span, see :func:`plot_posteriors`; None: not drawn.
        scale: length of a frame of ``posteriors``, in the unit of the spans.
        end: end of the axis; None: the end of the image, or of the posteriors, or of the last span.
        title: text above the picture, on the left.
        note: text above the picture, on the right.
        unit: name of the unit of the axis.

    Returns:
        The figure: ``figure.savefig("explain.png", dpi=200)``.

    Raises:
        ValueError: posteriors are not (T, S) for S spans.
        ModuleNotFoundError: matplotlib is not installed.
    """
    end = _end(spans, image, posteriors, scale) if end is None else end
    rows = {} if image is None else {"image": min(2.4, max(0.5, 6.0 * image.shape[0] / image.shape[1]))}
    rows |= {"spans": 0.45} | ({} if posteriors is None else {"posteriors": 1.25})
    figure = new_figure(_WIDTH, sum(rows.values()) + 0.55 + (0.25 if title or note else 0))
    all_axes = figure.subplots(
        len(rows), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": list(rows.values())}
    )[:, 0]
    panels: dict[str, Axes] = dict(zip(rows, all_axes, strict=True))
    if image is not None:
        _draw_image(panels["image"], image, spans)
    if posteriors is not None:
        plot_posteriors(posteriors, [span.text for span in spans], scale=scale, axes=panels["posteriors"])
    _draw_spans(panels["spans"], spans, end)
    all_axes[-1].set_xlim(0, end)
    all_axes[-1].set_xlabel(unit)
    if title:
        all_axes[0].set_title(title, loc="left", fontsize=11, family=text_fonts(), weight="bold")
    if note:
        all_axes[0].set_title(note, loc="right", fontsize=9)
    figure.align_ylabels(all_axes)
    return figure


def _end(spans: Sequence[TextSpan], image: Image | None, posteriors: Tensor | None, scale: float) -> float:
    """Return the end of the axis."""
    if image is not None:
        return float(image.shape[1])
    if posteriors is not None:
        return len(posteriors) * scale
    return max((span.end for span in spans), default=1.0)


def _draw_image(axes: Axes, image: Image, spans: Sequence[TextSpan]) -> None:
    """Draw the image, with the columns of each span in the color of the span."""
    height, columns = image.shape[:2]
    axes.imshow(
        image,
        cmap="gray",
        vmin=0,
        vmax=255,
        extent=(0, columns, height, 0),
        aspect="auto",
        interpolation="antialiased",
    )
    for i, span in enumerate(spans):
        axes.axvspan(span.start, span.end, color=COLORS[i % len(COLORS)], alpha=0.25, lw=0)
    axes.set_yticks([])
    axes.tick_params(bottom=False, labelbottom=False)
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color(FAINT)


def _draw_spans(axes: Axes, spans: Sequence[TextSpan], end: float) -> None:
    """Draw a bar for each span, its text above, and its confidence below if there is room for it."""
    centers = [(span.start + span.end) / 2 for span in spans]
    inches = _WIDTH * 0.87 / end
    room = min((b - a for a, b in itertools.pairwise(centers)), default=end) * inches
    for i, (span, center) in enumerate(zip(spans, centers, strict=True)):
        color = COLORS[i % len(COLORS)]
        axes.broken_barh([(span.start, span.end - span.start)], (0.42, 0.16), color=color, lw=0)
        axes.text(
            center, 0.66, span.text, ha="center", va="bottom", color=color, weight="bold",
            fontsize=11 if room > 0.2 else 8, family=text_fonts(monospace=False),
        )  # fmt: skip
        doubtful = span.confidence < 0.9
        if room > 0.34 or doubtful:
            axes.text(
                center, 0.34, f"{span.confidence:.0%}", ha="center", va="top", fontsize=6.5,
                weight="bold" if doubtful else "normal",
            )  # fmt: skip
    axes.set_ylim(-0.1, 1.35)
    axes.set_axis_off()
