"""Accuracy of a model: exact match, character error rate, and its mistakes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from fastctc.crnn.data import (
    Constraint,
    Domain,
    NamedSource,
    PreprocessConfig,
    Problem,
    Samples,
    collect_all,
    domain_of,
    open_source,
    own_torch_state,
)
from fastctc.crnn.model import CRNN, small_letters
from fastctc.crnn.read.calibration import calibration_error, confidence_of, fitted_temperature
from fastctc.crnn.read.decoding import Decoder, Hypothesis, Scorers
from fastctc.crnn.read.inference import reading_config
from fastctc.crnn.read.looking import Look, look
from fastctc.crnn.read.recognize import Recognizer
from fastctc.text import Alphabet

CONTRAST_BINS = 20
"""Bins of contrast between 0 and 1; none is above 0.5."""

_Key = TypeVar("_Key", bound=Hashable)


class Outcome(NamedTuple):
    """The result of one sample.

    Attributes:
        name: name of the sample.
        right: the text it shows.
        read: the text that was read.
        score: natural-log probability of ``read``.
        edits: character insertions, deletions and substitutions from ``right`` to ``read``.
        contrast: see :class:`fastctc.crnn.data.Prepared`; NaN if it was not measured.
    """

    name: str
    right: str
    read: str
    score: float
    edits: int
    contrast: float


@dataclass(frozen=True)
class Share:
    """How many of a group of samples were read exactly."""

    correct: int
    count: int

    @property
    def exact_match(self) -> float:
        """Return the share, 0 to 1; 0 if the group is empty."""
        return self.correct / max(1, self.count)

    def interval(self) -> tuple[float, float]:
        """Return the bounds of the true share with 95% confidence.

        (Wilson, "Probable inference, the law of succession, and statistical inference", 1927.)

        >>> [round(bound, 3) for bound in Share(95, 100).interval()]
        [0.888, 0.978]
        """
        if self.count == 0:
            return 0.0, 1.0
        z, n, p = 1.959964, self.count, self.exact_match
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, middle - half), min(1.0, middle + half)


@dataclass
class Evaluation:
    """The results of a set of samples.

    Attributes:
        outcomes: of the samples, in their order.
        samples: what was read, for pictures of it.
        problems: samples that could not be read; they are not counted.
        temperature: of the model, see :class:`fastctc.crnn.Checkpoint`.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    samples: Samples = field(default_factory=Samples, repr=False, compare=False)
    problems: list[Problem] = field(default_factory=list)
    temperature: float = 1.0

    @property
    def calibration_error(self) -> float:
        """Return the expected distance of confidence from the share of exact texts, 0 to 1."""
        confidences = [confidence_of(outcome.score, self.temperature) for outcome in self.outcomes]
        return calibration_error(confidences, [outcome.edits == 0 for outcome in self.outcomes])

    def calibrated(self, hottest: float = math.inf) -> Evaluation:
        """Return the evaluation with the temperature that ``fastctc.crnn.read.fitted_temperature`` finds.

        Args:
            hottest: temperature at most.

        Raises:
            ValueError: no text has a finite score.
        """
        scores = [outcome.score for outcome in self.outcomes]
        exact = [outcome.edits == 0 for outcome in self.outcomes]
        return replace(self, temperature=min(hottest, fitted_temperature(scores, exact)))

    @property
    def count(self) -> int:
        """Return the number of samples read."""
        return len(self.outcomes)

    @property
    def correct(self) -> int:
        """Return the number of samples read exactly."""
        return sum(outcome.edits == 0 for outcome in self.outcomes)

    @property
    def exact_match(self) -> float:
        """Return the share of the samples read exactly, 0 to 1; 0 if there are none."""
        return self.correct / max(1, self.count)

    @property
    def edits(self) -> int:
        """Return the character insertions, deletions and substitutions from the right to the read texts."""
        return sum(outcome.edits for outcome in self.outcomes)

    @property
    def characters(self) -> int:
        """Return the number of characters of the right texts."""
        return sum(len(outcome.right) for outcome in self.outcomes)

    @property
    def character_error_rate(self) -> float:
        """Return the edits per character of the right texts."""
        return self.edits / max(1, self.characters)

    @property
    def mistakes(self) -> list[Outcome]:
        """Return the samples not read exactly."""
        return [outcome for outcome in self.outcomes if outcome.edits]

    def by_length(self) -> dict[int, Share]:
        """Return shares by the number of characters of the right text, ascending."""
        return _shares((len(outcome.right), outcome) for outcome in self.outcomes)

    def by_contrast(self) -> dict[float, Share]:
        """Return shares by contrast: the lower ends of bins of 1/20, ascending."""
        return _shares(
            (math.floor(outcome.contrast * CONTRAST_BINS) / CONTRAST_BINS, outcome)
            for outcome in self.outcomes
            if not math.isnan(outcome.contrast)
        )

    @property
    def domain(self) -> Domain | None:
        """Return the domain that all right texts belong to; None if there is none."""
        return domain_of([outcome.right for outcome in self.outcomes])

    def by_kind(self) -> dict[str, Share]:
        """Return shares by the kind of the right text, such as equations that hold; empty without a domain."""
        domain = self.domain
        if domain is None:
            return {}
        return _shares((domain.kind(outcome.right) or "", outcome) for outcome in self.outcomes)

    def confusion(self) -> Counter[tuple[str, str]]:
        """Return the count of each pair of a right and a read character; ``""`` is a missing character."""
        return Counter(
            pair for outcome in self.outcomes for pair in edit_alignment(outcome.right, outcome.read)
        )

    def worst(self) -> list[int]:
        """Return indices of the samples, the worst first: by edits, then by the certainty of the mistake.

        Samples read exactly come last, the least certain first.
        """

        def badness(index: int) -> tuple[int, float]:
            outcome = self.outcomes[index]
            return -outcome.edits, -outcome.score if outcome.edits else outcome.score

        return sorted(range(self.count), key=badness)

    def summary(self) -> str:
        """Return the accuracy as one line of text."""
        return (
            f"exact match {100 * self.exact_match:.2f}% ({self.correct} of {self.count}),"
            f" character error rate {100 * self.character_error_rate:.3f}%"
        )

    def figures(self) -> dict[str, Any]:
        """Return all figures as JSON, without the single samples."""
        confusion = sorted(self.confusion().items(), key=lambda item: (-item[1], item[0]))
        return {
            "count": self.count, "correct": self.correct, "exact_match": self.exact_match,
            "character_error_rate": self.character_error_rate, "edits": self.edits,
            "characters": self.characters, "calibration_error": self.calibration_error,
            "by_kind": [{"kind": kind} | asdict(share) for kind, share in self.by_kind().items()],
            "by_length": [{"length": length} | asdict(share) for length, share in self.by_length().items()],
            "by_contrast": [
                {"from": low, "to": (round(low * CONTRAST_BINS) + 1) / CONTRAST_BINS} | asdict(share)
                for low, share in self.by_contrast().items()
            ],
            "confusion": [
                {"right": right, "read": read, "count": count}
                for (right, read), count in confusion if right != read
            ],
        }  # fmt: skip


def evaluate(
    recognizer: Recognizer,
    data: str | Path | NamedSource,
    *,
    batch_size: int = 128,
    beam_size: int | None = None,
    constraint: Constraint | None = None,
    scorer: Scorers | None = None,
    workers: int | None = 0,
    on_progress: Callable[[int], object] = lambda done: None,
) -> Evaluation:
    """Read a labeled data set and compare what is read with the labels.

    Args:
        recognizer: reads the images; without case, the labels are compared in small letters.
        data: a folder, a labels file or an LMDB, see :func:`fastctc.crnn.open_source`, or what it returns.
        batch_size: images that go through the model together; no influence on the result.
        beam_size: see :meth:`fastctc.crnn.Recognizer.read`, as for ``constraint`` and ``scorer``.
        constraint: which texts are allowed; None: all.
        scorer: what weighs texts.
        workers: processes that read images; 0 reads in this one; None: one for each CPU if they are worth it.
        on_progress: called with the number of samples done since the last call.

    Returns:
        The evaluation. Images that cannot be read are its ``problems``, and not counted.

    Raises:
        fastctc.crnn.LabelError: the labels cannot be read.
    """
    source = open_source(data) if isinstance(data, str | Path) else data
    checkpoint = recognizer.checkpoint
    samples, problems = collect_all(source, reading_config(checkpoint.preprocess), workers=workers)
    if recognizer.ignore_case:
        samples.texts = [small_letters(text) for text in samples.texts]
    decoder = recognizer.decoder(beam_size=beam_size, constraint=constraint, scorer=scorer)

    def see(part: slice) -> list[Look]:
        numbers = samples.numbers[part]
        return recognizer.look(samples.images[part], lambda n: source(numbers[n])[0], decoder)

    result = _evaluated(samples, problems, see, decoder, batch_size, on_progress)
    result.temperature = checkpoint.temperature
    return result


@own_torch_state()
def evaluate_samples(
    model: CRNN,
    samples: Samples,
    alphabet: Alphabet,
    preprocess: PreprocessConfig,
    *,
    batch_size: int = 128,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
    decoder: Decoder | None = None,
    problems: Sequence[Problem] = (),
    on_progress: Callable[[int], object] = lambda done: None,
) -> Evaluation:
    """Read samples in memory; the model is left in the mode it was in.

    A sample for which the model's output is not a number becomes a problem.

    Args:
        model: on ``device``.
        samples: images with the texts they show.
        alphabet: characters and blank of the model.
        preprocess: the settings the images were made with.
        batch_size: images that go through the model together; no influence on the result.
        device: where the model is.
        precision: see :func:`fastctc.crnn.read.infer`.
        decoder: finds the texts; None: greedily.
        problems: of samples that could not be read.
        on_progress: called with the number of samples read since the last call.
    """
    decoder = decoder or Decoder(alphabet)

    def see(part: slice) -> list[Look]:
        return look(model, samples.images[part], preprocess, decoder, device, precision)

    was_training = model.training
    model.eval()
    result = _evaluated(samples, problems, see, decoder, batch_size, on_progress)
    model.train(was_training)
    return result


def _evaluated(
    samples: Samples,
    problems: Sequence[Problem],
    see: Callable[[slice], list[Look]],
    decoder: Decoder,
    batch_size: int,
    on_progress: Callable[[int], object],
) -> Evaluation:
    """Return the evaluation of what ``see`` sees in parts of the samples."""
    contrasts = samples.contrasts or [math.nan] * len(samples)
    result = Evaluation(samples=samples, problems=list(problems))
    counted: list[int] = []
    for start in range(0, len(samples), batch_size):
        part = slice(start, start + batch_size)
        for n, (seen, name, right, contrast) in enumerate(
            zip(
                see(part),
                samples.names[part],
                samples.texts[part],
                contrasts[part],
                strict=True,
            )
        ):
            if not seen.hypotheses and not bool((seen.log_probs < math.inf).all()):
                result.problems.append(Problem(name, decoder.why_no_hypothesis(seen.log_probs)))
                continue
            counted.append(start + n)
            best = seen.hypotheses[0] if seen.hypotheses else Hypothesis("", -math.inf)
            edits = edit_distance(right, best.text)
            result.outcomes.append(Outcome(name, right, best.text, best.log_prob, edits, contrast))
        on_progress(len(samples.images[part]))
    if len(counted) < len(samples):
        result.samples = samples.subset(counted)
    return result


def edit_distance(a: Sequence[str], b: Sequence[str]) -> int:
    """Return the Levenshtein distance: the fewest insertions, deletions and substitutions from ``a`` to ``b``."""
    return sum(x != y for x, y in edit_alignment(a, b))


def edit_alignment(a: Sequence[str], b: Sequence[str]) -> list[tuple[str, str]]:
    """Return the characters, or words, of ``a`` and ``b`` in pairs with the fewest edits; ``""`` stands for none.

    >>> edit_alignment("1-2=5", "1+25")
    [('1', '1'), ('-', '+'), ('2', '2'), ('=', ''), ('5', '5')]
    """
    if a == b:
        return list(zip(a, b, strict=True))
    costs = [list(range(len(b) + 1))]
    for i, x in enumerate(a, start=1):
        above, row = costs[-1], [i]
        for j, y in enumerate(b, start=1):
            row.append(min(above[j - 1] + (x != y), above[j] + 1, row[-1] + 1))
        costs.append(row)
    pairs = []
    i, j = len(a), len(b)
    while i or j:
        if i and j and costs[i][j] == costs[i - 1][j - 1] + (a[i - 1] != b[j - 1]):
            i, j = i - 1, j - 1
            pairs.append((a[i], b[j]))
        elif i and costs[i][j] == costs[i - 1][j] + 1:
            i -= 1
            pairs.append((a[i], ""))
        else:
            j -= 1
            pairs.append(("", b[j]))
    return pairs[::-1]


def _shares(keyed: Iterable[tuple[_Key, Outcome]]) -> dict[_Key, Share]:
    """Return the share of each key's samples, by key, ascending."""
    correct: Counter[Any] = Counter()
    count: Counter[Any] = Counter()
    for key, outcome in keyed:
        count[key] += 1
        correct[key] += outcome.edits == 0
    return {key: Share(correct[key], count[key]) for key in sorted(count)}
