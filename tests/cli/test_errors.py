"""Errors become one line and an exit code."""

from __future__ import annotations

from pathlib import Path

import pytest

from nulltta.cli import main
from nulltta.cli.messages import describe
from nulltta.errors import InvalidValue, OutOfMemory

from ..command_line import refused


def test_the_field_to_blame_is_named_as_its_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--max-inner-steps", "0"]) == 2
    assert capsys.readouterr().err.startswith("error: --max-inner-steps must be")


def test_the_rest_of_a_message_is_unchanged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "num_particles.txt"
    assert main(["align", "--prompts", str(missing)]) == 2
    assert f"'{missing}'" in capsys.readouterr().err


def test_notes_follow_the_message() -> None:
    error = InvalidValue("must be 1 or more, not 0", field="num_particles")
    error.add_note("1 of 3 prompts are finished")
    assert describe(error) == "--num-particles must be 1 or more, not 0; 1 of 3 prompts are finished"
    assert describe(OutOfMemory("memory ran out")) == "memory ran out"


@pytest.mark.parametrize(
    "words", [["--help"], ["align", "--help"], ["batch", "--help"], ["serve", "--help"], ["bench", "run", "--help"]]
)
@pytest.mark.parametrize("columns", [80, 120])
def test_help_fits_the_terminal(
    words: list[str], columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(words) == 0
    shown = capsys.readouterr().out.splitlines()
    assert max(map(len, shown)) <= columns
    assert len(shown) > 5


def test_settings_that_a_message_refers_to_are_named_as_their_flags(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["align", "a cat", "--model", str(checkpoint), "--out", str(tmp_path / "out"), "--inner-steps", "1", "1"]
    line = refused([*words, "--reward", "brightness", "--budget", "5"], capsys)
    assert line.startswith("error: --budget of 5 denoiser evaluations")
    assert "draw fewer candidates (--num-particles) or take fewer steps (--num-inference-steps)" in line
    line = refused([*words, "--reward", "jpeg", "--noise-tilt", "0.3"], capsys)
    assert line.endswith("gives no gradient: set the tilt of the noise to 0 (--noise-tilt)")
