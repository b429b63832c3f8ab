"""Tests of paired differences, and their correction for the number of comparisons."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def sign_test(differences: Sequence[float] | np.ndarray, draws: int = 20_000) -> float:
    """Return the two-sided p-value of a mean of 0, from random signs of the differences (Fisher, 1935).

    It is at least 1/(1 + draws). The signs come from a generator of their own, so that the value is repeatable.
    """
    values = np.asarray(differences, dtype=np.float64)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(draws, len(values)))
    extreme = np.abs(signs @ values) >= abs(values.sum()) - 1e-12
    return float((1 + extreme.sum()) / (1 + draws))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number, in the same order (Holm, 1979)."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted
