"""How scores and gains are written, wherever they are shown."""

from __future__ import annotations

import math

SHORT_NAME = 16
"""The length up to which the name of a measure fits beside the numbers of a line."""


def number(value: float) -> str:
    """Return a score in a few characters, or a dash for NaN."""
    return "–" if math.isnan(value) else f"{value:.3f}" if abs(value) < 100 else f"{value:.4g}"


def sign(gain: float) -> int:
    """Return 1 for a gain, -1 for a loss, and 0 for NaN and for what rounds to nothing."""
    return 0 if math.isnan(gain) or abs(gain) < 0.0005 else 1 if gain > 0 else -1


def signed(gain: float) -> str:
    """Return a gain with its sign; what rounds to nothing has none."""
    return f"+{number(gain)}" if sign(gain) > 0 else number(gain if sign(gain) or math.isnan(gain) else 0.0)
