"""Where a prompt's rows stood in the batches of the run that recorded it: replay puts them there again, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nulltta.errors import InvalidValue
from nulltta.null_text.row_by_row import BatchPosition

LARGEST = 1024  # candidates: a file that claims more asks for memory, not for a replay


@dataclass(frozen=True, slots=True)
class BatchLayout:
    """Of a run of one prompt. ε(x_i, c) was evaluated when x_i was one of K candidates, and so was ε(x_i, φ') where
    step i took no inner steps; else that was evaluated by itself.

    Attributes:
        candidates: K.
        joint: the candidates' two branches were one batch, [null; cond].
        rows: which candidate x_i was, at each of T steps, and at the end: T + 1 of them.
        inner_steps: how many each of the T steps took.
    """

    candidates: int
    joint: bool
    rows: Sequence[int]
    inner_steps: Sequence[int]

    def null(self, index: int) -> BatchPosition:
        """Of ε(x_i, φ')."""
        if self.inner_steps[index]:
            return 1, 0
        return (2 if self.joint else 1) * self.candidates, self.rows[index]

    def cond(self, index: int) -> BatchPosition:
        """Of ε(x_i, c)."""
        K, row = self.candidates, self.rows[index]
        return (2 * K, K + row) if self.joint else (K, row)

    @property
    def decoded(self) -> BatchPosition:
        """Of the decoded image."""
        return self.candidates, self.rows[-1]

    @classmethod
    def recorded(cls, about: Mapping[str, Any], steps: int) -> BatchLayout:
        """As a null text says; every row by itself where it says nothing.

        Raises:
            NullTTAError: what it says makes no sense.
        """
        said = about.get("batch")
        if said is None:
            return cls(1, False, [0] * (steps + 1), [1] * steps)
        try:
            places = cls(int(said["candidates"]), bool(said["joint"]), list(said["rows"]), list(said["inner_steps"]))
            sensible = 1 <= places.candidates <= LARGEST and len(places.inner_steps) == steps == len(places.rows) - 1
            sensible = sensible and all(type(row) is int and 0 <= row < places.candidates for row in places.rows)
        except (KeyError, TypeError, ValueError, OverflowError):
            sensible = False
        if not sensible:
            raise InvalidValue("the null text's record of the run's batches makes no sense: it cannot replay exactly")
        return places
