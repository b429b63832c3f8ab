"""Ending the process, whatever its threads are doing."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from pathlib import Path
from typing import NoReturn

GRACE = 5.0
"""The seconds between a signal and the end of a process whose threads do not end."""


def end_on_signals(folder: Path, grace: float = GRACE) -> None:
    """Make SIGTERM and Ctrl-C raise `KeyboardInterrupt` in the main thread, and end the process if that does not.

    A run that hangs in a reward, or in native code, keeps its thread alive and would keep the process alive with it.

    Args:
        folder: the files of all runs, which are deleted before the process is ended by force.
        grace: the seconds until then.
    """

    def end(number: int, *_: object) -> NoReturn:
        def force() -> NoReturn:
            shutil.rmtree(folder, ignore_errors=True)
            os._exit(128 + number)

        watchdog = threading.Timer(grace, force)
        watchdog.daemon = True
        watchdog.start()
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
