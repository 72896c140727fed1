"""Settings: fields of a configuration with their bounds, their help and their options.

A configuration is a frozen dataclass. A field made by :func:`setting` holds everything about itself:

- :func:`check_settings` checks it;
- the command line offers it as an option;
- its help is the first sentence about it in the docstring of the class.
"""

from __future__ import annotations

import inspect
import math
import numbers
import re
from collections.abc import Callable
from dataclasses import Field, field, fields
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

Check = Callable[[Any], bool]


def setting(
    default: Any, check: Check | None = None, expected: str = "", *, metavar: str | None = None, **more: Any
) -> Any:
    """Return a field of a configuration.

    Args:
        default: its value if none is given.
        check: returns True for an allowed value; not called with None.
        expected: what is allowed, for the error.
        metavar: name of the value on the command line.
        more: other entries of the field's metadata.
    """
    return field(default=default, metadata={"check": check, "expected": expected, "metavar": metavar, **more})


def at_least(low: float) -> dict[str, Any]:
    """Return the arguments of a setting that is no less than ``low``."""
    return {"check": lambda value: low <= value < math.inf, "expected": f"at least {low:g}"}


def more_than(low: float) -> dict[str, Any]:
    """Return the arguments of a setting that is more than ``low``."""
    return {"check": lambda value: low < value < math.inf, "expected": f"more than {low:g}"}


def between(low: float, high: float, unit: str = "") -> dict[str, Any]:
    """Return the arguments of a setting from ``low`` to ``high``."""
    return {
        "check": lambda value: low <= value <= high,
        "expected": f"{low:g} to {high:g}{unit and ' ' + unit}",
    }


def check_settings(config: Any) -> None:
    """Check the settings of a configuration by their types, choices and bounds.

    Raises:
        TypeError: a value of another type.
        ValueError: a value out of bounds, or not among the choices.
    """
    for each in fields(config):
        name, value = each.name, getattr(config, each.name)
        kind, optional, choices = kind_of(config.__class__, name)
        if value is None and optional:
            continue
        if choices and value not in choices:
            raise ValueError(f"{name} is {value!r}, expected {_listed(choices)}")
        types, expected = _TYPES.get(kind, (object, ""))
        if not isinstance(value, types) or (kind in _TYPES and isinstance(value, bool) != (kind is bool)):
            raise TypeError(f"{name} is {value!r}, expected {expected}")
        check = each.metadata.get("check")
        if check is not None and not check(value):
            raise ValueError(f"{name} is {value}, expected {each.metadata['expected']}")


_TYPES: dict[Any, tuple[Any, str]] = {
    int: (numbers.Integral, "a whole number"),
    float: (numbers.Real, "a number"),
    bool: (bool, "true or false"),
    str: (str, "a text"),
}


@cache
def kind_of(config: type, name: str) -> tuple[Any, bool, tuple[Any, ...]]:
    """Return the type of a field, whether it may be None, and its choices."""
    hint = get_type_hints(config)[name]
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    optional = type(None) in get_args(hint)
    if optional:
        (hint,) = kinds
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    return (type(choices[0]) if choices else hint), optional, choices


@cache
def help_of(config: type) -> dict[str, str]:
    """Return the first sentence that a configuration's docstring has about each of its fields, as plain text."""
    attributes = (inspect.getdoc(config) or "").partition("Attributes:\n")[2]
    found = {}
    for name, text in re.findall(r"^    (\w+): (.*\n(?:^ {8}.*\n?)*)", attributes + "\n", re.MULTILINE):
        sentence = re.split(r",? see :|\.\s", " ".join(text.split()) + " ")[0]
        found[name] = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`|`+", lambda match: match[1] or "", sentence)
    return found


def settings_of(config: type, key: str) -> list[Field[Any]]:
    """Return the fields of a configuration whose metadata has ``key``, in their order."""
    return [each for each in fields(config) if each.metadata.get(key) is not None]


def _listed(choices: tuple[Any, ...]) -> str:
    *others, last = map(repr, choices)
    return f"{', '.join(others)} or {last}" if others else last
