"""The prompts of the scenes world to report on and those to choose settings on: two halves of the grammar.

Both lists go through the six categories in turn. Within a category every second prompt contains a combination that
training never showed while there are any, and shapes, colours and numbers come as often as in training.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator

from nulltta.errors import InvalidValue

from .grammar import CATEGORIES, Claim, caption, draw, held_out

MOST = 600
"""The longest list; the smallest category has too few prompts for a longer one."""


def test_prompts(n: int) -> list[str]:
    """Return the first n different prompts to report on.

    Raises:
        InvalidValue: if n is more than MOST.
    """
    return _prompts(n, tuning=False)


test_prompts.__test__ = False  # type: ignore[attr-defined]  # not a test, whatever pytest makes of the name


def tuning_prompts(n: int) -> list[str]:
    """Return the first n different prompts to choose settings on, none of which is a test prompt.

    Raises:
        InvalidValue: if n is more than MOST.
    """
    return _prompts(n, tuning=True)


def _prompts(n: int, tuning: bool) -> list[str]:
    if n > MOST:
        raise InvalidValue(f"must be {MOST} or less, not {n}", field="n")
    rng, found = random.Random(int(tuning)), dict[str, None]()
    for wanted in _turns():
        if len(found) == n:
            break
        text = _unlike(rng, wanted, found, tuning)
        if text:
            found[text] = None
    return list(found)


def _turns() -> Iterator[tuple[str, bool]]:
    """Yield the categories in turn for ever, and whether a prompt shall be held out."""
    while True:
        for held in (True, False):
            yield from ((category, held) for category in CATEGORIES)


def _unlike(rng: random.Random, wanted: tuple[str, bool], found: dict[str, None], tuning: bool) -> str | None:
    """Draw a prompt that is not in the list yet, held out as wanted if there is one; None where the category ends."""
    category, held = wanted
    for exact in (True, False):
        for _ in range(400):
            claim = draw(rng, category)
            text = caption(claim)
            alike = held_out(claim) == held or not exact
            if alike and _is_for_tuning(claim) == tuning and text not in found:
                return text
    return None


def _is_for_tuning(claim: Claim) -> bool:
    """Whether a claim belongs to the tuning half, by a hash of its groups in either order."""
    text = "|".join(sorted(map(repr, claim.groups)))
    return hashlib.sha256(text.encode()).digest()[0] % 2 == 0
