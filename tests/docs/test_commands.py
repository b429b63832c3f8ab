"""The command line accepts the commands in the documentation."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from nulltta.cli import app

from .pages import PAGES, ROOT, commands, name

_NULLTTA = re.compile(r"^(?:\.venv/bin/|(?:[A-Z_]+=\S+ )+)?nulltta ")
_PLACEHOLDERS = re.compile(r"\[[^\]]*\]|\.\.\.")


def _typed(page: Path) -> list[list[str]]:
    """Return the words of each `nulltta` command of a page, without the name and what the shell would add."""
    found = [_NULLTTA.sub("", command) for command in commands(page) if _NULLTTA.match(command)]
    return [
        shlex.split(re.split(r" [|>&] ?", line)[0], comments=True) for line in found if not _PLACEHOLDERS.search(line)
    ]


@pytest.mark.parametrize("page", [page for page in PAGES if _typed(page)], ids=name)
def test_the_command_line_accepts_what_is_shown(page: Path) -> None:
    for words in _typed(page):
        _parse(words)


def _parse(words: list[str]) -> None:
    """Parse a command without running it; a mistake in it raises."""
    command: Any = typer.main.get_command(app)
    context, rest = None, list(words)
    while True:
        context = command.make_context(command.name, rest, parent=context)
        if not hasattr(command, "resolve_command"):
            return
        rest = [*getattr(context, "_protected_args", []), *context.args]
        if not rest:  # a group that does something by itself
            return
        _, command, rest = command.resolve_command(context, rest)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_targets_of_make_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    shown = [command.split() for command in commands(page) if command.startswith("make ")]
    inline = [words.split() for words in re.findall(r"`(make [a-z -]+)`", page.read_text(encoding="utf-8"))]
    assert not {word for words in shown + inline for word in words[1:] if "=" not in word} - targets
