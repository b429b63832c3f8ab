"""All Python code in the documentation compiles, and what needs only the embedded model runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .pages import PAGES, ROOT, blocks, name


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md", "docs/which-reward.md"])
def test_the_snippets_run_one_after_another(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snippets = blocks(ROOT / page, "python")
    assert len(snippets) >= 2
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "snippets"}
    for snippet in snippets:
        exec(compile(snippet, page, "exec", dont_inherit=True), names)


def test_the_snippets_for_contributors_run_and_pass_their_contracts(tmp_path: Path) -> None:
    module = tmp_path / "test_page.py"
    module.write_text("\n".join(blocks(ROOT / "CONTRIBUTING.md", "python")), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(module)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout
    assert "failed" not in done.stdout


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name)
def test_the_snippets_compile(page: Path) -> None:
    for snippet in blocks(page, "python"):
        compile(snippet, name(page), "exec", dont_inherit=True)
