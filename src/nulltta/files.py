"""Writing files so that they appear whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nulltta.errors import InvalidValue

_SHIPPED = ("embedded", "embedded-turbo", "scenes", "scenes-turbo")
"""The models that ship in the package, which a folder of the same name does not replace."""


def absolute(source: str) -> str:
    """Return the absolute path of a file or folder that exists, so that it is found from another current directory.

    Any other source is returned unchanged: the name of a shipped model, or a repository of the hub.
    """
    return source if source in ("", *_SHIPPED) or not Path(source).exists() else str(Path(source).absolute())


@contextmanager
def as_error(path: Path) -> Iterator[None]:
    """Raise an `InvalidValue` that names the path for an `OSError` inside the block."""
    try:
        yield
    except OSError as error:
        raise InvalidValue(f"cannot write to '{path}': {error.strerror or error}") from error


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to, which replaces `path` at the end of the block and is removed if it fails.

    The contents reach the disk before the new name does: after a power cut, `path` is the old file or the new one, and
    never an empty one. The temporary name is random, so that two processes that write the same file do not write into
    each other's.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
