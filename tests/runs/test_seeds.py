"""Parsing seeds and ranges of seeds."""

from __future__ import annotations

import pytest

from nulltta.errors import InvalidValue
from nulltta.runs.seeds import parse_seeds


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("0", [0]), ("7", [7]), ("0-3", [0, 1, 2, 3]), ("5-5", [5]), ("9,0,4", [9, 0, 4]), ("8,0-2", [8, 0, 1, 2]),
        ("007", [7]), (str(2**63 - 1), [2**63 - 1]),
    ],
)  # fmt: skip
def test_seeds_and_ranges(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "'' is neither"), ("a", "'a' is neither"), ("-1", "'-1' is neither"), ("1-", "'1-' is neither"),
        ("1,", "'' is neither"), ("0:7", "'0:7' is neither"), ("1.5", "'1.5' is neither"), ("0, 1", "' 1' is neither"),
        ("1-2-3", "is neither"), ("٣", "is neither"), ("1" * 20, "is neither"), ("7-0", "reversed: write 0-7"),
        ("1,2,1", "seed 1 is given twice"), ("0-4,3", "seed 3 is given twice"), ("0-999999999999", "at most 10000"),
        (str(2**63), f"must be {2**63 - 1} or less each"),
        ("0-5000,6000-12000", "at most 10000 seeds"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_in_one_line(text: str, says: str) -> None:
    with pytest.raises(InvalidValue, match=says) as caught:
        parse_seeds(text)
    assert caught.value.field == "seeds"
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 120


def test_the_greatest_number_of_seeds() -> None:
    assert len(parse_seeds("1-10000")) == 10_000
