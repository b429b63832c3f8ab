"""Formatting of scores and gains."""

from __future__ import annotations

import math

import pytest

from nulltta.display.formatting import number, sign, signed


@pytest.mark.parametrize(
    ("gain", "shown", "direction"),
    [
        (0.0124, "+0.012", 1), (-0.0124, "-0.012", -1), (-0.0001, "0.000", 0), (0.0004, "0.000", 0),
        (0.0, "0.000", 0), (math.nan, "–", 0), (-123.456, "-123.5", -1), (1234.5, "+1234", 1),
    ],
)  # fmt: skip
def test_a_gain_has_a_sign_unless_it_rounds_to_zero(gain: float, shown: str, direction: int) -> None:
    assert signed(gain) == shown
    assert sign(gain) == direction


def test_a_score_takes_few_characters() -> None:
    assert [number(value) for value in (0.12345, 99.9999, 100.0, 12345.6, math.nan)] == [
        "0.123", "100.000", "100", "1.235e+04", "–",
    ]  # fmt: skip
