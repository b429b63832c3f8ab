"""What the command line says beside its results: one line an error or a warning, on stderr."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import typer

INTERRUPTED = 130  # the exit code after Ctrl-C


def say(kind: str, message: str) -> None:
    """ "error", "what\\nwas wrong" -> "error: what was wrong" on stderr."""
    print(f"{kind}: {' '.join(message.split())}", file=sys.stderr)


@contextmanager
def quiet() -> Iterator[None]:
    """One line a warning of our own, each once; third parties' notices and loading bars stay out of the terminal.
    Ctrl-C is one line too."""
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
