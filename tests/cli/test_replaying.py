"""`nulltta replay`: sampling with a null text that `nulltta align` saved."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import nulltta
from nulltta import NullText, NullTTAConfig
from nulltta.cli import main
from nulltta.images import to_pil
from nulltta.null_text.replay import replay
from nulltta.runs.grid import Cell, grid_figure

from ..command_line import refused

SHORT = ["--num-inference-steps", "3", "--inner-steps", "1", "1", "--num-particles", "2"]
SHORT += ["--guidance-scale", "3", "--learning-rate", "0.1"]


@pytest.fixture(scope="module")
def kept(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that saved its null text with its noise."""
    out = tmp_path_factory.mktemp("kept")
    command = ["align", "a cat", "--model", str(checkpoint), "--reward", "brightness", "--seed", "4", *SHORT]
    assert main([*command, "--save-null-text", "exact", "--out", str(out)]) == 0
    return out


def words(kept: Path, checkpoint: Path, out: Path, *more: str) -> list[str]:
    return ["replay", str(kept / "null-text.safetensors"), "--model", str(checkpoint), "--out", str(out), *more]


def pixels(path: Path) -> Any:
    with Image.open(path) as image:
        return list(image.get_flattened_data())


def test_align_saves_null_texts_in_each_form(kept: Path, checkpoint: Path, tmp_path: Path) -> None:
    record = json.loads((kept / "result.json").read_text())
    assert record["results"][0]["files"]["null text"] == "null-text.safetensors"
    assert "--save-null-text exact" in record["command"]
    exact = NullText.load(kept / "null-text.safetensors")
    assert exact.latents is not None
    assert exact.about["seed"] == 4
    command = ["align", "a", "b", "--model", str(checkpoint), "--reward", "brightness", "--out", str(tmp_path), *SHORT]
    assert main([*command, "--save-null-text", "small"]) == 0
    small = [NullText.load(tmp_path / folder / "null-text.safetensors") for folder in ("000", "001")]
    assert [null_text.prompt for null_text in small] == ["a", "b"]
    assert small[0].latents is None
    assert main([*command[: -len(SHORT)], *SHORT, "--out", str(tmp_path / "none")]) == 0
    assert not list((tmp_path / "none").rglob("*.safetensors"))


def test_exact_replay_reproduces_the_aligned_picture_and_says_so(
    kept: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(kept, checkpoint, tmp_path, "--exact")) == 0
    assert pixels(tmp_path / "000.png") == pixels(kept / "aligned.png")
    assert "the aligned image again, bit for bit" in capsys.readouterr().out
    record = json.loads((tmp_path / "result.json").read_text())
    assert record["max_difference"] == 0
    for name, off, says in (("near", 1e-5, "up to rounding: no pixel differs by more than"), ("far", 0.5, "not the")):
        tensors = load_file(kept / "null-text.safetensors")
        tensors["image"] = (tensors["image"] - off).clamp(min=0)
        with (kept / "null-text.safetensors").open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            metadata = json.loads(file.read(length))["__metadata__"]
        save_file(tensors, tmp_path / name, metadata)
        assert (
            main(["replay", str(tmp_path / name), *words(kept, checkpoint, tmp_path, "--exact", "--overwrite")[2:]])
            == 0
        )
        assert says in capsys.readouterr().out


def test_seeds_prompts_and_plain(
    kept: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("b\n")
    out = tmp_path / "out"
    extra = ["--seeds", "0-1,7", "--prompt", "a dog", "--prompts", str(file), "--plain", "--batch-size", "2"]
    extra += ["--num-inference-steps", "5", "--guidance-scale", "2", "--eta", "0"]
    assert main(words(kept, checkpoint, out, *extra)) == 0
    record = json.loads((out / "result.json").read_text())
    assert [(r["prompt"], r["seed"]) for r in record["results"]] == [(p, s) for p in ("a dog", "b") for s in (0, 1, 7)]
    files = {file for result in record["results"] for file in result["files"].values()}
    assert {p.name for p in out.iterdir()} == files | {"result.json", "grid.png"}
    assert record["status"] == "finished"
    assert record["config"] == {"num_inference_steps": 5, "guidance_scale": 2.0, "eta": 0.0}
    assert record["null_text"]["prompt"] == "a cat"
    model = nulltta.load_model(checkpoint, device="cpu")
    config = NullTTAConfig(num_inference_steps=5, guidance_scale=2.0, eta=0.0)
    kept_null = NullText.load(kept / "null-text.safetensors")
    for name, plain in (("005.png", False), ("005-plain.png", True)):
        expected = to_pil(replay(model, kept_null, prompt="b", seeds=[7], config=config, plain=plain))[0]
        assert pixels(out / name) == list(expected.get_flattened_data())
    assert pixels(out / "005.png") != pixels(out / "005-plain.png")
    with Image.open(out / "005.png") as image:
        assert (image.info["prompt"], image.info["seed"]) == ("b", "7")
        command = shlex.split(image.info["command"])
    again = tmp_path / "again"
    command[command.index("--out") + 1] = str(again)
    assert main(command[1:]) == 0
    assert pixels(again / "000.png") == pixels(out / "005.png")


def test_a_reward_scores_plain_against_replay(
    kept: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(kept, checkpoint, tmp_path, "--seeds", "0-3", "--reward", "brightness")) == 0
    record = json.loads((tmp_path / "result.json").read_text())
    scores = [result["scores"]["brightness"] for result in record["results"]]
    for result, score in zip(record["results"], scores, strict=True):
        for name, file in result["files"].items():  # the files contain the images that were scored
            values = [value for pixel in pixels(tmp_path / file) for value in pixel]
            assert sum(values) / len(values) / 255 == pytest.approx(score[name], abs=0.002)
    gain = sum(score["replay"] - score["plain"] for score in scores) / 4
    shown = capsys.readouterr().out
    assert f"{gain:+.3f}" in shown
    assert "95% interval over seeds" in shown
    assert (
        main(
            words(kept, checkpoint, tmp_path, "--prompt", "a", "--prompt", "b", "--reward", "brightness", "--overwrite")
        )
        == 0
    )
    assert "95% interval over prompts" in capsys.readouterr().out


MISTAKES = {
    "no file": (["{tmp}/none.safetensors"], "there is no file"),
    "a folder": (["{tmp}"], "is a folder: give the null text in it"),
    "weights of no reward": (["{kept}", "--reward-source", "a/b"], "--reward-source has no effect: name the reward"),
    "cut": (["{tmp}/cut"], "damaged or not a safetensors file"),
    "not one": (["{tmp}/other"], "is not a null text"),
    "other model": (["{kept}", "--model", "embedded"], "does not fit this model: the denoiser's configuration differs"),
    "lies": (["{tmp}/lies"], "its tensors are {'encoder_hidden_states': (77, 5)}"),
    "seeds": (["{kept}", "--seeds", "3-1"], "--seeds must be like 0-7 or 0,3,5: 3-1 is reversed: write 1-3"),
    "no seeds": (["{kept}", "--seeds", ""], "'' is neither a seed nor a range"),
    "empty prompt": (["{kept}", "--prompt", " "], "a prompt is empty"),
    "no prompts": (["{kept}", "--prompts", "{tmp}/empty"], "holds no prompts"),
    "exact and seeds": (["{kept}", "--exact", "--seeds", "1"], "leave out --seeds"),
    "exact and another prompt": (["{kept}", "--exact", "--prompt", "b", "--eta", "0"], "leave out --prompt, --eta"),
    "exact without noise": (["{tmp}/small", "--exact"], "holds no noise"),
    "too many steps": (["{kept}", "--num-inference-steps", "2000"], "--num-inference-steps is above the 1000 steps"),
    "guidance": (["{kept}", "--guidance-scale", "1"], "--guidance-scale must be above 1, not 1"),
    "unknown reward": (["{kept}", "--reward", "brightnes"], "did you mean 'brightness'"),
    "unwritable": (["{kept}", "--out", "{tmp}/empty/out"], "is not a folder"),
    "batch size": (["{kept}", "--batch-size", "0"], "--batch-size must be"),
}


@pytest.mark.parametrize(("given", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_refused_in_one_line_and_leaves_no_files(
    given: list[str], expected: str, kept: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = kept / "null-text.safetensors"
    (tmp_path / "cut").write_bytes(whole.read_bytes()[:900])
    (tmp_path / "empty").write_text("\n")
    save_file({"x": torch.zeros(1)}, tmp_path / "other")
    null_text = NullText.load(whole)
    null_text.save(tmp_path / "small")
    cut = [
        {"encoder_hidden_states": value["encoder_hidden_states"][:, :5]}
        for value in (null_text.null, *null_text.values)
    ]
    NullText(null_text.timesteps, cut[1:], "a cat", cut[0], null_text.about).save(tmp_path / "lies")
    before = sorted(tmp_path.rglob("*"))
    filled = [word.replace("{tmp}", str(tmp_path)).replace("{kept}", str(whole)) for word in given]
    assert expected in refused(["replay", "--model", str(checkpoint), "--out", str(tmp_path / "out"), *filled], capsys)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("batches", [0, 1])
def test_ctrl_c_keeps_what_is_finished(
    batches: int, kept: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    calls = iter([True] * batches)

    def interrupted(*args: Any, **options: Any) -> Any:
        if not next(calls, False):
            raise KeyboardInterrupt
        return replay(*args, **options)

    monkeypatch.setattr("nulltta.runs.replay.replay", interrupted)
    out = tmp_path / "out"
    assert main(words(kept, checkpoint, out, "--seeds", "0-3", "--batch-size", "2")) == 130
    assert "interrupted: " in capsys.readouterr().err
    if batches:
        assert json.loads((out / "result.json").read_text())["status"] == "interrupted"
        assert {p.name for p in out.iterdir()} == {"000.png", "001.png", "grid.png", "result.json"}
    else:
        assert not out.exists()


def test_a_failure_keeps_the_finished_batches(
    kept: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*args: Any, **options: Any) -> Any:
        if 2 in options["seeds"]:
            raise torch.OutOfMemoryError("no memory")
        return replay(*args, **options)

    monkeypatch.setattr("nulltta.runs.replay.replay", failing)
    assert main(words(kept, checkpoint, tmp_path / "out", "--seeds", "0-3", "--batch-size", "2")) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "error: out of memory: sample fewer pictures at a time (--batch-size); 2 of 4 pictures are finished"
    )
    assert json.loads((tmp_path / "out" / "result.json").read_text())["status"] == "failed"


def test_more_seeds_than_fit_in_a_row_are_drawn_in_several_rows() -> None:
    picture = Image.new("RGB", (8, 8), "red")
    cells = [Cell(prompt, f"seed {i}", {"plain": picture, "replay": picture}) for prompt in "ab" for i in range(9)]
    figure = grid_figure(cells)
    assert [len(part.axes) for part in figure.subfigs] == [16, 16, 16, 16]
    assert [part._suptitle.get_text() for part in figure.subfigs] == ["a", "a", "b", "b"]
    drawn = [axis for part in figure.subfigs for axis in part.axes if axis.images]
    assert len(drawn) == 36
