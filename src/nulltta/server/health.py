"""Whether the worker makes progress: what the probes answer."""

from __future__ import annotations

import time
from collections.abc import Callable

FAILURES = 3
"""The number of batches in a row whose failure makes the server unready."""
RECOVERY = 30.0
"""Seconds after the last failure until the server takes requests again, to find out whether they still fail."""


class WorkerHealth:
    """Whether a worker makes progress. It may be read by any thread.

    Args:
        stall: the seconds without an evaluation of the model after which a batch counts as hung. The worker is given
            up after twice as many.
        now: the clock, in seconds.
    """

    def __init__(self, stall: float, now: Callable[[], float] = time.monotonic) -> None:
        self.stall, self.now = stall, now
        self._progress: float | None = None  # of the batch in progress; None for none
        self._failures, self._failed = 0, 0.0
        self._lost = ""

    def progress(self) -> None:
        """Note that a batch has begun or goes on."""
        self._progress = self.now()

    def ended(self) -> None:
        """Note that no batch is in progress any more."""
        self._progress = None

    def succeeded(self) -> None:
        """Note that a batch was sampled."""
        self._failures = 0

    def failed(self, error: BaseException) -> None:
        """Note that a batch failed through no mistake of its clients."""
        self._failures, self._failed = self._failures + 1, self.now()
        if _spoils_the_device(error):
            self.lose("the device is in a state of error, which only a new process ends")

    def lose(self, reason: str) -> None:
        """Note that the worker will not work any more."""
        self._lost = reason

    def unready(self) -> str:
        """Return why the server should get no requests at the moment; "" if it should."""
        if lost := self.dead():
            return lost
        if self._stalled_for() > self.stall:
            return f"a batch has made no progress for more than {self.stall:g} s"
        if self._failures >= FAILURES and self.now() < self._failed + RECOVERY:
            return f"the last {self._failures} batches failed"
        return ""

    def dead(self) -> str:
        """Return why only a new process helps; "" if the worker can work, now or later."""
        if self._stalled_for() > 2 * self.stall:
            return f"a batch has made no progress for more than {2 * self.stall:g} s"
        return self._lost

    def _stalled_for(self) -> float:
        since = self._progress
        return 0.0 if since is None else self.now() - since


def _spoils_the_device(error: BaseException | None) -> bool:
    """Return whether an error, or one that caused it, is CUDA's own: every later call then fails in the same way."""
    while error is not None:
        if isinstance(error, RuntimeError) and "CUDA error" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
