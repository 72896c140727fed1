"""JSON as its standard has it: numbers that are not finite become null."""

from __future__ import annotations

import json
import math
from typing import Any


def finite(value: Any) -> Any:
    """Return JSON data whose numbers are all finite; None stands for NaN and the infinities."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(each) for each in value]
    return value


def to_json(value: Any, **options: Any) -> str:
    """Return JSON text in ASCII, with null for NaN and the infinities.

    Args:
        value: dictionaries, lists, texts, numbers, booleans and None.
        options: of :func:`json.dumps`.
    """
    return json.dumps(finite(value), allow_nan=False, **options)
