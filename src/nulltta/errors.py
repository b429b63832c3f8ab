"""The one error that callers are meant to see. Apart from `types`, so that reading settings needs no torch."""

from __future__ import annotations


class NullTTAError(ValueError):
    """A mistake of the caller's, told in one line: what was wrong, and what would be right."""
