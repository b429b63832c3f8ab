"""Tests of paired differences, and their correction for the number of comparisons."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

CHUNK = 10_000  # draws of signs that are held at once


def sign_test(differences: Sequence[float] | np.ndarray, draws: int = 20_000) -> float:
    """Return the two-sided p-value of a mean of 0, from random signs of the differences (Fisher, 1935).

    It is at least 1/(1 + draws). The signs come from a generator of their own, so that the value is repeatable.
    """
    return float(sign_tests(np.asarray(differences, dtype=np.float64)[:, None], draws)[0])


def sign_tests(differences: np.ndarray, draws: int = 20_000) -> np.ndarray:
    """Return the p-values of several sign tests that share their random signs.

    Args:
        differences: (pairs, tests).
        draws: random signs per pair. A p-value is at least 1/(1 + draws), so that a correction for m tests needs many
            times m draws before any of them can count.

    Returns:
        (tests,) two-sided p-values.
    """
    pairs, tests = differences.shape
    observed = np.abs(differences.sum(axis=0)) - 1e-12
    rng, extreme = np.random.default_rng(0), np.zeros(tests, dtype=np.int64)
    for start in range(0, draws, CHUNK):
        signs = 2.0 * rng.integers(0, 2, size=(min(CHUNK, draws - start), pairs), dtype=np.int8) - 1.0
        extreme += (np.abs(signs @ differences) >= observed).sum(axis=0)
    return np.asarray((1 + extreme) / (1 + draws))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number, in the same order (Holm, 1979)."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted
