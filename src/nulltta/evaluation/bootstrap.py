"""The mean gain of a paired comparison, its bootstrap interval, and its size relative to the spread of the scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nulltta.errors import InvalidValue


@dataclass(frozen=True, slots=True)
class Gain:
    """The gain of one measure over n prompts: aligned minus plain, paired by prompt.

    Attributes:
        n: the number of prompts.
        plain, aligned: the mean scores.
        mean: the mean gain.
        low, high: the ends of the 95% interval of `mean`.
        spread: the standard deviation over prompts (n − 1) of the plain scores, which is the unit of `in_spreads`.
        wins: the share of prompts whose gain is above 0.
    """

    n: int
    plain: float
    aligned: float
    mean: float
    low: float
    high: float
    spread: float
    wins: float

    @property
    def in_spreads(self) -> tuple[float, float, float] | None:
        """`mean`, `low` and `high` in standard deviations of the plain scores; None if these do not vary."""
        if self.spread == 0:
            return None
        return self.mean / self.spread, self.low / self.spread, self.high / self.spread


def bootstrap_interval(
    values: Sequence[float], rng: np.random.Generator, *, level: float = 0.95, resamples: int = 10_000
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean (Efron and Tibshirani, 1993, chapter 13).

    Raises:
        InvalidValue: if there are no values, or one of them is not finite.
    """
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or not len(sample) or not np.isfinite(sample).all():
        raise InvalidValue("a bootstrap interval needs at least one value, all of them finite")
    means = rng.choice(sample, size=(resamples, len(sample))).mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_gain(plain: Sequence[float], aligned: Sequence[float], rng: np.random.Generator) -> Gain:
    """Compare aligned with plain scores of the same prompts, in the same order, with a 95% interval.

    Raises:
        InvalidValue: if the two differ in length, hold fewer than two scores, or hold a number that is not finite.
    """
    if len(plain) != len(aligned) or len(plain) < 2:
        raise InvalidValue(f"a paired comparison needs two or more pairs, not {len(plain)} and {len(aligned)} scores")
    before, after = np.asarray(plain, dtype=np.float64), np.asarray(aligned, dtype=np.float64)
    gains = after - before
    low, high = bootstrap_interval(gains.tolist(), rng)
    return Gain(
        n=len(gains), plain=float(before.mean()), aligned=float(after.mean()), mean=float(gains.mean()),
        low=low, high=high, spread=float(before.std(ddof=1)), wins=float((gains > 0).mean()),
    )  # fmt: skip
