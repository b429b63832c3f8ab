"""What the documentation and the code refer to exists: files, modules and names in them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from pkgutil import resolve_name

import pytest

from .pages import PAGES, ROOT, blocks, name

SOURCES = sorted(
    path for folder in ("src", "studies", "tests", "examples") for path in (ROOT / folder).rglob("*.py")
    if path.relative_to(ROOT).parts[:2] != ("tests", "docs")
)  # fmt: skip
_FILE = re.compile(r"(?<![\w/.~-])((?:docs|src|studies|tests|examples|\.github|\.ci)/[\w./-]*\w)")
_DOTTED = re.compile(r"`(nulltta(?:\.\w+)+)[`(]|python -m (nulltta(?:\.\w+)+)")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_files_that_a_page_names_exist(page: Path) -> None:
    missing = [found for found in _FILE.findall(page.read_text(encoding="utf-8")) if not (ROOT / found).exists()]
    assert not missing


def test_the_files_that_the_code_names_exist() -> None:
    missing = [
        (name(path), found)
        for path in SOURCES
        for found in _FILE.findall(path.read_text(encoding="utf-8"))
        if found.endswith((".md", ".py")) and not (ROOT / found).exists()
    ]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_names_that_a_page_uses_exist(page: Path) -> None:
    found = {first or second for first, second in _DOTTED.findall(page.read_text(encoding="utf-8"))}
    assert not [dotted for dotted in found if not _exists(dotted)]


def test_the_architecture_page_has_every_layer() -> None:
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ][0]
    layers = {module for layer in contract["layers"] for module in layer.split(" | ")}
    [shown] = blocks(ROOT / "docs" / "architecture.md")
    assert not layers - {word for line in shown.splitlines() for word in line[:33].split()}


def _exists(dotted: str) -> bool:
    """Return whether a dotted name is a module, or a name in one."""
    try:
        resolve_name(dotted)
    except (ImportError, AttributeError):
        return False
    return True
