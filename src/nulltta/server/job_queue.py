"""The bounded queue between the routes and the worker."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from nulltta.server.jobs import ImageJob


class JobQueue:
    """A first-in, first-out queue that hands out jobs with equal settings together.

    Any number of threads may put jobs, one thread may take them.

    Args:
        size: the largest number of waiting jobs.
        batch_size: the largest number of images that are taken together.
        wait: the seconds that a first job waits for others to join its batch.
    """

    def __init__(self, size: int, batch_size: int, wait: float) -> None:
        self.size, self.batch_size, self.wait = size, batch_size, wait
        self._jobs: list[ImageJob] = []
        self._changed = threading.Condition()
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether the queue takes no more jobs."""
        return self._closed

    def put(self, job: ImageJob) -> bool:
        """Append a job; return whether the queue is open and had room for it."""
        with self._changed:
            self._drop_unwanted()
            if self._closed or len(self._jobs) >= self.size:
                return False
            self._jobs.append(job)
            self._changed.notify_all()
            return True

    def take(self) -> Sequence[ImageJob]:
        """Wait for the oldest job and return it with those that fit into its batch; () once the queue is closed."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                self._changed.wait_for(
                    lambda: self._closed or _images(self._next_batch()) >= self.batch_size, self.wait
                )
                self._drop_unwanted()
                if taken := self._next_batch():
                    self._jobs = [job for job in self._jobs if job not in taken]
                    return taken
                if self._closed:
                    return ()

    def close(self) -> Sequence[ImageJob]:
        """Take no more jobs; return those that still waited, which will never be taken."""
        with self._changed:
            self._closed = True
            left, self._jobs = self._jobs, []
            self._changed.notify_all()
        return left

    def waiting(self) -> Sequence[ImageJob]:
        """Return the waiting jobs, oldest first."""
        with self._changed:
            self._drop_unwanted()
            return tuple(self._jobs)

    def _next_batch(self) -> Sequence[ImageJob]:
        """Return the oldest job, and later ones with the same settings as long as there is room for their images."""
        taken: list[ImageJob] = []
        for job in self._jobs:
            if job.settings == self._jobs[0].settings and _images([*taken, job]) <= self.batch_size:
                taken.append(job)
        return taken

    def _drop_unwanted(self) -> None:
        self._jobs = [job for job in self._jobs if job.wanted]


def _images(jobs: Sequence[ImageJob]) -> int:
    return sum(len(job.seeds) for job in jobs)
