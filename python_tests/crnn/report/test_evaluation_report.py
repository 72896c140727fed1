"""The pictures of an evaluation, and the report that holds them."""

import math

import numpy as np
import pytest
from pages import Page

from fastctc.crnn.data import Problem, Samples, collect
from fastctc.crnn.formulas import FormulaSource
from fastctc.crnn.read import Evaluation, Outcome, Recognizer, edit_distance, evaluate_samples
from fastctc.crnn.report import plot_accuracy, plot_confusion, plot_worst, write_evaluation_report


def outcome(right: str, read: str, name: str = "name", score: float = -0.1) -> Outcome:
    return Outcome(name, right, read, score, edit_distance(right, read), math.nan)


def texts(figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    """Return an evaluation of 40 images with partly wrong labels, and of one that could not be read."""
    checkpoint = Recognizer.load().checkpoint
    source = FormulaSource(look="contest", renderer="captcha", seed=77)
    samples, _ = collect(source, range(40), checkpoint.preprocess)
    samples.texts = ["0" + text[1:] if text[0].isdigit() else text for text in samples.texts]
    samples.names = ["<a&b>$x$"] * 40
    return evaluate_samples(
        checkpoint.model, samples, checkpoint.alphabet, checkpoint.preprocess,
        problems=[Problem("<none>.png", "no such file")],
    )  # fmt: skip


def test_report(evaluation, tmp_path):
    page = Page(write_evaluation_report(evaluation, tmp_path / "new" / "report", "<mine> & yours"))
    sizes = page.check_pictures()
    assert list(sizes) == ["confusion", "accuracy", "worst"]
    assert all(min(size) > 200 for size in sizes.values())
    assert "<mine> & yours" in page.text and f"{evaluation.correct} of 40" in page.text
    assert "<none>.png: no such file" in page.text
    for shares in (evaluation.by_kind(), evaluation.by_length(), evaluation.by_contrast()):
        for share in shares.values():
            assert f"{100 * share.exact_match:.2f}%{share.correct}{share.count}\n" in page.text
    assert evaluation.domain is not None
    for kind in evaluation.by_kind():
        assert evaluation.domain.kinds[kind].replace("\n", " ") in page.text


def test_pictures_show_the_figures(evaluation):
    confused = {str(n) for (right, read), n in evaluation.confusion().items() if right != read}
    assert confused and confused <= set(texts(plot_confusion(evaluation)))
    accuracy = plot_accuracy(evaluation)
    groups = [evaluation.by_length(), evaluation.by_contrast(), evaluation.by_kind()]
    assert texts(accuracy) == [f"{share.count}" for shares in groups for share in shares.values()]
    assert evaluation.domain is not None
    kinds = [label.get_text() for label in accuracy.axes[2].get_xticklabels()]
    assert kinds == [evaluation.domain.kinds[kind] for kind in evaluation.by_kind()]
    worst = plot_worst(evaluation)
    drawn = texts(worst)
    assert sum(text.endswith("<a&b>$x$") for text in drawn) == 30
    first = evaluation.outcomes[evaluation.worst()[0]]
    assert any(text.startswith(f"{100 * math.exp(first.score):.3g}%") for text in drawn)
    for figure in (accuracy, worst):
        assert not any(text.get_parse_math() for axes in figure.axes for text in axes.texts)


def test_mistakes_are_colored():
    result = Evaluation([outcome("1+中$", "1-中")], Samples([np.zeros((32, 90), np.uint8)]))
    shown = [
        (text.get_text(), text.get_color(), text.get_position()[0])
        for text in plot_worst(result).axes[1].texts[:-1]
    ]
    _, ink, _ = shown[0]
    assert [(text, color != ink) for text, color, _ in shown] == [
        ("1", False), ("1", False), ("+", False), ("-", True), ("中", False), ("中", False), ("$", False),
        ("·", True),
    ]  # fmt: skip
    assert [round(14 * x) for _, _, x in shown] == [
        0,
        0,
        1,
        1,
        2,
        2,
        4,
        4,
    ]  # a wide character takes two columns


def test_reports_of_odd_evaluations(tmp_path):
    empty = Page(write_evaluation_report(Evaluation(), tmp_path, "nothing"))
    assert "0 of 0" in empty.text and len(empty.check_pictures()) == 3
    many = [chr(0x100 + i) for i in range(120)]
    outcomes = [outcome(a, b, "\x07.png") for a, b in zip(many, [*many[1:], "$"], strict=True)]
    images = [np.zeros((32, 5 + 12 * i), np.uint8) for i in range(120)]
    result = Evaluation(outcomes, Samples(images, many, many))
    write_evaluation_report(result, tmp_path, "many")
    labels = plot_confusion(result).axes[0].get_xticklabels()
    assert len(labels) == 41 and not any(label.get_parse_math() for label in labels)
    assert len(plot_accuracy(result).axes) == 1
    assert any("\\x07.png" in text for text in texts(plot_worst(result)))


def test_many_lengths_are_joined():
    result = Evaluation([outcome("a" * n, "a" * n if n % 2 else "") for n in range(1, 51)])
    (axes,) = plot_accuracy(result).axes
    assert [text.get_text() for text in axes.texts] == ["3"] * 16 + ["2"]
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels[0] == "1 to\n3" and labels[-1] == "49 to\n50"


def test_the_worst_need_their_images():
    with pytest.raises(ValueError, match="evaluation has 0 samples, expected one for each of its 1 outcomes"):
        plot_worst(Evaluation([outcome("1", "2")]))
