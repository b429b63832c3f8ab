"""Checks of the fields of settings, which blame the field."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from nulltta.errors import InvalidValue


def whole(settings: Any, name: str, at_least: int, at_most: int | None = None) -> None:
    """Check that a field is a whole number of `at_least` or more, and `at_most` or less where there is a limit.

    Raises:
        InvalidValue: if it is not.
    """
    value = getattr(settings, name)
    if type(value) is not int or value < at_least:
        raise InvalidValue(f"must be a whole number, {at_least} or more, not {value}", name)
    if at_most is not None and value > at_most:
        raise InvalidValue(f"must be {at_most} or less, not {value}", name)


def number(settings: Any, name: str, *, positive: bool = False, or_else: str = "") -> None:
    """Check that a field is a finite number, 0 or more, or above 0.

    Raises:
        InvalidValue: if it is not; `or_else` says what else is allowed.
    """
    value = getattr(settings, name)
    valid = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not valid or value < 0 or (positive and value == 0):
        raise InvalidValue(f"must be a number{' above 0' if positive else ', 0 or more'}{or_else}, not {value}", name)


def one_of(settings: Any, name: str, allowed: Iterable[str]) -> None:
    """Check that a field is one of the allowed words.

    Raises:
        InvalidValue: if it is not.
    """
    if (value := getattr(settings, name)) not in allowed:
        raise InvalidValue(f"must be one of {', '.join(allowed)}, not {value!r}", name)
