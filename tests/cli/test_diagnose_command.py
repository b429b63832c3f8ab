"""`nulltta diagnose`: what it reads, prints, writes and refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from nulltta.cli import main

PROMPTS = ["a cat", "a dog", "the sun", "a red cat", "a red dog", "a red sun"]
QUICK = ["--num-inference-steps", "2", "--inner-steps", "1", "1", "--num-particles", "2", "--learning-rate", "0.1"]


@pytest.fixture(scope="module")
def folder(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six prompts."""
    out = tmp_path_factory.mktemp("runs") / "six"
    words = ["align", "--model", str(checkpoint), "--reward", "brightness", "--device", "cpu", "--out", str(out)]
    assert main([*words, *QUICK, *PROMPTS]) == 0
    return out


def test_a_run_is_diagnosed_against_other_rewards(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["diagnose", str(folder), "--against", "colourfulness", "--against", "sharpness", "--device", "cpu"]) == 0
    )
    shown = capsys.readouterr().out
    found = json.loads((folder / "diagnosis.json").read_text())
    assert [(each["name"], each["role"]) for each in found["measures"]] == [
        ("brightness", "target"), ("colourfulness", "held out"), ("sharpness", "held out"),
    ]  # fmt: skip
    record = json.loads((folder / "result.json").read_text())
    gains = [
        each["scores"]["brightness"]["aligned"] - each["scores"]["brightness"]["plain"] for each in record["results"]
    ]
    assert found["measures"][0]["gain"]["mean"] == pytest.approx(sum(gains) / 6, abs=1e-6)
    assert found["verdict"]["sentence"] in " ".join(shown.split())
    assert "high frequencies" in shown
    assert [p.name for p in folder.glob(".*")] == []


def test_json_is_printed_alone_and_is_what_is_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", str(folder), "--json", "--device", "cpu"]) == 0
    assert capsys.readouterr().out == (folder / "diagnosis.json").read_text()


def test_the_run_itself_reports_its_diagnosis(folder: Path) -> None:
    record = json.loads((folder / "result.json").read_text())
    assert record["diagnosis"]["verdict"]["kind"] in ("undecided", "not raised")  # nothing is held out for this model
    assert len(record["diagnosis"]["survival"]) in (0, 4)
    for entry in record["results"]:
        nats = [step["kl"] for step in entry["trace"]]
        assert entry["kl"]["total"] == pytest.approx(sum(nats))
        assert entry["kl"]["largest_step"] == pytest.approx(max(nats))


def test_seeds_in_several_folders_are_diagnosed_together(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = _changed(folder, tmp_path, lambda record: [entry.update(seed=1) for entry in record["results"]])
    assert main(["diagnose", str(folder), str(copy), "--json", "--device", "cpu"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["pictures"], found["unit"]) == (12, "prompts")
    assert found["diversity"] == pytest.approx([1, 1])  # the same pictures twice


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: r["results"].pop(), "5 prompts are too few for an interval: align 6 or more"),
        (lambda r: r.pop("arguments"), "is not of an aligned run"),
        (lambda r: r.update(results=[1]), "is not of an aligned run"),
        (lambda r: r["results"][0]["files"].update(plain="../../elsewhere.png"), "outside its folder"),
        (lambda r: r["results"][0]["files"].update(plain="000/none.png"), "cannot read image"),
        (lambda r: r["arguments"].update(reward="os:getcwd"), "--reward must be given for a run whose target"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Any, says: str
) -> None:
    assert main(["diagnose", str(_changed(folder, tmp_path, change)), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_other_folders_are_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", str(tmp_path)]) == 2
    assert "No such file or directory; give a folder of `nulltta align`" in capsys.readouterr().err
    (tmp_path / "result.json").write_text("{")
    assert main(["diagnose", str(tmp_path)]) == 2
    assert "it is not JSON" in capsys.readouterr().err
    other = _changed(folder, tmp_path, lambda record: record["arguments"].update(reward="sharpness"))
    assert main(["diagnose", str(folder), str(other)]) == 2
    assert "has another reward than" in capsys.readouterr().err
    assert main(["diagnose", str(folder), str(folder)]) == 2
    assert "a folder is given twice" in capsys.readouterr().err
    assert main(["diagnose", str(folder), "--against", "nonesuch"]) == 2
    assert "--against: unknown reward 'nonesuch'" in capsys.readouterr().err


def _changed(folder: Path, tmp_path: Path, change: Any) -> Path:
    """Copy a run's folder and change its record."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    record = json.loads((copy / "result.json").read_text())
    change(record)
    (copy / "result.json").write_text(json.dumps(record))
    return copy
