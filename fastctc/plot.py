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

__all__ = ["plot_alignment", "plot_lattice", "plot_posteriors"]

_WIDTH = 6.5  # of a figure, in inches
_BLANK_NAME = "\N{EN DASH}"


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
def plot_lattice(
    log_probs: Tensor,
    target: Sequence[int],
    labels: Sequence[str],
    *,
    blank: int = 0,
    axes: Axes | None = None,
) -> Axes:
    """Draw all paths of a target: a row for each label and each blank around them, a column for each frame.

    The fill of a state and the width of an arc show their probabilities, given the target. Up to 16 frames, a state
    has its probability in percent. States and arcs of no path are left out. The most probable path is in color. The
    title has the probability of the target and of that path.

    The algorithm is equations 6 to 11 of Graves et al. (2006), "Connectionist temporal classification".

    Args:
        log_probs: (T, C) natural-log probabilities of one sample, on any device.
        target: S labels, without the blank.
        labels: C names of the classes; the blank's is not used.
        blank: the class of the blank.
        axes: axes to draw into; None: the axes of a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: log_probs are not (T, C) for C names, a label is no class or the blank, or no path spells the
            target.
        ModuleNotFoundError: matplotlib is not installed.
    """
    if log_probs.dim() != 2 or log_probs.shape[1] != len(labels):
        raise ValueError(
            f"log_probs must have shape (T, C) with C = {len(labels)} names, got {tuple(log_probs.shape)}"
        )
    for label in target:
        if not 0 <= label < len(labels) or label == blank:
            raise ValueError(f"target has the label {label}, expected 0 to {len(labels) - 1} without {blank}")
    states = [blank] + [each for label in target for each in (label, blank)]
    lattice = _Lattice(log_probs.detach().cpu().double().numpy()[:, states], states)
    if not lattice.log_total > -np.inf:
        raise ValueError(f"no path of {len(log_probs)} frames spells the target {list(target)}")
    if axes is None:
        axes = new_figure(min(12, 1.2 + 0.75 * len(log_probs)), 0.8 + 0.42 * len(states)).subplots()
    _draw_lattice(axes, lattice, [_BLANK_NAME if state == blank else labels[state] for state in states])
    return axes


class _Lattice:
    """The states (T, L) of a target's paths, with natural-log probabilities.

    Attributes:
        log_total: of the target.
        states: (T, L) posteriors of the states.
        arcs: the posterior of each arc (t, state, next state) from frame t to t + 1.
        best: the states of the most probable path.
        log_best: of that path.
    """

    def __init__(self, emissions: npt.NDArray[np.float64], labels: Sequence[int]) -> None:
        frames, count = emissions.shape
        arcs = [
            (a, b)
            for b in range(count)
            for a in (b, b - 1, b - 2)
            if a >= 0 and (a > b - 2 or (b % 2 == 1 and labels[a] != labels[b]))
        ]
        alpha, beta, best = (np.full((frames, count), -np.inf) for _ in range(3))
        alpha[:1, :2] = best[:1, :2] = emissions[:1, :2]
        beta[-1:, -2:] = 0.0
        previous = np.zeros((frames, count), np.int64)
        for t in range(1, frames):
            for a, b in arcs:
                alpha[t, b] = np.logaddexp(alpha[t, b], alpha[t - 1, a] + emissions[t, b])
                if best[t - 1, a] + emissions[t, b] > best[t, b]:
                    best[t, b], previous[t, b] = best[t - 1, a] + emissions[t, b], a
                back = frames - 1 - t
                beta[back, a] = np.logaddexp(beta[back, a], beta[back + 1, b] + emissions[back + 1, b])
        self.log_total = float(np.logaddexp.reduce(alpha[-1, -2:])) if frames else -np.inf
        if not self.log_total > -np.inf:
            return
        self.states = np.exp(alpha + beta - self.log_total)
        self.arcs = {
            (t, a, b): float(np.exp(alpha[t, a] + emissions[t + 1, b] + beta[t + 1, b] - self.log_total))
            for t in range(frames - 1)
            for a, b in arcs
        }
        state = count - 1 - int(count > 1 and best[-1, -2] > best[-1, -1])
        self.log_best = float(best[-1, state])
        self.best = [state]
        for t in range(frames - 1, 0, -1):
            self.best.append(int(previous[t, self.best[-1]]))
        self.best.reverse()


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


def _draw_lattice(axes: Axes, lattice: _Lattice, names: Sequence[str]) -> None:
    frames, count = lattice.states.shape
    chosen = set(zip(range(frames), lattice.best, lattice.best[1:]))
    for (t, a, b), posterior in lattice.arcs.items():
        if posterior > 0:
            best = (t, a, b) in chosen
            axes.plot(
                [t, t + 1], [a, b], color=COLORS[0] if best else BLANK, lw=0.4 + 3 * posterior,
                zorder=2 if best else 1, solid_capstyle="round",
            )  # fmt: skip
    for t, state in itertools.product(range(frames), range(count)):
        posterior = float(lattice.states[t, state])
        if posterior > 0:
            edge = COLORS[0] if lattice.best[t] == state else BLANK
            axes.plot(t, state, "o", ms=19, mfc="white", mec=edge, mew=1.0, zorder=3)
            axes.plot(t, state, "o", ms=19, mfc=COLORS[0], mec="none", alpha=0.6 * posterior, zorder=4)
            if frames <= 16:
                axes.text(
                    t, state, f"{100 * posterior:.0f}", ha="center", va="center", fontsize=7.5, zorder=5
                )
    axes.set_yticks(range(count), names, family=text_fonts())
    axes.set_xticks(range(frames) if frames <= 16 else range(0, frames, 5))
    axes.set_xlabel("frame")
    axes.set_xlim(-0.5, frames - 0.5)
    axes.set_ylim(count - 0.5, -0.5)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(length=0)
    axes.set_title(
        f"P(target) = {np.exp(lattice.log_total):.3g}, the best path {np.exp(lattice.log_best):.3g}"
    )
