"""Where a batch keeps its files: a folder of this machine, or any address that fsspec knows."""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TextIO, TypeAlias

from nulltta.errors import InvalidValue, MissingExtra, first_line
from nulltta.files import as_error, atomic

Writer: TypeAlias = Callable[[Path], object]
"""Writes a file to a path of this machine."""
FOLDERS = ("images", "null_texts", "rows", "scores")
FILES = ("scores.parquet", "errors.jsonl")
"""What a batch writes in its folder, which may hold other things too; those are left alone."""


class Storage(Protocol):
    """Files by their names relative to the storage's place, such as "images/ab/abcdef.png"."""

    def write(self, name: str, writer: Writer) -> dict[str, Any]:
        """Write a file so that it appears whole or not at all, and return its `digest`.

        Raises:
            InvalidValue: if it cannot be written.
        """
        ...

    def read(self, name: str) -> bytes:
        """Return the contents of a file.

        Raises:
            FileNotFoundError: if there is none.
            OSError: if it cannot be read.
        """
        ...

    def remove(self, pattern: str) -> None:
        """Delete the files whose names match a pattern, which has wildcards in its last part only."""
        ...

    def reachable(self) -> bool:
        """Return whether this process sees the place, which another one has prepared."""
        ...

    def locked(self) -> Any:
        """Return a context in which no other run uses the place, as far as it can be locked.

        Raises:
            InvalidValue: if another run does, or nothing can be written there.
        """
        ...


def storage_at(place: str | Path) -> Storage:
    """Return the storage of a folder, or of an address such as "s3://bucket/results".

    Raises:
        InvalidValue: if nothing is known of such addresses.
        MissingExtra: if a library is missing that they need.
    """
    if "://" not in str(place):
        return LocalStorage(Path(place).absolute())
    from fsspec.core import url_to_fs

    try:
        url_to_fs(str(place))
    except ImportError as error:
        raise MissingExtra(f"'{place}'", first_line(error), "batch") from error
    except ValueError as error:
        raise InvalidValue(f"cannot write to '{place}': {first_line(error)}") from error
    return RemoteStorage(str(place).rstrip("/"))


def digest(contents: bytes) -> dict[str, Any]:
    """Return the size and the digest by which a damaged file is recognised."""
    return {"bytes": len(contents), "blake2b": hashlib.blake2b(contents, digest_size=16).hexdigest()}


@dataclass(frozen=True)
class RemoteStorage:
    """An address that fsspec knows. It cannot be locked: two runs into one address are the caller's mistake.

    Attributes:
        place: the address.
    """

    place: str

    @cached_property
    def _files(self) -> tuple[Any, str]:
        """The file system and the path in it."""
        from fsspec.core import url_to_fs

        found: tuple[Any, str] = url_to_fs(self.place)
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {"place": self.place}  # connections belong to a process

    def write(self, name: str, writer: Writer) -> dict[str, Any]:
        """Write a file; object stores show it once it is whole."""
        system, root = self._files
        with tempfile.TemporaryDirectory(prefix="nulltta-") as folder:
            file = Path(folder) / Path(name).name
            writer(file)
            contents = file.read_bytes()
        with self._named():
            system.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
            system.pipe_file(f"{root}/{name}", contents)
        return digest(contents)

    def read(self, name: str) -> bytes:
        """Return the contents of a file."""
        system, root = self._files
        contents: bytes = system.cat_file(f"{root}/{name}")
        return contents

    def remove(self, pattern: str) -> None:
        """Delete the files that match a pattern."""
        system, root = self._files
        folder, _, last = f"{root}/{pattern}".rpartition("/")
        with self._named(), suppress(FileNotFoundError):
            for file in system.ls(folder, detail=False):
                if fnmatchcase(str(file).rpartition("/")[2], last):
                    system.rm_file(file)

    def reachable(self) -> bool:
        """Return True: an address is the same everywhere."""
        return True

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Check that something can be written."""
        self.write(".writable", lambda path: path.write_bytes(b""))
        self.remove(".writable")
        yield

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Raise an error of one line: each of fsspec's file systems has exceptions of its own."""
        try:
            yield
        except Exception as error:
            raise InvalidValue(f"cannot write to '{self.place}': {first_line(error)}") from error


@dataclass(frozen=True)
class LocalStorage:
    """A folder.

    Attributes:
        path: the folder.
    """

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def write(self, name: str, writer: Writer) -> dict[str, Any]:
        """Write a file, flush it to the disk, and rename it."""
        path = self.path / name
        with as_error(self.path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic(path) as temporary:
                writer(temporary)
                found = digest(temporary.read_bytes())
        return found

    def read(self, name: str) -> bytes:
        """Return the contents of a file."""
        return (self.path / name).read_bytes()

    def remove(self, pattern: str) -> None:
        """Delete the files that match a pattern."""
        for file in self.path.glob(pattern):
            file.unlink(missing_ok=True)

    def reachable(self) -> bool:
        """Return whether this machine sees the folder."""
        return self.path.is_dir()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Create the folder and hold its lock until the end of the block, which keeps other runs out.

        At the end, folders that are empty are removed again, so that a mistake leaves nothing behind. The lock file is
        removed only together with a folder that this run created, and only by the holder of the lock; in any other
        folder it stays.
        """
        missing = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        with as_error(self.path):
            lock = self._lock()
        try:
            with as_error(self.path):
                self._remove_unfinished()
            yield
        finally:
            self._remove_empty(missing)
            lock.close()

    def _lock(self) -> TextIO:
        """Lock the folder's lock file, which the system unlocks when this process ends in any way.

        Another run may have removed the folder that it created, and the lock file with it, after we opened the file
        and before we locked it. A lock on a removed file keeps nobody out, so the file that is there now is locked.
        """
        path = self.path / ".lock"
        while True:
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                lock = path.open("a")
            except FileNotFoundError:  # the folder was removed
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                lock.close()
                raise InvalidValue(
                    f"another run is writing to '{self.path}': wait until it ends, or give another folder"
                ) from error
            except OSError as error:
                warnings.warn(
                    f"the file system of '{self.path}' has no locks ({first_line(error)}): do not start a second run "
                    "there",
                    stacklevel=2,
                )
                return lock
            if path.exists() and os.path.samestat(path.stat(), os.fstat(lock.fileno())):
                return lock
            lock.close()

    def _remove_unfinished(self) -> None:
        """Delete the files that a run was writing when it was killed."""
        inside = (file for name in FOLDERS for file in (self.path / name).rglob(".*.partial"))
        beside = (file for name in FILES for file in self.path.glob(f".{name}.*.partial"))
        for left in (*inside, *beside):
            left.unlink(missing_ok=True)

    def _remove_empty(self, created: Sequence[Path]) -> None:
        """Remove a batch's empty folders, and the created ones if they hold nothing but the lock file."""
        inside = (path for name in FOLDERS for path in (self.path / name, *(self.path / name).rglob("*")))
        for folder in sorted((path for path in inside if path.is_dir()), reverse=True):
            with suppress(OSError):  # it is not empty
                folder.rmdir()
        if self.path in created and [entry.name for entry in self.path.iterdir()] == [".lock"]:
            (self.path / ".lock").unlink()
            for folder in created:
                with suppress(OSError):
                    folder.rmdir()
