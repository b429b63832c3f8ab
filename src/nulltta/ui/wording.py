"""Durations, headlines and file names in words."""

from __future__ import annotations

import re

from nulltta.display.formatting import number, signed
from nulltta.evaluation.comparison import Comparison

LONGEST_NAME = 48
"""The number of characters of a prompt that a file name keeps."""


def duration(seconds: float) -> str:
    """Format a duration as "8 s", "2 min 5 s" or "1 h 3 min"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole % 60} s"


def headline(comparison: Comparison) -> str:
    """Return one line on a result: "clip 0.888 → 0.932 · clip-b +0.043 · facts 0.750 → 1.000"."""
    said = []
    for name, score in comparison.scores.items():
        if score.role == "target" or name == "facts":
            said.append(f"{name} {number(score.plain)} → {number(score.aligned)}")
        elif score.role == "held out":
            said.append(f"{name} {signed(score.gain)}")
    return " · ".join(part for part in said if "–" not in part)


def file_name(prompt: str, seed: int, ending: str) -> str:
    """Return the name that a browser saves a file under: "two-foxes-seed-0.png"."""
    words = "-".join(re.findall(r"\w+", prompt.lower()))[:LONGEST_NAME].strip("-")
    return f"{words or 'nulltta'}-seed-{seed}{ending}"
