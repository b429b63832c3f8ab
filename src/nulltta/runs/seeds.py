"""Seeds as the command line takes them: "0-7", "0,3,5", "0-3,8"."""

from __future__ import annotations

import re

from nulltta.errors import InvalidValue

MOST = 10_000  # a range is quickly mistyped
_PART = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")


def parse_seeds(text: str) -> list[int]:
    """The seeds in the order given.

    Raises:
        NullTTAError: a part is no whole number and no range of them, a range is reversed, a seed comes twice, or there
            are too many.
    """
    seeds: list[int] = []
    for part in text.split(","):
        if (match := _PART.fullmatch(part)) is None:
            raise InvalidValue(f"'{part[:40]}' is no seed and no range of seeds: write them as 0-7 or 0,3,5")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise InvalidValue(f"the range of seeds {part} is reversed: write {last}-{first}")
        if len(seeds) + last - first >= MOST:
            raise InvalidValue(f"'{text[:40]}' are more than {MOST} seeds")
        seeds += range(first, last + 1)
    if len(set(seeds)) < len(seeds):
        twice = next(seed for seed in seeds if seeds.count(seed) > 1)
        raise InvalidValue(f"seed {twice} is given twice in '{text[:40]}'")
    return seeds
