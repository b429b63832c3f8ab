"""Storage for images that clients fetch by URL."""

from __future__ import annotations

import secrets
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol


class ImageStore(Protocol):
    """Keeps images for a while: see `TemporaryImages`."""

    def add(self, png: bytes) -> str:
        """Store an image and return its name."""
        ...

    def find(self, name: str) -> bytes | None:
        """Return the image of a name; None if there is none or it has expired."""
        ...

    def sweep(self) -> None:
        """Delete expired and surplus images."""
        ...

    def close(self) -> None:
        """Delete all images."""
        ...


class TemporaryImages:
    """Images in a private temporary folder.

    A name is 128 random bits, so that knowing it is the permission to fetch the image. The name that a client sends is
    looked up among those given out and never becomes a path.

    Args:
        lifetime: the seconds after which an image expires.
        capacity: the largest number of images; the oldest are deleted first.
        now: the clock, in seconds.
    """

    def __init__(self, lifetime: float, capacity: int, now: Callable[[], float] = time.monotonic) -> None:
        self.lifetime, self.capacity, self.now = lifetime, capacity, now
        self._folder = tempfile.TemporaryDirectory(prefix="nulltta-")  # only this user can read it
        self._expiry: dict[str, float] = {}  # by name, oldest first
        self._lock = threading.Lock()

    @property
    def folder(self) -> Path:
        """Where the images are."""
        return Path(self._folder.name)

    def add(self, png: bytes) -> str:
        """Store an image and return its name."""
        name = secrets.token_hex(16)
        self._path(name).write_bytes(png)
        with self._lock:
            self._expiry[name] = self.now() + self.lifetime
        self.sweep()
        return name

    def find(self, name: str) -> bytes | None:
        """Return the image of a name; None if there is none or it has expired."""
        with self._lock:
            known = self._expiry.get(name, 0.0) > self.now()
            return self._path(name).read_bytes() if known else None

    def sweep(self) -> None:
        """Delete expired images, and the oldest of those beyond the capacity."""
        with self._lock:
            surplus = len(self._expiry) - self.capacity
            for i, (name, expiry) in enumerate(list(self._expiry.items())):
                if i < surplus or expiry <= self.now():
                    del self._expiry[name]
                    self._path(name).unlink(missing_ok=True)

    def close(self) -> None:
        """Delete all images."""
        self._folder.cleanup()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.png"
