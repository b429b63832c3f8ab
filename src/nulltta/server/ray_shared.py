"""What the replicas of a deployment share, in an actor of Ray's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nulltta.server.image_store import StoredImages
from nulltta.server.job_book import JobBook, JobState


class SharedState(StoredImages):
    """What the replicas of a deployment share: images by URL, their jobs, and whether the command is stopping.

    Args:
        lifetime: the seconds after which an image expires, and a job that has ended.
        capacity: the largest number of images.
        folder: where they are kept.
    """

    _stopping = False

    def __init__(self, lifetime: float, capacity: int, folder: Path) -> None:
        super().__init__(lifetime, capacity, folder)
        self._jobs = JobBook(lifetime)

    def ask_jobs(self, question: str, about: Any) -> Any:
        """Return the answer of the `JobBook` to one of its methods."""
        return getattr(self._jobs, question)(about)

    def stop(self) -> None:
        """Note that the command is stopping."""
        self._stopping = True

    def stopping(self) -> bool:
        """Return whether the command is stopping."""
        return self._stopping


class SharedImages:
    """A `SharedState` in a Ray actor, so that every replica finds the images of all replicas.

    Args:
        actor: the actor's handle.
    """

    def __init__(self, actor: Any) -> None:
        import ray

        self.actor, self._wait_for = actor, ray.get

    def add(self, png: bytes) -> str:
        """Store an image and return its name."""
        name: str = self._wait_for(self.actor.add.remote(png))
        return name

    def find(self, name: str) -> bytes | None:
        """Return the image of a name; None if there is none or it has expired."""
        found: bytes | None = self._wait_for(self.actor.find.remote(name))
        return found

    def stopping(self) -> bool:
        """Return whether the command is stopping."""
        found: bool = self._wait_for(self.actor.stopping.remote())
        return found

    def sweep(self) -> None:
        """Delete expired and surplus images."""
        self._wait_for(self.actor.sweep.remote())

    def close(self) -> None:
        """Do nothing: the other replicas still need the images."""


class ReplicaJobs:
    """The `JobBook` of a `SharedState` in a Ray actor.

    Args:
        actor: the actor's handle.
    """

    def __init__(self, actor: Any) -> None:
        import ray

        self.actor, self._wait_for = actor, ray.get

    def report(self, states: Sequence[JobState]) -> Sequence[str]:
        """Take a replica's jobs as they are now; return the ids of those that are to be cancelled."""
        cancelled: Sequence[str] = self._wait_for(self.actor.ask_jobs.remote("report", states))
        return cancelled

    def find(self, name: str) -> JobState | None:
        """Return the last state of a job; None if there is no such job, or it has expired."""
        found: JobState | None = self._wait_for(self.actor.ask_jobs.remote("find", name))
        return found

    def cancel(self, name: str) -> JobState | None:
        """Have a job cancelled by its replica and return its state; None if there is no such job."""
        found: JobState | None = self._wait_for(self.actor.ask_jobs.remote("cancel", name))
        return found
