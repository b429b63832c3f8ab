"""The installed versions that determine the numbers of a run."""

from __future__ import annotations

from importlib import metadata


def version_of(package: str) -> str | None:
    """Return the installed version of a package, or None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
