"""Bootstrap intervals and paired gains, against known values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nulltta.errors import NullTTAError
from nulltta.evaluation.bootstrap import bootstrap_interval, paired_gain


def test_interval_of_normal_values_is_the_textbook_one() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, size=400)
    low, high = bootstrap_interval(values.tolist(), np.random.default_rng(0))
    half = 1.96 * values.std(ddof=1) / math.sqrt(len(values))
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_interval_covers_the_true_mean_at_its_level() -> None:
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(300):
        low, high = bootstrap_interval(rng.normal(size=40).tolist(), rng, level=0.8, resamples=500)
        hits += low < 0 < high
    assert 0.72 < hits / 300 < 0.86


def test_interval_depends_only_on_its_generator() -> None:
    values = np.random.default_rng(3).normal(size=20).tolist()
    first, again, other = (bootstrap_interval(values, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_gain_is_paired() -> None:
    plain = [0.1, 0.5, 0.9, 0.3]
    gain = paired_gain(plain, [score + 0.1 for score in plain], np.random.default_rng(0))
    assert (gain.n, gain.wins) == (4, 1.0)
    assert (gain.mean, gain.low, gain.high) == pytest.approx(
        (0.1, 0.1, 0.1)
    )  # a constant gain has an interval of length 0
    assert gain.spread == pytest.approx(np.std(plain, ddof=1))
    assert gain.in_spreads == pytest.approx((0.1 / gain.spread,) * 3)


def test_wins_count_only_increases() -> None:
    gain = paired_gain([0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 0.5, 1.0], np.random.default_rng(0))
    assert (gain.mean, gain.wins) == (0.125, 0.25)
    assert gain.low < 0 < gain.high


def test_constant_scores_have_no_spread() -> None:
    assert paired_gain([1.0, 1.0], [1.0, 2.0], np.random.default_rng(0)).in_spreads is None


@pytest.mark.parametrize(
    ("plain", "aligned"), [([1.0], [2.0]), ([1.0, 2.0], [1.0]), ([1.0, math.nan], [1.0, 2.0]), ([], [])]
)
def test_values_that_cannot_be_compared_are_refused(plain: list[float], aligned: list[float]) -> None:
    with pytest.raises(NullTTAError):
        paired_gain(plain, aligned, np.random.default_rng(0))
