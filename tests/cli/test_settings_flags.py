"""The flags of presets, offloading and a reward's type."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nulltta.cli import main

SHORT = ["--num-inference-steps", "2", "--inner-steps", "1", "1", "--num-particles", "1", "--reward", "brightness"]


def test_what_is_asked_for_is_used_and_recorded(checkpoint: Path, tmp_path: Path) -> None:
    asked = ["--preset", "sd3", "--offload", "sequential", "--reward-dtype", "float16"]
    assert main(["align", "a cat", "--model", str(checkpoint), "--out", str(tmp_path), *SHORT, *asked]) == 0
    line = json.loads((tmp_path / "result.json").read_text())["command"]
    for words in ("--preset sd3", "--offload sequential", "--reward-dtype float16", "--guidance-scale 7.0"):
        assert words in line


def test_an_unknown_preset_is_one_line_that_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["align", "a cat", "--preset", "sd4"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --preset must be one of paper, embedded, sdxl")
    assert error.count("\n") == 1
