"""Mistakes that are found before anything is loaded: one line, the flag or argument by its name, no file written."""

from __future__ import annotations

from pathlib import Path

import pytest

from nulltta.cli import main

MISTAKES = {
    "align x --num-inference-steps ''": "--num-inference-steps must be a whole number, not ''",
    "align x --guidance-scale x": "--guidance-scale must be a number, not 'x'",
    "align x --optimise-between 0.1": "--optimise-between takes 2 values",
    "align x --optimise-between a b": "--optimise-between must be two numbers, not 'a'",
    "align x --micro-batch x": "--micro-batch must be a whole number, not 'x'",
    "align x --save-null-text big": "--save-null-text must be one of small, exact, not 'big'",
    "align x --sed 3": "No such option: --sed (Possible options: ",
    "align x --out ''": "--out cannot be '': name a folder",
    "align 5": "'5' would be a prompt",
    "align x --num-inference-steps 99999999999": "--num-inference-steps must be 10000 or less, not 99999999999",
    "align x --inner-steps 1 99999999999": "--inner-steps must be 10000 or less, not 99999999999",
    "align x --num-particles 99999999999": "--num-particles must be 10000 or less, not 99999999999",
    "align x --batch-size 99999999999": "--batch-size must be 10000 or less, not 99999999999",
    "align x --height 99999999999": "--height must be 16384 or less, not 99999999999",
    "align x --seed 9223372036854775808": "--seed must be 9223372036854775807 or less, not 9223372036854775808",
    "replay": "FILE is missing",
    "replay f --eta x": "--eta must be a number, not 'x'",
    "batch": "TABLE is missing",
    "batch t.csv": "--out is missing",
    "batch t.csv u.csv --out o": "Got unexpected extra argument(s) (u.csv)",
    "batch t.csv --out o --workers 0": "--workers must be 1 or more, not 0",
    "batch t.csv --out o --engine spark": "--engine must be one of local, ray, not 'spark'",
    "bench calibrate x": "SECONDS... must be a number, not 'x'",
    "bench report": "FOLDER... is missing",
    "bench paper p.txt --table 9": "--table must be 7 or less, not 9",
    "bench run --trade-off clip": "--trade-off takes 2 values",
    "rewards score": "IMAGE... is missing",
    "rewards score a.png --reward clip --dtype half": "--dtype must be one of float32, bfloat16, float16, not 'half'",
    "serve --port x": "--port must be a whole number, not 'x'",
    "serve --api-key-file none": "--api-key-file: cannot read API keys from 'none'",
    "ui --port 0": "--port must be 1 or more, not 0",
    "ui --host 0.0.0.0": "--host '0.0.0.0' can be reached from other machines",
    "diagnose": "FOLDER... is missing",
    "alin x": "No such command 'alin'. Did you mean 'align'?",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_names_its_flag(
    line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NULLTTA_UI_PASSWORD", raising=False)
    assert main([word.strip("'") for word in line.split(" ")]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"error: {MISTAKES[line]}")
    assert shown.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
