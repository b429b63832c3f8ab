"""Storage for images that clients fetch by URL."""

from __future__ import annotations

import re
import secrets
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from nulltta.files import as_error, atomic

_NAME = re.compile("[0-9a-f]{32}")


class ImageStore(Protocol):
    """Keeps images for a while: see `StoredImages`."""

    def add(self, image: bytes) -> str:
        """Store an image and return its name."""
        ...

    def find(self, name: str) -> bytes | None:
        """Return the image of a name; None if there is none or it has expired."""
        ...

    def sweep(self) -> None:
        """Delete expired and surplus images."""
        ...

    def close(self) -> None:
        """End the use of the store."""
        ...


class StoredImages:
    """Images in a private folder.

    A name is 128 random bits, so that knowing it is the permission to fetch the image. The name that a client sends is
    looked up among those given out and never becomes a path. A new store finds the images of an earlier one in the same
    folder.

    Args:
        lifetime: the seconds after which an image expires.
        capacity: the largest number of images; the oldest are deleted first.
        folder: where they are kept; None for a temporary folder, which `close` deletes.
        now: the clock, in seconds since the epoch.

    Raises:
        InvalidValue: if the folder cannot be created or written.
    """

    def __init__(
        self, lifetime: float, capacity: int, folder: Path | None = None, now: Callable[[], float] = time.time
    ) -> None:
        self.lifetime, self.capacity, self.now = lifetime, capacity, now
        self._temporary = tempfile.TemporaryDirectory(prefix="nulltta-") if folder is None else None
        self.folder = folder or Path(str(self._temporary and self._temporary.name))
        self._lock = threading.Lock()
        with as_error(self.folder):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for left in self.folder.glob(".*.partial"):
                left.unlink(missing_ok=True)
            found = sorted((path.stat().st_mtime + lifetime, path.name) for path in self.folder.iterdir())
        self._expiry = {name: expiry for expiry, name in found if _NAME.fullmatch(name)}  # by name, oldest first

    def add(self, image: bytes) -> str:
        """Store an image and return its name."""
        name = secrets.token_hex(16)
        with atomic(self.folder / name) as temporary:
            temporary.write_bytes(image)
        with self._lock:
            self._expiry[name] = self.now() + self.lifetime
        self.sweep()
        return name

    def find(self, name: str) -> bytes | None:
        """Return the image of a name; None if there is none or it has expired."""
        with self._lock:
            known = self._expiry.get(name, 0.0) > self.now()
            return (self.folder / name).read_bytes() if known else None

    def sweep(self) -> None:
        """Delete expired images, and the oldest of those beyond the capacity."""
        with self._lock:
            surplus = len(self._expiry) - self.capacity
            for i, (name, expiry) in enumerate(list(self._expiry.items())):
                if i < surplus or expiry <= self.now():
                    del self._expiry[name]
                    (self.folder / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Delete a temporary folder."""
        if self._temporary is not None:
            self._temporary.cleanup()
