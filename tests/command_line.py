"""Running the command line in the test's process."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from nulltta.cli import main


def refused(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must be refused with exit code 2 and a single line, and return that line."""
    assert main(list(words)) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    [line] = shown.err.splitlines()
    assert line.startswith("error: ")
    return line
