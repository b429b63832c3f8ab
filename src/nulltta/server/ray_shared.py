"""What the replicas of a deployment share, in an actor of Ray's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def _asking(actor: Any) -> Callable[..., Any]:
    """Return a function that calls a method of an actor, by its name, and waits for the answer."""
    import ray

    return lambda method, *arguments: ray.get(getattr(actor, method).remote(*arguments))


class SharedImages:
    """A `SharedState` in a Ray actor, so that every replica finds the images of all replicas.

    Args:
        actor: the actor's handle.
    """

    def __init__(self, actor: Any) -> None:
        self._ask = _asking(actor)

    def add(self, png: bytes) -> str:
        """Store an image and return its name."""
        name: str = self._ask("add", png)
        return name

    def find(self, name: str) -> bytes | None:
        """Return the image of a name; None if there is none or it has expired."""
        found: bytes | None = self._ask("find", name)
        return found

    def stopping(self) -> bool:
        """Return whether the command is stopping."""
        found: bool = self._ask("stopping")
        return found

    def sweep(self) -> None:
        """Delete expired and surplus images."""
        self._ask("sweep")

    def close(self) -> None:
        """Do nothing: the other replicas still need the images."""


class ReplicaJobs:
    """The `JobBook` of a `SharedState` in a Ray actor.

    Args:
        actor: the actor's handle.
    """

    def __init__(self, actor: Any) -> None:
        self._ask = _asking(actor)

    def report(self, states: Sequence[JobState]) -> Sequence[str]:
        """Take a replica's jobs as they are now; return the ids of those that are to be cancelled."""
        cancelled: Sequence[str] = self._ask("ask_jobs", "report", states)
        return cancelled

    def find(self, name: str) -> JobState | None:
        """Return the last state of a job; None if there is no such job, or it has expired."""
        found: JobState | None = self._ask("ask_jobs", "find", name)
        return found

    def cancel(self, name: str) -> JobState | None:
        """Have a job cancelled by its replica and return its state; None if there is no such job."""
        found: JobState | None = self._ask("ask_jobs", "cancel", name)
        return found
