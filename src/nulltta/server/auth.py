"""API keys: where they come from, and whether a request has one."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from pathlib import Path

from nulltta.errors import InvalidValue

VARIABLE = "NULLTTA_API_KEY"
SHORTEST = 16  # characters


def read_keys(file: Path | None, environment: Mapping[str, str]) -> tuple[str, ...]:
    """The keys of a file, one a line, so that a new one can be handed out before the old one is withdrawn; without a
    file, the environment variable's; () where neither is given.

    Raises:
        NullTTAError: the file cannot be read or holds none, or a key is too short or no printable ASCII.
    """
    if file is not None:
        try:
            keys = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise InvalidValue(f"cannot read API keys from '{file}': {reason}") from error
        place = f"'{file}'"
    elif VARIABLE in environment:
        keys, place = [environment[VARIABLE].strip()], VARIABLE
    else:
        return ()
    if not keys:
        raise InvalidValue(f"{place} holds no API key: write one a line")
    if any(len(key) < SHORTEST or not all("!" <= letter <= "~" for letter in key) for key in keys):
        raise InvalidValue(f"an API key in {place} is not {SHORTEST} or more printable ASCII characters without spaces")
    return tuple(keys)


class Keys:
    """Compares in a time that tells nothing: digests of equal length, every key each time."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [_digest(key.encode()) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def accept(self, authorization: bytes) -> bool:
        """authorization: the header's value, "Bearer KEY"."""
        scheme, _, key = authorization.partition(b" ")
        given = _digest(key.strip())
        matches = [hmac.compare_digest(given, digest) for digest in self._digests]
        return scheme.lower() == b"bearer" and any(matches)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
