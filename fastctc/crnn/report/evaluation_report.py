"""The report of an evaluation."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from fastctc.crnn.read import CONTRAST_BINS, Evaluation, Share
from fastctc.crnn.report.evaluation_figures import plot_accuracy, plot_confusion, plot_worst
from fastctc.crnn.report.page import Section, Table, write_page


def write_evaluation_report(evaluation: Evaluation, folder: str | Path, title: str) -> Path:
    """Write ``report.html``, ``confusion.png``, ``accuracy.png`` and ``worst.png``, each whole or not at all.

    Args:
        evaluation: with its samples, whose images are shown.
        folder: made if missing; files of these names are replaced.
        title: names of the model and the data.

    Returns:
        The path of the page.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        ValueError: the evaluation does not have the samples of its outcomes.
    """
    sections = [
        Section(
            "confusion", "Confused characters",
            "Each row is a right character, each column what was read instead. The number on the right counts"
            " the mistakes of the row.",
            partial(plot_confusion, evaluation),
        ),
        Section(
            "accuracy", "Accuracy of groups", "The tables above have the same figures.",
            partial(plot_accuracy, evaluation),
        ),
        Section(
            "worst", "The worst samples",
            "The images are what the model saw. Below the texts stand the probability of what was read, and"
            " the name of the sample.",
            partial(plot_worst, evaluation),
        ),
    ]  # fmt: skip
    problems = {"Samples that cannot be read": evaluation.problems}
    return write_page(
        Path(folder), title, _facts(evaluation), sections, tables=_tables(evaluation), problems=problems
    )


def _facts(evaluation: Evaluation) -> dict[str, str]:
    """Return the figures as text, by subject."""
    low, high = Share(evaluation.correct, evaluation.count).interval()
    return {
        "exact match": f"{100 * evaluation.exact_match:.2f}% ({evaluation.correct:,} of {evaluation.count:,});"
        f" 95% confidence: {100 * low:.2f}% to {100 * high:.2f}%",
        "character error rate": f"{100 * evaluation.character_error_rate:.3f}% ({evaluation.edits:,} edits,"
        f" {evaluation.characters:,} characters)",
    }


def _tables(evaluation: Evaluation) -> list[Table]:
    """Return a table of exact match for each way of grouping that has groups."""
    domain = evaluation.domain
    names = {} if domain is None else {kind: " ".join(name.split()) for kind, name in domain.kinds.items()}
    groups: dict[str, Iterable[tuple[str, Share]]] = {
        "kind": [(names[kind], share) for kind, share in evaluation.by_kind().items()],
        "characters": [(str(length), share) for length, share in evaluation.by_length().items()],
        "contrast": [
            (f"{low:.2f} to {low + 1 / CONTRAST_BINS:.2f}", share)
            for low, share in evaluation.by_contrast().items()
        ],
    }
    return [
        Table(
            (name, "exact match", "correct", "samples"),
            [(key, f"{100 * s.exact_match:.2f}%", f"{s.correct:,}", f"{s.count:,}") for key, s in shares],
        )
        for name, shares in groups.items()
        if shares
    ]
