"""Seeds on the command line."""

from __future__ import annotations

import pytest

from nulltta import NullTTAError
from nulltta.runs.seeds import parse_seeds


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("0", [0]), ("7", [7]), ("0-3", [0, 1, 2, 3]), ("5-5", [5]), ("9,0,4", [9, 0, 4]), ("8,0-2", [8, 0, 1, 2]),
        ("007", [7]), ("999999999999999999", [999999999999999999]),
    ],
)  # fmt: skip
def test_seeds_and_ranges(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "'' is no seed"), ("a", "'a' is no seed"), ("-1", "'-1' is no seed"), ("1-", "'1-' is no seed"),
        ("1,", "'' is no seed"), ("0:7", "'0:7' is no seed"), ("1.5", "'1.5' is no seed"), ("0, 1", "' 1' is no seed"),
        ("1-2-3", "no range"), ("٣", "is no seed"), ("1" * 19, "is no seed"), ("7-0", "reversed: write 0-7"),
        ("1,2,1", "seed 1 is given twice"), ("0-4,3", "seed 3 is given twice"), ("0-999999999999", "more than 10000"),
        ("0-5000,6000-12000", "more than 10000"),
    ],
)  # fmt: skip
def test_anything_else_is_one_line(text: str, says: str) -> None:
    with pytest.raises(NullTTAError, match=says) as caught:
        parse_seeds(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 120


def test_as_many_as_are_allowed() -> None:
    assert len(parse_seeds("1-10000")) == 10_000
