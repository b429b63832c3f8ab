"""Files appear whole or not at all."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nulltta.errors import InvalidValue


@contextmanager
def as_error(path: Path) -> Iterator[None]:
    """The file system's refusals to write there as `NullTTAError`."""
    try:
        yield
    except OSError as error:
        raise InvalidValue(f"cannot write to '{path}': {error.strerror or error}") from error


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; renamed to it at the end, removed if the writing fails.

    It is another one each time, so that two processes that write the same file do not write into each other's.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
