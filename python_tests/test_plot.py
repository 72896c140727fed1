"""The contents of pictures of alignments."""

from __future__ import annotations

import sys
import warnings

import matplotlib.text
import numpy as np
import pytest
import torch
from PIL import Image

import fastctc
from fastctc.figures import can_draw, new_figure, styled, text_fonts, write_png
from fastctc.plot import _Lattice, plot_alignment, plot_lattice, plot_posteriors
from fastctc.text import TextSpan

SPANS = [TextSpan("a", 8, 24, 0.999), TextSpan("b", 24, 32, 0.5), TextSpan("c", 64, 72, 1.0)]


def posteriors() -> torch.Tensor:
    gamma = torch.zeros(10, 3)
    gamma[1:3, 0], gamma[3, 1], gamma[8, 2] = 0.9, 1.0, 0.7
    return gamma


def texts(axes: object) -> list[str]:
    return [text.get_text() for text in axes.texts]  # type: ignore[attr-defined]


def test_posteriors_are_drawn_frame_by_frame() -> None:
    axes = plot_posteriors(posteriors(), "abc", scale=8)
    assert axes.get_xlim() == (0, 80)
    blank, *labels = [patch for patch in axes.patches if not patch.get_fill()]
    assert blank.get_data().values.tolist() == pytest.approx([1, 0.1, 0.1, 0, 1, 1, 1, 1, 0.3, 1])
    for i, label in enumerate(labels):
        values, edges, _ = label.get_data()
        assert edges.tolist() == [8 * t for t in range(11)]
        assert np.nan_to_num(values).tolist() == pytest.approx(posteriors()[:, i].tolist())


def test_an_alignment_shows_image_spans_and_posteriors() -> None:
    image = np.full((20, 80), 255, np.uint8)
    figure = plot_alignment(SPANS, image=image, posteriors=posteriors(), scale=8, title="abc", note="sure")
    top, spans, bottom = figure.axes
    assert top.get_title("left") == "abc" and top.get_title("right") == "sure"
    assert (top.images[0].get_array() == image).all()
    assert [round(patch.get_x()) for patch in top.patches] == [8, 24, 64]
    assert texts(spans) == ["a", "100%", "b", "50%", "c", "100%"]
    assert spans.texts[3].get_weight() == "bold"
    assert bottom.get_xlim() == (0, 80)


@pytest.mark.parametrize("count", [0, 1, 60])
def test_any_number_of_spans(count: int) -> None:
    spans = [TextSpan(str(i % 10), i, i + 0.5, 0.99 - 0.5 * (i == 7)) for i in range(count)]
    (axes,) = plot_alignment(spans).axes
    percents = [text for text in texts(axes) if "%" in text]
    assert (
        percents == {0: [], 1: ["99%"], 60: ["49%"]}[count]
    )  # those in doubt, where there is no room for all


def test_texts_are_literal(tmp_path) -> None:
    names = ["$x_1$", "a_b", "中", "blank"]
    spans = [TextSpan(name, 8 * i, 8 * i + 8, 1.0) for i, name in enumerate(names)]
    figure = plot_alignment(spans, posteriors=torch.rand(4, 4) / 4, scale=8, title="$x_1$", note="$x$")
    drawn = [text for axes in figure.axes for text in (*axes.texts, axes.title, axes._left_title)]
    assert set(names) <= {text.get_text() for text in drawn}
    assert not any(text.get_parse_math() for text in drawn)
    (legend,) = figure.axes[-1].get_legend().get_texts()
    assert legend.get_text() == "blank"
    write_png(figure, tmp_path / "picture.png")


NAMES = ["$x_1$", "a_b", "_", "\\frac{", "^{", "%&#~", "中文", "שלום", "مرحبا", "ไทย", "é", "a\nb"]


@pytest.mark.parametrize(
    "settings", [{}, {"text.parse_math": True, "text.usetex": True}], ids=["", "TeX is on"]
)
def test_any_text_is_literal_everywhere(tmp_path, settings) -> None:
    """Labels, title, note and unit: none is math, and each falls back to fonts of other scripts."""
    spans = [TextSpan(name, 8 * i, 8 * i + 8, 1.0) for i, name in enumerate(NAMES)]
    for name in NAMES:
        with matplotlib.rc_context(settings):
            gamma = torch.full((len(NAMES), len(NAMES)), 0.5 / len(NAMES))
            figure = plot_alignment(spans, posteriors=gamma, scale=8, title=name, note=name, unit=name)
        found = [text for text in figure.findobj(matplotlib.text.Text) if text.get_text() in NAMES]
        assert sum(text.get_text() == name for text in found) >= 4  # the span, title, note and unit
        for text in found:
            assert not text.get_parse_math() and not text.get_usetex()
            assert text.get_fontfamily() in (text_fonts(), text_fonts(monospace=False))
    write_png(figure, tmp_path / "picture.png")


def test_every_styled_picture_has_literal_texts() -> None:
    """Ticks, legends, annotations and titles are literal."""

    @styled
    def draw(name: str) -> object:
        figure = new_figure(3, 3)
        axes = figure.subplots()
        axes.plot([0, 1], label=f"{name}!")
        axes.set_xticks([0, 1], [name, name])
        axes.annotate(name, (0, 0))
        axes.legend(title=name)
        figure.suptitle(name)
        figure.supxlabel(name)
        return figure

    for name in NAMES:
        figure = draw(name)
        texts = [text for text in figure.findobj(matplotlib.text.Text) if name in text.get_text()]
        assert len(texts) >= 6 + (name[0] != "_")  # a label with _ is in no legend
        for text in texts:
            assert not text.get_parse_math() and not text.get_usetex()
            assert text.get_fontfamily() == text_fonts(monospace=False)


def test_a_picture_is_written_without_warnings(tmp_path) -> None:
    figure = plot_alignment([TextSpan("\U000e0041", 0, 8, 1.0)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_png(figure, tmp_path / "picture.png", dpi=100)
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.size == (650, 100)


def test_fonts_for_texts() -> None:
    assert text_fonts()[0] == "DejaVu Sans Mono" and text_fonts(monospace=False)[0] == "DejaVu Sans"
    assert can_draw("$_é") and not can_draw("a\U000e0041")


def test_pictures_are_files(tmp_path) -> None:
    figure = plot_alignment(SPANS, posteriors=posteriors(), scale=8)
    for suffix in ("png", "pdf", "svg"):
        figure.savefig(tmp_path / f"picture.{suffix}")
        assert (tmp_path / f"picture.{suffix}").stat().st_size > 1000


def test_pyplot_is_left_alone() -> None:
    import matplotlib.pyplot as plt

    before = plt.get_fignums(), plt.rcParams["font.size"]
    plot_alignment(SPANS)
    assert (plt.get_fignums(), plt.rcParams["font.size"]) == before


def test_wrong_shapes() -> None:
    with pytest.raises(
        ValueError, match=r"posteriors must have shape \(T, S\) with S = 2 labels, got \(10, 3\)"
    ):
        plot_posteriors(posteriors(), "ab")


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match="pictures need matplotlib"):
        plot_alignment(SPANS)


CLASSES = "\N{EN DASH}ab"
LATTICE = torch.tensor(
    [[0.2, 0.6, 0.2], [0.3, 0.3, 0.4], [0.4, 0.2, 0.4], [0.3, 0.2, 0.5], [0.5, 0.1, 0.4]], dtype=torch.float64
).log()


@pytest.mark.parametrize("target", [[], [1], [1, 2], [2, 2], [1, 2, 1]])
@pytest.mark.parametrize("blank", [0, 2])
def test_a_lattice_has_the_posteriors_of_its_target(target: list[int], blank: int) -> None:
    """The sums of states and arcs, P(target) and the best path, against the ops."""
    order = [2, 1, 0] if blank else [0, 1, 2]  # the classes 0 and 2 change places
    log_probs, labels = LATTICE[:, order], [order[label] for label in target]
    axes = plot_lattice(log_probs, labels, [CLASSES[c] for c in order], blank=blank)
    lattice = _Lattice(
        LATTICE.numpy()[:, states := [0] + [c for label in target for c in (label, 0)]], states
    )
    compact = fastctc.ctc_posteriors(
        LATTICE, torch.tensor(target, dtype=torch.int64), 5, len(target), compact=True
    )
    assert lattice.states[:, 1::2] == pytest.approx(compact.numpy(), abs=1e-6)
    assert lattice.states.sum(1) == pytest.approx(np.ones(5))
    for t in range(4):
        from_t = sum(p for (frame, _, _), p in lattice.arcs.items() if frame == t)
        assert from_t == pytest.approx(1)
    padded = torch.tensor([target], dtype=torch.int64)
    loss = fastctc.ctc_loss(LATTICE[:, None], padded, [5], [len(target)], reduction="sum")
    assert lattice.log_total == pytest.approx(-loss.item(), abs=1e-6)
    path, scores = fastctc.forced_align(LATTICE[None], padded, blank=0)
    assert [states[s] for s in lattice.best] == path[0].tolist()
    assert lattice.log_best == pytest.approx(scores.sum().item(), abs=1e-6)
    assert f"{np.exp(lattice.log_total):.3g}" in axes.get_title()
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [CLASSES[0]] + [
        name for label in target for name in (CLASSES[label], CLASSES[0])
    ]
    assert texts(axes) == [f"{100 * p:.0f}" for p in lattice.states.flatten() if p > 0]


def test_a_lattice_names_what_is_wrong() -> None:
    with pytest.raises(
        ValueError, match=r"log_probs must have shape \(T, C\) with C = 2 names, got \(5, 3\)"
    ):
        plot_lattice(LATTICE, [1], ["", "a"])
    with pytest.raises(ValueError, match="target has the label 3, expected 0 to 2 without 0"):
        plot_lattice(LATTICE, [3], ["", "a", "b"])
    with pytest.raises(ValueError, match="target has the label 0"):
        plot_lattice(LATTICE, [0], ["", "a", "b"])
    with pytest.raises(ValueError, match=r"no path of 5 frames spells the target \[1, 1, 1, 1\]"):
        plot_lattice(LATTICE, [1, 1, 1, 1], ["", "a", "b"])
    with pytest.raises(ValueError, match="no path of 0 frames"):
        plot_lattice(LATTICE[:0], [1], ["", "a", "b"])
