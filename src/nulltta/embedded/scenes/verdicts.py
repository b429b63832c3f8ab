"""Verdicts of the judge in figures: shares by category, and thirds of prompts by how often they come out right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from .grammar import CATEGORIES, parse

Verdict = Mapping[str, bool | None]


def shares(verdicts: Sequence[Verdict], prompts: Sequence[str]) -> dict[str, float]:
    """Return the shares of images that show all of their prompt, of all facts, and of what the judge cannot tell.

    Returns:
        "all": everything right; the same by category; "facts": the mean share of facts; "unclear": images of which
        nothing is wrong, but something cannot be told.
    """
    right = [all(v is True for v in verdict.values()) for verdict in verdicts]
    found = {"all": fmean(right)}
    for category in CATEGORIES:
        of = [r for r, prompt in zip(right, prompts, strict=True) if parse(prompt).category == category]
        if of:
            found[category] = fmean(of)
    found["facts"] = fmean(fmean(v is True for v in verdict.values()) for verdict in verdicts)
    found["unclear"] = fmean(None in verdict.values() and False not in verdict.values() for verdict in verdicts)
    return {key: round(value, 4) for key, value in found.items()}


def thirds(found: Sequence[float]) -> dict[str, float]:
    """Return the mean rate, the shares of prompts below 0.2 and above 0.8, and the mean of each third by rate."""
    ordered, n = sorted(found), len(found)
    parts = {f"third{k + 1}": fmean(ordered[k * n // 3 : (k + 1) * n // 3]) for k in range(3)}
    low, high = fmean(rate < 0.2 for rate in found), fmean(rate > 0.8 for rate in found)
    return {"mean": fmean(found), "below 0.2": low, "above 0.8": high, **parts}
