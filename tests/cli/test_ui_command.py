"""`nulltta ui` without Gradio."""

from __future__ import annotations

import importlib.util

import pytest

from nulltta.cli import main
from nulltta.cli.ui import PASSWORD


def test_without_gradio_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("nulltta.cli.ui.find_spec", lambda name: None if name == "gradio" else find(name))
    assert main(["ui"]) == 2
    assert capsys.readouterr().err == "error: nulltta ui needs gradio: pip install 'nulltta[ui]'\n"


def test_listening_beyond_loopback_needs_a_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(PASSWORD, raising=False)
    assert main(["ui", "--host", "0.0.0.0"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert PASSWORD in line
