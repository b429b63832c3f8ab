"""API keys: reading them, and checking a request's key."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from pathlib import Path

from nulltta.errors import InvalidValue, first_line

VARIABLE = "NULLTTA_API_KEY"
MIN_LENGTH = 16
"""The smallest number of characters in a key."""


def read_keys(file: Path | None, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Read the API keys from a file or, without one, from the environment.

    A file holds one key per line, so that a new key can be handed out before the old one is withdrawn.

    Returns:
        The keys; () if neither a file nor the environment variable is given.

    Raises:
        InvalidValue: if the file cannot be read or holds no key, or a key is too short or is not printable ASCII.
    """
    if file is not None:
        try:
            keys = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
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
    if any(len(key) < MIN_LENGTH or not all("!" <= letter <= "~" for letter in key) for key in keys):
        raise InvalidValue(
            f"an API key in {source} is not made of {MIN_LENGTH} or more printable ASCII characters without spaces"
        )
    return tuple(keys)


class APIKeys:
    """A set of API keys that is compared in constant time: every key is checked each time, by digests of equal length.

    Args:
        keys: the accepted keys; the object is false if there are none.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [_digest(key.encode()) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def accept(self, authorization: bytes) -> bool:
        """Return whether the value of an Authorization header, "Bearer KEY", holds one of the keys."""
        scheme, _, key = authorization.partition(b" ")
        given = _digest(key.strip())
        matches = [hmac.compare_digest(given, digest) for digest in self._digests]
        return scheme.lower() == b"bearer" and any(matches)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
