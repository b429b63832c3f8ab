"""Pictures that clients fetch by URL: files in a folder of our own, by random name, for a while."""

from __future__ import annotations

import secrets
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol


class Shelf(Protocol):
    """Where pictures are kept for a while: see `Pictures`."""

    def add(self, png: bytes) -> str: ...

    def find(self, name: str) -> bytes | None: ...

    def sweep(self) -> None: ...

    def close(self) -> None: ...


class Pictures:
    """A name is 128 random bits: to know it is to be allowed to fetch it. What a client asks for is looked up among
    the names that were given out, and never becomes a path.

    lifetime: seconds.
    places: pictures at most; the oldest makes room.
    """

    def __init__(self, lifetime: float, places: int, now: Callable[[], float] = time.monotonic) -> None:
        self.lifetime, self.places, self.now = lifetime, places, now
        self._folder = tempfile.TemporaryDirectory(prefix="nulltta-")  # readable by nobody else
        self._expiry: dict[str, float] = {}  # by name, oldest first
        self._lock = threading.Lock()

    def add(self, png: bytes) -> str:
        """Keep a picture; returns its name."""
        name = secrets.token_hex(16)
        self._path(name).write_bytes(png)
        with self._lock:
            self._expiry[name] = self.now() + self.lifetime
        self.sweep()
        return name

    def find(self, name: str) -> bytes | None:
        """The picture of that name; None if there is none, or none any more."""
        with self._lock:
            known = self._expiry.get(name, 0.0) > self.now()
            return self._path(name).read_bytes() if known else None

    def sweep(self) -> None:
        """Delete what has expired, and the oldest of too many."""
        with self._lock:
            surplus = len(self._expiry) - self.places
            for i, (name, expiry) in enumerate(list(self._expiry.items())):
                if i < surplus or expiry <= self.now():
                    del self._expiry[name]
                    self._path(name).unlink(missing_ok=True)

    def close(self) -> None:
        """Delete them all."""
        self._folder.cleanup()

    def _path(self, name: str) -> Path:
        return Path(self._folder.name) / f"{name}.png"
