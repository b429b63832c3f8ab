"""What became of jobs, as replicas tell each other: any of them may be asked about a job of another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

JobState: TypeAlias = dict[str, Any]
"""A job as clients are told of it: its id, its status, and in the end its result or its error."""
LIVE = ("queued", "running")
"""The statuses of a job that has not ended."""
LOST_AFTER = 30.0
"""Seconds without a word from a job's replica after which the job has failed."""
MAX_TOLD = 10_000
"""The number of jobs that are remembered."""


class SharedJobs(Protocol):
    """What replicas have in common: see `JobBook`."""

    def report(self, states: Sequence[JobState]) -> Sequence[str]:
        """Take a replica's jobs as they are now; return the ids of those that are to be cancelled."""
        ...

    def find(self, name: str) -> JobState | None:
        """Return the last state of a job; None if there is no such job, or it has expired."""
        ...

    def cancel(self, name: str) -> JobState | None:
        """Have a job cancelled by its replica and return its state; None if there is no such job."""
        ...


class JobBook:
    """Remembers the last state of every job. Any number of threads may use it.

    Args:
        lifetime: the seconds for which a job that has ended is remembered.
        now: the clock, in seconds.
    """

    def __init__(self, lifetime: float, now: Callable[[], float] = time.monotonic) -> None:
        self.lifetime, self.now = lifetime, now
        self._told: dict[str, tuple[float, JobState]] = {}  # by id, with the time of the last word
        self._cancelled: set[str] = set()
        self._lock = threading.Lock()

    def report(self, states: Sequence[JobState]) -> Sequence[str]:
        """Take a replica's jobs as they are now; return the ids of those that are to be cancelled."""
        with self._lock:
            for state in states:
                self._told[state["id"]] = self.now(), state
            self._forget()
            return [state["id"] for state in states if state["status"] in LIVE and state["id"] in self._cancelled]

    def find(self, name: str) -> JobState | None:
        """Return the last state of a job; None if there is no such job, or it has expired.

        A job whose replica has been silent for `LOST_AFTER` seconds has failed.
        """
        with self._lock:
            self._forget()
            if name not in self._told:
                return None
            when, state = self._told[name]
            if state["status"] not in LIVE:
                return state
            if name in self._cancelled:
                return {**state, "status": "cancelled"}
            if self.now() > when + LOST_AFTER:
                message = "the replica that had this job is lost: submit it again"
                error = {"message": message, "type": "server_error", "param": None, "code": "replica_lost"}
                return {**state, "status": "failed", "error": error}
            return state

    def cancel(self, name: str) -> JobState | None:
        """Have a job cancelled by its replica and return its state; None if there is no such job."""
        with self._lock:
            if name in self._told:
                self._cancelled.add(name)
        return self.find(name)

    def _forget(self) -> None:
        """Forget jobs that ended, or whose replica was lost, longer ago than `lifetime`, and the oldest of too many."""
        told: Mapping[str, tuple[float, JobState]] = self._told
        expired = [name for name, (when, _) in told.items() if self.now() > when + max(self.lifetime, LOST_AFTER)]
        for name in (*expired, *list(told)[: max(0, len(told) - MAX_TOLD)]):
            self._told.pop(name, None)
            self._cancelled.discard(name)
