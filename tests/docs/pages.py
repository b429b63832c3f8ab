"""The pages of the documentation, and what is in them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
        *(page for page in ROOT.glob("docs/**/*.md")),
    ]
)


def name(page: Path) -> str:
    """Return a page's path from the root, which names it in reports of failed tests."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str = "") -> list[str]:
    """Return the code blocks of a page that are marked as of a language; those without a mark by default."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)
    return [code for mark, code in found if mark == language]


def commands(page: Path) -> list[str]:
    """Return the shell commands in a page's unmarked blocks, continued lines joined, comments and prompts removed."""
    lines = "\n".join(blocks(page)).replace("\\\n", " ").splitlines()
    return [re.sub(r"\s+#\s.*$", "", line).removeprefix("$ ").strip() for line in lines]
