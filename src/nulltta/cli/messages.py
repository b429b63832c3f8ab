"""What the command line prints besides its results: one line per error or warning, on stderr."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from nulltta.cli import INTERRUPTED
from nulltta.display import terminal
from nulltta.errors import InvalidValue, NullTTAError
from nulltta.runs.request import flag


def say(kind: str, message: str) -> None:
    """Print a message on one line of stderr: `say("error", "what\\nwas wrong")` prints "error: what was wrong".

    Under --quiet, warnings and notes are left out.
    """
    if terminal.are_quiet() and kind in ("note", "warning"):
        return
    print(f"{kind}: {' '.join(message.split())}", file=sys.stderr)


def describe(error: NullTTAError) -> str:
    """Return the message of an error, with its notes, and with the setting that is to blame written as a flag."""
    message = str(error)
    if isinstance(error, InvalidValue) and error.field is not None:
        message = f"{flag(error.field)} {error.reason}"
    elif error.argument is not None:
        message = f"{flag(error.argument)}: {message}"
    return "; ".join([message, *getattr(error, "__notes__", ())])


@contextmanager
def quiet() -> Iterator[None]:
    """Print each of this package's warnings once, on one line, and suppress those of other libraries.

    Ctrl-C within the block becomes one line and the exit code `INTERRUPTED`.
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
        say("interrupted", "nothing was written")
        raise typer.Exit(INTERRUPTED) from None
