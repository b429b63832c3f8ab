"""API keys: reading them, and checking a request's key."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from nulltta.errors import InvalidValue, first_line
from nulltta.server import logs

VARIABLE = "NULLTTA_API_KEY"
MIN_LENGTH = 16
"""The smallest number of characters in a key."""
_KEY = re.compile(rf"([\w.@-]{{1,64}} )?[!-~]{{{MIN_LENGTH},}}", re.ASCII)


def read_keys(file: Path | None, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Read the API keys from a file or, without one, from the environment.

    A file holds one key per line, so that a new key can be handed out before the old one is withdrawn. A name may stand
    before a key, as in "alice sk-...", by which the log calls whoever uses it.

    Returns:
        The keys, with their names if they have any; () if neither a file nor the environment variable is given.

    Raises:
        InvalidValue: if the file cannot be read or holds no key, or a key is too short or is not printable ASCII.
    """
    if file is not None:
        try:
            keys = [" ".join(line.split()) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            reason = first_line(error) if isinstance(error, OSError) else "it is not UTF-8 text"
            raise InvalidValue(f"cannot read API keys from '{file}': {reason}") from error
        source = f"'{file}'"
    elif VARIABLE in environment:
        keys, source = [environment[VARIABLE].strip()], VARIABLE
    else:
        return ()
    if not keys:
        raise InvalidValue(f"{source} holds no API key: write one per line")
    if not all(_KEY.fullmatch(key) for key in keys):
        raise InvalidValue(
            f"an API key in {source} is not made of {MIN_LENGTH} or more printable ASCII characters without spaces, "
            "after a name of letters, digits and -_.@ or none"
        )
    return tuple(keys)


class APIKeys:
    """A set of API keys that is compared in constant time: every key is checked each time, by digests of equal length.

    Args:
        keys: the accepted keys, as `read_keys` returns them; the object is false if there are none.
        file: where they came from. It is read again whenever it has changed; while it is not valid, the keys before
            stay.
    """

    def __init__(self, keys: Sequence[str], file: Path | None = None) -> None:
        self._file = file
        self._seen: tuple[int, int, int] | None = None  # the first request reads the file, which may have changed since
        self._names = _named(keys)

    def __bool__(self) -> bool:
        return bool(self._names)

    def accept(self, authorization: bytes) -> str | None:
        """Return the name of the key in the value of an Authorization header, "Bearer KEY"; None if it is not known.

        A key without a name is called by the first digits of its digest.
        """
        self._reload()
        scheme, _, key = authorization.partition(b" ")
        given = _digest(key.strip())
        matches = [name for digest, name in self._names.items() if hmac.compare_digest(given, digest)]
        return matches[0] if scheme.lower() == b"bearer" and matches else None

    def _reload(self) -> None:
        if self._file is None or (state := _state(self._file)) == self._seen:
            return
        self._seen = state
        try:
            self._names = _named(read_keys(self._file, {}))
            logs.write("keys read again", count=len(self._names))
        except InvalidValue as error:
            logs.write("keys not read again", logging.ERROR, reason=str(error))


def _state(file: Path | None) -> tuple[int, int, int] | None:
    """Return what changes with a file's contents; None if there is no such file."""
    try:
        about = file.stat() if file is not None else None
    except OSError:
        return None
    return None if about is None else (about.st_mtime_ns, about.st_size, about.st_ino)


def _named(keys: Sequence[str]) -> dict[bytes, str]:
    """Return the name of each key by its digest."""
    pairs = [(name, _digest(key.encode())) for name, _, key in (line.rpartition(" ") for line in keys)]
    return {digest: name or digest.hex()[:8] for name, digest in pairs}


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
