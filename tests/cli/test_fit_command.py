"""`nulltta fit`: from a file of prompts to a file of a null text, and pictures made with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from nulltta.cli import main
from nulltta.null_text.fitted import FittedNullText
from nulltta.rewards.image_files import read_image

from ..command_line import refused


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("a cat\na dog\n\na rose\na fox\na bird\n", encoding="utf-8")
    return path


def words(checkpoint: Path, prompts: Path, out: Path, *more: str) -> list[str]:
    short = ["--updates", "2", "--rows", "2", "--num-inference-steps", "2", "--guidance-scale", "4"]
    return ["fit", "--model", str(checkpoint), "--reward", "brightness", "--device", "cpu", *short, "--prompts",
            str(prompts), "--out", str(out), *more]  # fmt: skip


def test_it_writes_a_null_text_that_replays_for_any_prompt(
    checkpoint: Path, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "made" / "null.safetensors"
    assert main(words(checkpoint, prompts, out, "--guard", "sharpness", "--form", "steps")) == 0
    shown = capsys.readouterr()
    assert "update 2: brightness" in shown.err
    assert "sharpness" in shown.out
    assert [path.name for path in out.parent.iterdir()] == ["null.safetensors"]  # the state is gone
    about = FittedNullText.load(out).about
    assert about["prompts"]["number"] == 3
    assert about["validation"]["prompts"] == 2
    assert about["fit"]["form"] == "steps"

    pictures = tmp_path / "pictures"
    replay = [
        "replay",
        str(out),
        "--model",
        str(checkpoint),
        "--device",
        "cpu",
        "--seeds",
        "0-1",
        "--out",
        str(pictures),
    ]
    assert main([*replay, "--prompt", "a tree", "--prompt", "an owl", "--plain"]) == 0
    results = json.loads((pictures / "result.json").read_text())
    assert [(entry["prompt"], entry["seed"]) for entry in results["results"]] == [
        ("a tree", 0), ("a tree", 1), ("an owl", 0), ("an owl", 1),
    ]  # fmt: skip
    capsys.readouterr()
    assert main([*replay, "--overwrite"]) == 2
    assert "--prompt is needed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--updates", "0"], "--updates must be a whole number, 1 or more, not 0"),
        (["--form", "words"], "--form"),
        (["--reward", "jpeg"], "gives no gradient"),
        (["--reward", "clip"], "--reward 'clip' knows what the model 'embedded' draws and nothing else"),
        (["--guard", "nothing"], "--guard: unknown reward 'nothing'"),
        (["--guard", "brightness"], "--guard 'brightness' is the reward itself"),
        (["--tokens", "9"], "--tokens has no effect: the form is"),
        (["--validation", "missing.txt"], "--validation 'missing.txt' cannot be read"),
        (["--guidance-scale", "1"], "--guidance-scale must be above 1"),
        (["--learning-rate", "0"], "--learning-rate must be a number above 0"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    checkpoint: Path, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    out = tmp_path / "null.safetensors"
    assert main(words(checkpoint, prompts, out, *more)) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.txt"]


def test_what_needs_no_prompts_is_checked_before_they_are_fetched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nulltta.cli.fit.training_prompts", lambda *_: pytest.fail("the prompts were fetched"))
    asked = ["fit", "--prompts", "user/dataset", "--out"]
    assert "must end in .safetensors" in refused([*asked, str(tmp_path / "n.bin")], capsys)
    twice = [*asked, str(tmp_path / "n.safetensors"), "--reward", "clip", "--guard", "clip"]
    assert "is the reward itself" in refused(twice, capsys)


def test_a_file_that_exists_is_not_overwritten(
    checkpoint: Path, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "null.safetensors"
    out.write_text("mine")
    assert main(words(checkpoint, prompts, out)) == 2
    assert "exists: choose another file, or delete it" in capsys.readouterr().err
    assert out.read_text() == "mine"
    (tmp_path / "null.safetensors.training").write_text("the state beside what a stopped fit wrote")
    assert main(words(checkpoint, prompts, out)) == 2
    assert "damaged: delete it to begin anew" in capsys.readouterr().err


def test_too_few_prompts_are_refused(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = tmp_path / "few.txt"
    few.write_text("a cat\na dog\n", encoding="utf-8")
    assert main(words(checkpoint, few, tmp_path / "null.safetensors")) == 2
    assert "--prompts needs more prompts" in capsys.readouterr().err


def test_a_file_of_another_kind_is_refused(
    checkpoint: Path, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(checkpoint, prompts, tmp_path / "null.pt")) == 2
    assert "--out must end in .safetensors, by which a null text is known, not 'null.pt'" in capsys.readouterr().err
    assert list(tmp_path.glob("null*")) == []


def test_a_run_starts_from_a_fitted_null_text(
    checkpoint: Path, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fitted, out, short = tmp_path / "null.safetensors", tmp_path / "out", ["--num-inference-steps", "2"]
    assert main(words(checkpoint, prompts, fitted, "--form", "constant", "--learning-rate", "0.5")) == 0
    common = ["--model", str(checkpoint), "--reward", "brightness", "--device", "cpu", "--guidance-scale", "4", *short]
    align = ["align", "a tree", *common, "--seed", "3", "--start", str(fitted), "--out", str(out)]
    assert main([*align, "--method", "plain"]) == 0
    replay = ["replay", str(fitted), "--model", str(checkpoint), "--device", "cpu", "--prompt", "a tree"]
    assert main([*replay, "--seeds", "3", "--plain", "--out", str(tmp_path / "replayed")]) == 0
    aligned, plain = (read_image(out / name) for name in ("aligned.png", "plain.png"))
    assert torch.equal(aligned, read_image(tmp_path / "replayed" / "000.png"))
    assert not torch.equal(aligned, plain)
    record = json.loads((out / "result.json").read_text())
    assert f"--start {fitted}" in record["command"]
    assert record["arguments"]["start"] == str(fitted)
    capsys.readouterr()
    assert main([*align, "--method", "best-of-n", "--overwrite"]) == 2
    assert "--start is for the methods null-tta and plain" in capsys.readouterr().err
    assert main(["align", "a cat", "--device", "cpu", "--start", str(fitted), "--out", str(tmp_path / "other")]) == 2
    assert "--start: the null text does not fit this model" in capsys.readouterr().err


def test_ctrl_c_says_that_the_same_command_continues(
    checkpoint: Path, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pressed_later.py").write_text(
        "import pathlib\n"
        "def bright(images, prompts):\n"
        "    if images.requires_grad and list(pathlib.Path(__file__).parent.glob('*.training')):\n"
        "        raise KeyboardInterrupt\n"
        "    return images.flatten(1).mean(1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    out = tmp_path / "null.safetensors"
    more = ["--reward", "pressed_later:bright", "--validate-every", "1", "--form", "constant"]
    assert main(words(checkpoint, prompts, out, *more)) == 130
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == f"interrupted: the same command continues from '{out}.training'"
