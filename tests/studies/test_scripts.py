"""Every study is a script that runs by the command in its docstring and cannot be imported by name."""

from __future__ import annotations

import ast
import importlib.util
import runpy
import sys
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[2] / "studies").glob("*.py"))
EXTRAS = {"screens": "playwright", "load": "openai"}


@pytest.mark.parametrize("script", SCRIPTS, ids=[script.stem for script in SCRIPTS])
def test_the_command_in_its_docstring_runs(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if script.stem in EXTRAS:
        pytest.importorskip(EXTRAS[script.stem])
    assert f"\n    python studies/{script.name}" in (ast.get_docstring(ast.parse(script.read_text())) or "")
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    assert ended.value.code == 0
    assert "usage" in capsys.readouterr().out.lower()


@pytest.mark.parametrize("name", [script.stem for script in SCRIPTS])
def test_no_study_is_importable_by_name(name: str) -> None:
    assert importlib.util.find_spec(name) is None
