"""The command line: each command parses its flags, calls one function of the package and prints what came of it.

Nothing heavy is imported before a command needs it, so that `--help` and mistakes are answered at once.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

INTERRUPTED = 130
"""The exit code after Ctrl-C."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    The code is 0 after success, 2 after a mistake of the user's, 1 after another failure, and 130 after Ctrl-C. An
    error is one line on stderr. Anywhere before a "--", the word --debug adds the traceback, --quiet leaves out
    progress and warnings, and --verbose adds what is done meanwhile.

    Args:
        argv: the words of the command line; those of the process if None.
    """
    try:
        if argv is None:
            for stream in (sys.stdout, sys.stderr):
                stream.reconfigure(errors="replace")  # type: ignore[union-attr] # of a terminal that knows ASCII only
        from nulltta.cli.commands import run  # Ctrl-C may come during this already

        code = run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        code = INTERRUPTED
    except OSError as error:
        code = 1
        if not isinstance(error, BrokenPipeError):  # whoever closed the pipe has seen enough
            where = "cannot write to the standard output" if error.filename is None else f"'{error.filename}'"
            print(f"error: {where}: {error.strerror or error}", file=sys.stderr)
        if argv is None:  # what is left in the buffer would fail again at the end of the process
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if argv is None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C ends the process without another word
    return code
