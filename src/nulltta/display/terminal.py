"""Where notes for whoever watches a run are printed: progress, what is being loaded, interruptions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console

_QUIET = ContextVar("quiet", default=False)


def notes() -> Console:
    """Return a console for notes on stderr, which prints nothing within `quiet_notes`."""
    return Console(stderr=True, quiet=_QUIET.get())


def are_quiet() -> bool:
    """Return whether notes are left out."""
    return _QUIET.get()


@contextmanager
def quiet_notes(quiet: bool = True) -> Iterator[None]:
    """Leave notes out within a `with` block, if `quiet`."""
    token = _QUIET.set(quiet)
    try:
        yield
    finally:
        _QUIET.reset(token)
