"""`nulltta ui` without Gradio."""

from __future__ import annotations

import importlib.util
import socket

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


def test_a_taken_port_is_reported_before_the_model_loads(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["ui", "--port", str(taken.getsockname()[1])]) == 2
    (line,) = capsys.readouterr().err.splitlines()  # there is no line on loading
    assert "cannot listen" in line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "some/model"], "--reward must name what is raised on this model"),
        (["--frame-ancestors", "'self'; script-src *"], "--frame-ancestors must be addresses"),
    ],
)
def test_a_page_that_could_not_be_used_does_not_start(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ui", *arguments]) == 2
    assert says in capsys.readouterr().err
