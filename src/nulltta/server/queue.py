"""Requests waiting for the worker: bounded, first come first served, and those that fit together go together."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from nulltta.server.jobs import Job


class Queue:
    """For any number of threads that put, and one that takes.

    size: requests that wait at most.
    rows: images at most in what is taken together.
    wait: seconds that a first request waits for company.
    """

    def __init__(self, size: int, rows: int, wait: float) -> None:
        self.size, self.rows, self.wait = size, rows, wait
        self._jobs: list[Job] = []
        self._changed = threading.Condition()
        self._closed = False

    @property
    def closed(self) -> bool:
        return self._closed

    def put(self, job: Job) -> bool:
        """False if there is no place, or the queue is closed."""
        with self._changed:
            self._drop_unwanted()
            if self._closed or len(self._jobs) >= self.size:
                return False
            self._jobs.append(job)
            self._changed.notify_all()
            return True

    def take(self) -> Sequence[Job]:
        """Wait for the oldest request, and give it with those that fit with it; () once the queue is closed."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                self._changed.wait_for(lambda: self._closed or _images(self._together()) >= self.rows, self.wait)
                self._drop_unwanted()
                if taken := self._together():
                    self._jobs = [job for job in self._jobs if job not in taken]
                    return taken
                if self._closed:
                    return ()

    def close(self) -> Sequence[Job]:
        """Take no more; returns those that still waited, which will never be taken."""
        with self._changed:
            self._closed = True
            left, self._jobs = self._jobs, []
            self._changed.notify_all()
        return left

    def waiting(self) -> Sequence[Job]:
        """The requests that wait, oldest first."""
        with self._changed:
            self._drop_unwanted()
            return tuple(self._jobs)

    def _together(self) -> Sequence[Job]:
        """The oldest request, and later ones of the same work as long as there is room for their images."""
        taken: list[Job] = []
        for job in self._jobs:
            if job.work == self._jobs[0].work and _images([*taken, job]) <= self.rows:
                taken.append(job)
        return taken

    def _drop_unwanted(self) -> None:
        self._jobs = [job for job in self._jobs if job.wanted]


def _images(jobs: Sequence[Job]) -> int:
    return sum(len(job.seeds) for job in jobs)
