"""Resuming a run: its saved recipe, and the settings that may differ from it.

A resumed run goes on with the saved recipe. A recipe that is given to it may leave settings open (None or
``"auto"``). It may change these settings; it must not contradict the others:

====================================  =======================================================================
data                                  another path to the same images and labels, compared by a fingerprint
val                                   other labeled images, not in place of a part of data
start_from                            another path to the same checkpoint, compared by a hash
steps, minutes                        more of them: the rest of the run follows the longer plan
threads                               any number; the bits of an uninterrupted run need the same number
device                                any device
min_usable                            any share
patience                              any number of evaluations
eval_every, save_every, log_every     any number of steps
====================================  =======================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from fastctc.crnn.data import PreprocessConfig
from fastctc.crnn.model import load_state
from fastctc.crnn.training.config import GROUPS, TrainConfig, config_from_dict
from fastctc.crnn.training.errors import TrainError
from fastctc.crnn.training.fine_tune import digest_of
from fastctc.crnn.training.pace import Pace

STATE_FILE = "state.pt"
RECIPE = "recipe"  # the group of the settings that TrainConfig itself has

Check = Callable[[Any, Any], bool]


def _any(value: Any, has: Any) -> bool:
    return True


def _instead(value: Any, has: Any) -> bool:
    return has is not None


def _more(value: Any, has: Any) -> bool:
    return has is not None and value >= has


MAY_CHANGE: dict[tuple[str, str], tuple[Check, str]] = {
    (RECIPE, "data"): (_any, ""),
    (RECIPE, "val"): (_instead, ""),
    (RECIPE, "threads"): (_any, ""),
    (RECIPE, "device"): (_any, ""),
    (RECIPE, "min_usable"): (_any, ""),
    ("schedule", "steps"): (_more, "at least "),
    ("schedule", "minutes"): (_more, "at least "),
    ("schedule", "eval_every"): (_any, ""),
    ("schedule", "patience"): (_any, ""),
    ("schedule", "save_every"): (_any, ""),
    ("schedule", "log_every"): (_any, ""),
}
"""By group and setting: a check of the new and the saved value, and words for the error."""


class ResumeError(ValueError):
    """A setting that contradicts the run to resume.

    Attributes:
        group: the part of the recipe: ``"recipe"``, ``"draw"`` or one of :data:`GROUPS`.
        setting: the field's name.
        reason: the rest of the message, after the setting's name.
    """

    def __init__(self, group: str, setting: str, reason: str) -> None:
        super().__init__(group, setting, reason)
        self.group, self.setting, self.reason = group, setting, reason

    def __str__(self) -> str:
        return f"{self.setting} {self.reason}"


def saved_state(out: Path) -> dict[str, Any] | None:
    """Return the saved state of the run in a folder; None if there is none."""
    path = out / STATE_FILE
    return load_state(path) if path.exists() else None


def saved_recipe(state: dict[str, Any]) -> TrainConfig:
    """Return the recipe of a saved state."""
    try:
        return config_from_dict(state["config"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise TrainError(f"the saved recipe cannot be used: {error}") from error


def saved_config(out: str | Path) -> TrainConfig | None:
    """Return the recipe of the run in a folder, to resume it with; None if there is no run."""
    state = saved_state(Path(out))
    return None if state is None else saved_recipe(state)


def resumed(config: TrainConfig, state: dict[str, Any]) -> TrainConfig:
    """Return the saved recipe, changed where the given one differs and may.

    Raises:
        ResumeError: a setting contradicts the run.
    """
    saved = saved_recipe(state)
    if (config.draw is None) != (saved.draw is None):
        has = "draws its images" if saved.data is None else f"has {saved.data}"
        raise ResumeError(RECIPE, "data", f"is {config.data or 'left out'}, but the run to resume {has}")
    if type(config.draw) is not type(saved.draw):
        raise ResumeError(
            "draw", "domain", f"is {type(config.draw).__name__}, but the run to resume has another"
        )
    changes: dict[str, dict[str, Any]] = {}
    for group, name, value, has in _differences(config, saved):
        check, expected = MAY_CHANGE.get((group, name), (None, ""))
        if (group, name) == (RECIPE, "start_from"):
            same = has is not None and digest_of(value) == state.get("start")
        else:
            same = check is not None and check(value, has)
        if not same:
            raise ResumeError(group, name, f"is {value}, but the run to resume has {expected}{has}")
        changes.setdefault(group, {})[name] = value
    merged = replace(saved, **changes.pop(RECIPE, {}))
    return replace(
        merged, **{group: replace(getattr(merged, group), **new) for group, new in changes.items()}
    )


def _differences(config: TrainConfig, saved: TrainConfig) -> Iterator[tuple[str, str, Any, Any]]:
    """Yield group, name, given and saved value of the settings that differ and are not left open."""
    is_default = config.start_from is not None and config.preprocess == PreprocessConfig()
    for group in (RECIPE, "draw", *GROUPS):
        if group == "preprocess" and is_default:  # it stands for the checkpoint's
            continue
        given, has = (each if group == RECIPE else getattr(each, group) for each in (config, saved))
        for each in fields(given) if given is not None else ():
            value, before = getattr(given, each.name), getattr(has, each.name)
            is_open = value is None or value == "auto"
            if "check" in each.metadata and not is_open and value != before:
                yield group, each.name, value, before


def pace_of(config: TrainConfig, state: dict[str, Any] | None) -> Pace:
    """Return where a run stands on its plan.

    Args:
        config: its recipe, which may have more steps or minutes than the saved one.
        state: the saved state; None at the beginning.
    """
    schedule = config.schedule
    pace = Pace.of(schedule.steps)
    if state is None:
        return pace
    if "pace" not in state:  # fastctc 0.1 counted steps alone
        pace.position = float(state["step"])
        return pace
    pace = Pace(**state["pace"])
    before = saved_recipe(state).schedule.minutes
    if schedule.steps is not None:
        pace.steps = schedule.steps
    elif before is not None and schedule.minutes is not None:
        pace.position *= before / schedule.minutes
    return pace
