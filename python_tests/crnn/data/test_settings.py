"""Settings of configurations: their types and bounds, and that each is described and offered in one place."""

from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import pytest

from fastctc import cli
from fastctc.crnn import FormulaDraw, TrainConfig
from fastctc.crnn.data import at_least, between, check_settings, help_of, kind_of, setting
from fastctc.crnn.training import GROUPS


@dataclass(frozen=True)
class Example:
    """A configuration.

    Attributes:
        count: how many. More is said here.
        share: a part of it, see :class:`~fastctc.Other`; and ``more``
            on a second line.
        kind: which.
        on: whether.
    """

    count: int = setting(1, **at_least(1))
    share: float | None = setting(None, **between(0, 1, "parts"))
    kind: Literal["a", "b"] = setting("a")
    on: bool = setting(False)

    def __post_init__(self) -> None:
        check_settings(self)


def test_types_and_bounds_are_checked():
    assert Example(np.int64(3), np.float32(0.5), "b", True).count == 3 and Example(2, 1).share == 1
    for wrong, error, message in [
        ({"count": 0}, ValueError, "count is 0, expected at least 1"),
        ({"count": 1.5}, TypeError, r"count is 1\.5, expected a whole number"),
        ({"count": True}, TypeError, "count is True, expected a whole number"),
        ({"count": None}, TypeError, "count is None, expected a whole number"),
        ({"share": 1.1}, ValueError, r"share is 1\.1, expected 0 to 1 parts"),
        ({"share": float("nan")}, ValueError, "share is nan"),
        ({"share": "0"}, TypeError, "share is '0', expected a number"),
        ({"kind": "c"}, ValueError, "kind is 'c', expected 'a' or 'b'"),
        ({"on": 1}, TypeError, "on is 1, expected true or false"),
    ]:
        with pytest.raises(error, match=message):
            Example(**wrong)


def test_the_help_is_the_first_sentence_of_the_docstring():
    assert help_of(Example) == {
        "count": "how many",
        "share": "a part of it",
        "kind": "which",
        "on": "whether",
    }
    assert kind_of(Example, "share") == (float, True, ()) and kind_of(Example, "kind")[2] == ("a", "b")


@pytest.mark.parametrize("config", [TrainConfig, FormulaDraw, *GROUPS.values()])
def test_every_setting_is_described_and_offered(config, capsys):
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    settings = [each for each in fields(config) if "check" in each.metadata]
    assert settings
    for each in settings:
        option = "--" + each.metadata.get("option", each.name).replace("_", "-")
        assert f"{option} " in shown, option
        assert help_of(config)[each.name] in shown.replace("%%", "%"), each.name
