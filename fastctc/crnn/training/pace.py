"""The pace of a run: the position of each step on a plan, and budgets of minutes.

A plan has a number of steps. The learning rate is a function of the position on the plan. In a run with a given
number of steps, each step advances the position by one. In a run with given minutes, the plan has 10,000 steps, and
each step advances by a stride. The stride is chosen so that plan and budget end together. A slower machine gets a
longer stride::

    position   0 ── 4 ── 8 ── 12 ─────── 20 ─────── 28 ...  10,000
                                 busy machine
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

REPLAN_EVERY = 10  # steps; every step at first
PLAN = 10_000
_FIRST_GUESS = 1_000  # steps that fit into a budget, before one was measured
_SPARE = 0.98  # share of the time left that is planned with
_NEWEST = 0.3  # weight of the last steps in the mean time of a step


@dataclass
class Pace:
    """A position on a plan.

    Attributes:
        steps: of the plan.
        position: steps of the plan that are done.
        stride: steps of the plan that each step does.
    """

    steps: int
    position: float = 0.0
    stride: float = 1.0

    @property
    def left(self) -> int:
        """Return the number of steps that are left."""
        return max(0, math.ceil((self.steps - self.position) / self.stride - 1e-6))

    @classmethod
    def of(cls, steps: int | None) -> Pace:
        """Return the pace at the beginning of a run of this many steps, or of minutes if ``steps`` is None."""
        return cls(PLAN, stride=PLAN / _FIRST_GUESS) if steps is None else cls(steps)

    def advance(self) -> None:
        """Count a step."""
        self.position += self.stride

    def fit(self, left: int) -> None:
        """Fit the rest of the plan into ``left`` steps, at least one."""
        if self.left:
            self.stride = (self.steps - self.position) / max(1, left)

    def round_of(self, rounds: int) -> int:
        """Return the number of the part that the position is in, when the plan has ``rounds`` equal parts."""
        return min(int(self.position) * rounds // self.steps, rounds - 1)


class Budget:
    """Measures a run and computes how many steps fit into its time.

    Args:
        seconds: of the whole run.
        spent: seconds spent so far, also before the run was resumed.
        eval_every: steps between evaluations.
        rounds: how many times images are drawn in all.
    """

    def __init__(self, seconds: float, spent: float, eval_every: int, rounds: int) -> None:
        self._end = time.monotonic() + seconds - spent
        self._eval_every, self._rounds = eval_every, rounds
        self._step = self._evaluation = self._drawing = 0.0  # seconds of each
        self._begun = time.monotonic()  # of the steps since the last call of steps_left
        self._apart = 0.0  # seconds since then that went into evaluations and drawing

    def evaluated(self, seconds: float) -> None:
        """Note the time of an evaluation."""
        self._evaluation = seconds
        self._apart += seconds

    def drew(self, seconds: float) -> None:
        """Note the time in which the images of a round were drawn."""
        self._drawing = seconds
        self._apart += seconds

    def stepped(self, steps: int) -> None:
        """Note that ``steps`` steps were done since the last call."""
        now = time.monotonic()
        measured = max(1e-6, now - self._begun - self._apart) / steps
        self._step = measured if self._step == 0 else (1 - _NEWEST) * self._step + _NEWEST * measured
        self._begun, self._apart = now, 0.0

    def steps_left(self, number: int) -> int:
        """Return the number of steps that fit into the time left, after evaluations and drawing.

        Args:
            number: of the round of images that is trained on.
        """
        left = self._end - time.monotonic() - self._evaluation - self._drawing * (self._rounds - 1 - number)
        return max(1, int(_SPARE * left / (self._step + self._evaluation / self._eval_every)))
