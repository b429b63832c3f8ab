"""Checks of a settings dataclass's fields: each names the field, says what it must be and what it was."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from nulltta.errors import NullTTAError


def whole(settings: Any, name: str, at_least: int) -> None:
    """Refuse a field that is no whole number, or below `at_least`."""
    value = getattr(settings, name)
    if type(value) is not int or value < at_least:
        raise NullTTAError(f"{name} must be a whole number, {at_least} or more, not {value}")


def number(settings: Any, name: str, or_else: str = "") -> None:
    """Refuse a field that is no finite number, or below 0."""
    value = getattr(settings, name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise NullTTAError(f"{name} must be a number, 0 or more{or_else}, not {value}")


def one_of(settings: Any, name: str, allowed: Iterable[str]) -> None:
    """Refuse a field that is none of the allowed words."""
    if (value := getattr(settings, name)) not in allowed:
        raise NullTTAError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
