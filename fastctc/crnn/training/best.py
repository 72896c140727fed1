"""The best evaluation of a run so far, for the checkpoint that is kept and for early stopping."""

from __future__ import annotations

from dataclasses import dataclass

from fastctc.crnn.read import Evaluation


@dataclass
class Best:
    """The best evaluation so far.

    Attributes:
        exact_match: share of unseen images read exactly; -1 before the first evaluation.
        character_error_rate: decides between equal shares.
        step: steps done before the evaluation.
        since: evaluations after it.
    """

    exact_match: float = -1.0
    character_error_rate: float = 0.0
    step: int = 0
    since: int = 0

    def update(self, evaluation: Evaluation, step: int) -> bool:
        """Take an evaluation into account; return True if it is the best so far."""
        exact, errors = evaluation.exact_match, evaluation.character_error_rate
        if (exact, -errors) <= (self.exact_match, -self.character_error_rate):
            self.since += 1
            return False
        self.exact_match, self.character_error_rate, self.step, self.since = exact, errors, step, 0
        return True
