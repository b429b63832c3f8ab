"""What the command line does with the streams and the signals that a shell gives it."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nulltta.cli import main

COMMAND = [sys.executable, "-m", "nulltta"]
SHORT = ["--num-inference-steps", "1", "--inner-steps", "0", "0", "--num-particles", "1", "--reward", "brightness"]


def test_a_full_standard_output_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*COMMAND, "--help"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: cannot write to the standard output: No space left on device\n"


def test_a_terminal_that_knows_ascii_only_gets_question_marks() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "100"}
    done = subprocess.run([*COMMAND, "align", "--help"], capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert b"--reward-weight" in done.stdout
    assert done.stdout.isascii()


@pytest.mark.parametrize("seconds", [0.4, 1.2])
def test_ctrl_c_in_the_first_second_is_one_line(seconds: float, tmp_path: Path) -> None:
    script = (  # a shell may have started this test with Ctrl-C ignored
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from nulltta.cli import main; print('here', flush=True); sys.exit(main(sys.argv[1:]))"
    )
    words = ["align", "a rose", "--out", str(tmp_path / "out"), *SHORT]
    process = subprocess.Popen(
        [sys.executable, "-c", script, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors in ("interrupted: nothing was written\n", "")  # the second one may come before the line is written
    assert not (tmp_path / "out").exists()


def test_quiet_leaves_out_progress_and_warnings_and_verbose_says_what_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["align", "a dragon", *SHORT]
    assert main(["--quiet", *words, "--out", str(tmp_path / "quiet")]) == 0
    assert capsys.readouterr().err == ""
    assert main([*words, "--verbose", "--out", str(tmp_path / "verbose")]) == 0
    shown = capsys.readouterr().err
    assert "warning: the embedded model does not know 'dragon'" in shown
    assert "nulltta.runs.loading: model 'embedded' on " in shown
    assert "1 of 1 prompts are finished" in shown
    assert logging.getLogger("nulltta").level == logging.NOTSET


def test_a_shell_is_offered_completion() -> None:
    asked = {"_NULLTTA_COMPLETE": "complete_bash", "COMP_WORDS": "nulltta al", "COMP_CWORD": "1"}
    done = subprocess.run(COMMAND, capture_output=True, text=True, env={**os.environ, **asked}, check=False)
    assert done.stdout.split() == ["align"], done.stderr


@pytest.mark.parametrize(
    ("command", "says"), [("serve", "the server had not started yet"), ("ui", "the page was not open yet")]
)
def test_ctrl_c_while_the_model_loads_says_what_had_not_happened_yet(
    command: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pressed.py").write_text("raise KeyboardInterrupt\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert main([command, "--reward", "pressed:key", "--port", "0" if command == "serve" else "7861"]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == f"interrupted: {says}"
