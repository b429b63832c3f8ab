"""Where a prompt's rows stood in the batches of the run that recorded it: replay puts them there again, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nulltta.models.rowwise import Place
from nulltta.types import NullTTAError

LARGEST = 1024  # candidates: a file that claims more asks for memory, not for a replay


@dataclass(frozen=True, slots=True)
class Places:
    """Of a run of one prompt. ε(x_i, φ') was evaluated by itself, ε(x_i, c) when x_i was one of K candidates.

    Attributes:
        candidates: K.
        joint: the candidates' two branches were one batch, [null; cond].
        rows: which candidate x_i was, at each of T steps, and at the end: T + 1 of them.
    """

    candidates: int
    joint: bool
    rows: Sequence[int]

    def cond(self, index: int) -> Place:
        """Of ε(x_i, c)."""
        K, row = self.candidates, self.rows[index]
        return (2 * K, K + row) if self.joint else (K, row)

    @property
    def decoded(self) -> Place:
        """Of the decoded image."""
        return self.candidates, self.rows[-1]

    @classmethod
    def recorded(cls, about: Mapping[str, Any], steps: int) -> Places:
        """As a null text says; every row by itself where it says nothing.

        Raises:
            NullTTAError: what it says makes no sense.
        """
        said = about.get("batch")
        if said is None:
            return cls(1, False, [0] * (steps + 1))
        try:
            candidates, joint, rows = said["candidates"], said["joint"], said["rows"]
            sensible = type(candidates) is int and 1 <= candidates <= LARGEST and len(rows) == steps + 1
            sensible = sensible and all(type(row) is int and 0 <= row < candidates for row in rows)
        except (KeyError, TypeError):
            sensible = False
        if not sensible:
            raise NullTTAError("the null text's record of the run's batches makes no sense: it cannot replay exactly")
        return cls(candidates, bool(joint), rows)
