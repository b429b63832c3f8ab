"""All Python code in the documentation compiles, and what needs only the embedded model runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .pages import PAGES, ROOT, blocks, name


@pytest.mark.usefixtures("short_preset")
@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md", "docs/which-reward.md"])
def test_the_snippets_run_one_after_another(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snippets = blocks(ROOT / page, "python")
    assert len(snippets) >= 2
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "snippets"}
    for snippet in snippets:
        exec(compile(snippet, page, "exec", dont_inherit=True), names)


def test_the_snippets_for_contributors_run_and_pass_their_contracts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = tmp_path / "test_page.py"
    module.write_text("\n".join(blocks(ROOT / "CONTRIBUTING.md", "python")), encoding="utf-8")
    without = [word for plugin in ("cacheprovider", "faulthandler", "xdist") for word in ("-p", f"no:{plugin}")]
    code = pytest.main([*without, "--rootdir", str(tmp_path), "--import-mode", "importlib", str(module)])
    shown = capsys.readouterr().out
    assert code == 0, shown
    assert "passed" in shown


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name)
def test_the_snippets_compile(page: Path) -> None:
    for snippet in blocks(page, "python"):
        compile(snippet, name(page), "exec", dont_inherit=True)
