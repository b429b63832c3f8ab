"""What the command line prints besides its results: one line per error or warning, on stderr."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields

import typer

from nulltta.cli import INTERRUPTED
from nulltta.config import NullTTAConfig
from nulltta.display import terminal
from nulltta.errors import InvalidValue, NullTTAError
from nulltta.runs.request import RunSettings, flag

_REPEATED = {"aliases": "model_alias", "cors_origins": "cors_origin", "allowed_hosts": "allowed_host"}
"""The flags of `ServerSettings`' fields that are given one at a time."""
_SETTING = "|".join(field.name for field in (*fields(RunSettings), *fields(NullTTAConfig)))
_IN_BRACKETS = re.compile(rf"\(((?:{_SETTING})(?:, (?:{_SETTING}))*)\)")
"""Settings that a message names, by the convention of `nulltta.errors`."""


def say(kind: str, message: str) -> None:
    """Print a message on one line of stderr: `say("error", "what\\nwas wrong")` prints "error: what was wrong".

    Under --quiet, warnings and notes are left out.
    """
    if terminal.are_quiet() and kind in ("note", "warning"):
        return
    print(f"{kind}: {' '.join(message.split())}", file=sys.stderr)


def describe(error: NullTTAError) -> str:
    """Return the message of an error, with its notes, and with the settings that it names written as flags.

    Those are the one that is to blame, and any in round brackets: "draw fewer candidates (num_particles)".
    """
    message = str(error)
    if isinstance(error, InvalidValue) and error.field is not None:
        message = f"{flag(_REPEATED.get(error.field, error.field))} {error.reason}"
    elif error.argument is not None:
        message = f"{flag(error.argument)}: {message}"
    message = _IN_BRACKETS.sub(lambda found: f"({', '.join(map(flag, found[1].split(', ')))})", message)
    return "; ".join([message, *getattr(error, "__notes__", ())])


@contextmanager
def quiet(standing: Callable[[], str] = lambda: "nothing was written") -> Iterator[None]:
    """Print each of this package's warnings once, on one line, and suppress those of other libraries.

    Ctrl-C within the block becomes one line and the exit code `INTERRUPTED`.

    Args:
        standing: returns what there is after a Ctrl-C, for that line.
    """
    for name in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):
        os.environ.setdefault(name, "error")
    said = set()

    def show(message: Warning | str, *_: object) -> None:
        if (text := str(message)) not in said:
            said.add(text)
            say("warning", text)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("always", module="nulltta")
            warnings.showwarning = show  # type: ignore[assignment]
            yield
    except KeyboardInterrupt:
        say("interrupted", standing())
        raise typer.Exit(INTERRUPTED) from None
