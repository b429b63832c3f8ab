"""Parse seeds as the command line and the page take them: "0-7", "0,3,5", "0-3,8"."""

from __future__ import annotations

import re

from nulltta.config.settings import LARGEST_SEED
from nulltta.errors import InvalidValue

MAX_SEEDS = 10_000
"""The greatest number of seeds, so that a mistyped range does not start a run of weeks."""
_PART = re.compile(r"([0-9]{1,19})(?:-([0-9]{1,19}))?")


def parse_seeds(text: str) -> list[int]:
    """Return the seeds in the order given.

    Args:
        text: seeds and ranges of seeds, which include their ends, separated by commas.

    Raises:
        InvalidValue: if a part is neither a whole number nor a range, a range is reversed, a seed occurs twice or
            is above `LARGEST_SEED`, or there are more than `MAX_SEEDS`.
    """
    seeds: list[int] = []
    for part in text.split(","):
        if (match := _PART.fullmatch(part)) is None:
            raise InvalidValue(f"must be like 0-7 or 0,3,5: '{part[:40]}' is neither a seed nor a range", field="seeds")
        first, last = int(match[1]), int(match[2] or match[1])
        if max(first, last) > LARGEST_SEED:
            raise InvalidValue(f"must be {LARGEST_SEED} or less each, not '{text[:40]}'", field="seeds")
        if last < first:
            raise InvalidValue(f"must be like 0-7 or 0,3,5: {part} is reversed: write {last}-{first}", field="seeds")
        if len(seeds) + last - first >= MAX_SEEDS:
            raise InvalidValue(f"must be at most {MAX_SEEDS} seeds, not '{text[:40]}'", field="seeds")
        seeds += range(first, last + 1)
    if len(set(seeds)) < len(seeds):
        twice = next(seed for seed in seeds if seeds.count(seed) > 1)
        raise InvalidValue(f"must differ: seed {twice} is given twice in '{text[:40]}'", field="seeds")
    return seeds
