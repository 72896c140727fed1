"""Pictures of alignments: where each label was seen or heard, and how sure that is. Needs matplotlib.

Everything is drawn over one axis, in frames or in what they stand for: seconds, columns of an image.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from fastctc.text import TextSpan

if TYPE_CHECKING:
    import numpy.typing as npt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Image = npt.NDArray[Any]

__all__ = ["plot_alignment", "plot_posteriors"]

# Of neighboring labels, told apart also by people who do not see all colours (after Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b5569b", "#8a6d00", "#3a9bdc")
INK, FAINT, BLANK = "#333333", "#dddddd", "#9a9a9a"
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": BLANK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "savefig.facecolor": "white",
}


def plot_posteriors(
    posteriors: Tensor, labels: Sequence[str], *, scale: float = 1.0, axes: Axes | None = None
) -> Axes:
    """Draws the probability of each label over time.

    Args:
        posteriors: (T, S) the probability that label i emits frame t, as of
            ``fastctc.ctc_posteriors(..., compact=True)`` for a single sample. What they leave of 1 is the blank's.
        labels: S names.
        scale: what a frame is long, in the unit of the axis.
        axes: to draw into; None: those of a new figure.

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
        axes = new_figure(6.5, 2.0).subplots()
    edges = np.arange(len(gamma) + 1) * scale
    dotted: Any = (0, (1, 1.5))
    rest = 1 - gamma.sum(1)
    axes.stairs(rest, edges, baseline=None, color=BLANK, lw=1.0, ls=dotted, label="blank", zorder=1)
    for i, name in enumerate(labels):
        colour, seen = COLOURS[i % len(COLOURS)], np.where(gamma[:, i] < 1e-3, np.nan, gamma[:, i])
        axes.stairs(seen, edges, fill=True, color=colour, alpha=0.35, lw=0, zorder=2)
        axes.stairs(seen, edges, color=colour, lw=1.0, label=name, zorder=3)
    axes.set_xlim(0, max(len(gamma), 1) * scale)
    axes.set_ylim(0, 1.04)
    axes.set_yticks([0, 0.5, 1])
    axes.set_ylabel("posterior")
    handles = [handle for handle in axes.get_legend_handles_labels()[0] if handle.get_label() == "blank"]
    axes.legend(
        handles=handles, loc="lower right", bbox_to_anchor=(1, 0.98), frameon=False, fontsize=7, borderpad=0
    )
    return axes


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
    """Draws an image, the aligned spans with their text and confidence, and the posterior of each label.

    Args:
        spans: pieces of text, of :func:`fastctc.text.character_spans` or :func:`fastctc.text.word_spans`.
        image: (H, W), or (H, W, 3 or 4), drawn over its columns 0 to W, so ``unit`` is one column of it; uint8.
            A spectrogram will do. None: no image.
        posteriors: (T, S), one column for each span, as of :func:`plot_posteriors`; None: not drawn.
        scale: what a frame of ``posteriors`` is long, in the unit of the spans.
        end: where the axis ends; None: with the image, or the posteriors, or the last span.
        title: what stands above, on the left.
        note: likewise, on the right.
        unit: what the axis counts.

    Returns:
        The figure: ``figure.savefig("explain.png", dpi=200)``.

    Raises:
        ValueError: posteriors are not (T, S) for S spans.
        ModuleNotFoundError: matplotlib is not installed.
    """
    matplotlib = load_matplotlib()
    if end is None:
        last = max((span.end for span in spans), default=1.0)
        end = (
            image.shape[1]
            if image is not None
            else len(posteriors) * scale
            if posteriors is not None
            else last
        )
    width = 6.5
    rows = {"spans": 0.45}
    if image is not None:
        rows = {"image": min(2.4, max(0.5, 6.0 * image.shape[0] / image.shape[1]))} | rows
    if posteriors is not None:
        rows["posteriors"] = 1.25
    with matplotlib.rc_context(STYLE):
        figure = new_figure(width, sum(rows.values()) + 0.55 + (0.25 if title or note else 0))
        all_axes = figure.subplots(
            len(rows), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": list(rows.values())}
        )[:, 0]
        panels: dict[str, Axes] = dict(zip(rows, all_axes, strict=True))
        if image is not None:
            _draw_image(panels["image"], image, spans)
        if posteriors is not None:
            plot_posteriors(posteriors, [span.text for span in spans], scale=scale, axes=panels["posteriors"])
        _draw_spans(panels["spans"], spans, end, width)
        all_axes[-1].set_xlim(0, end)
        all_axes[-1].set_xlabel(unit)
        if title:
            all_axes[0].set_title(title, loc="left", fontsize=11, family="monospace", weight="bold")
        if note:
            all_axes[0].set_title(note, loc="right", fontsize=9)
        figure.align_ylabels(all_axes)
    return figure


def new_figure(width: float, height: float, layout: Any = "constrained") -> Figure:
    """A figure of so many inches, which pyplot neither shows nor keeps."""
    figure: Figure = load_matplotlib().figure.Figure(figsize=(width, height), layout=layout)
    return figure


def load_matplotlib() -> Any:
    """The package, which is imported when a picture is drawn.

    Raises:
        ModuleNotFoundError: it is not installed; the message names the remedy.
    """
    try:
        import matplotlib.figure
        import matplotlib.patches
        import matplotlib.ticker
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('pictures need matplotlib: pip install "fastctc[plot]"') from error
    return matplotlib


def _draw_image(axes: Axes, image: Image, spans: Sequence[TextSpan]) -> None:
    """The image, with the columns of each span in its colour."""
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
        axes.axvspan(span.start, span.end, color=COLOURS[i % len(COLOURS)], alpha=0.25, lw=0)
    axes.set_yticks([])
    axes.tick_params(bottom=False, labelbottom=False)
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color(FAINT)


def _draw_spans(axes: Axes, spans: Sequence[TextSpan], end: float, width: float) -> None:
    """A box for each span, its text above and its confidence below, where there is room for that."""
    centres = [(span.start + span.end) / 2 for span in spans]
    inches = width * 0.87 / end
    room = min((b - a for a, b in itertools.pairwise(centres)), default=end) * inches
    for i, (span, centre) in enumerate(zip(spans, centres, strict=True)):
        colour = COLOURS[i % len(COLOURS)]
        axes.broken_barh([(span.start, span.end - span.start)], (0.42, 0.16), color=colour, lw=0)
        size = 11 if room > 0.2 else 8
        axes.text(
            centre, 0.66, span.text, ha="center", va="bottom", color=colour, fontsize=size, weight="bold"
        )
        doubtful = span.confidence < 0.9
        if room > 0.34 or doubtful:
            percent = f"{100 * span.confidence:.0f}%" if span.confidence < 0.995 else "100%"
            axes.text(
                centre,
                0.34,
                percent,
                ha="center",
                va="top",
                fontsize=6.5,
                weight="bold" if doubtful else "normal",
            )
    axes.set_ylim(-0.1, 1.35)
    axes.set_axis_off()
