"""The command line accepts the commands in the documentation, and those of the first pages run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from nulltta.cli import main
from nulltta.cli.commands import parser

from .pages import PAGES, ROOT, blocks, commands, name

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
    command: Any = parser()
    context, rest = None, list(words)
    while True:
        context = command.make_context(command.name, rest, parent=context)
        if not hasattr(command, "resolve_command"):
            return
        rest = [*getattr(context, "_protected_args", []), *context.args]
        if not rest:  # a group that does something by itself
            return
        _, command, rest = command.resolve_command(context, rest)


SHORT = ["--num-inference-steps", "2", "--inner-steps", "1", "1", "--num-particles", "1"]
ENDLESS = ("serve", "ui")


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_the_commands_of_the_first_pages_run_one_after_another(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.jsonl").write_text("".join(blocks(ROOT / page, "json")), encoding="utf-8")
    typed = [words for words in _typed(ROOT / page) if words[0] not in ENDLESS and "pickscore" not in words]
    assert typed
    for command, *words in typed:
        assert main([command, *(SHORT if command in ("align", "batch") else []), *words]) == 0, words


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_targets_of_make_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    shown = [command.split() for command in commands(page) if command.startswith("make ")]
    inline = [words.split() for words in re.findall(r"`(make [a-z -]+)`", page.read_text(encoding="utf-8"))]
    assert not {word for words in shown + inline for word in words[1:] if "=" not in word} - targets
