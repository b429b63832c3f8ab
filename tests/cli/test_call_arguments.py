"""Arguments of the pipeline's own call on the command line, and prompts with their own seeds and negative prompts."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import nulltta
from nulltta.cli import main
from nulltta.rewards.image_files import read_image

from ..docs.pages import ROOT, commands
from ..single_file import save_single_file

SHORT = ["--num-inference-steps", "2", "--inner-steps", "1", "1", "--num-particles", "1", "--guidance-scale", "3"]
SHORT += ["--reward", "brightness"]


def _align(model: Path, out: Path, *words: str) -> dict[str, Any]:
    assert main(["align", *words, "--model", str(model), "--out", str(out), *SHORT]) == 0
    record: dict[str, Any] = json.loads((out / "result.json").read_text())
    return record


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.effect_noise((20, 20), 80).convert("RGB").save(tmp_path / "cat.png")
    return tmp_path / "cat.png"


def test_the_commands_of_the_page_run(
    checkpoint: Path, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import StableDiffusionPipeline

    save_single_file(StableDiffusionPipeline.from_pretrained(checkpoint), tmp_path / "model.safetensors")
    page = (ROOT / "docs" / "families.md").read_text(encoding="utf-8")
    rows = re.search(r"```json\n(.*?)```", page, re.S)
    assert rows is not None
    (tmp_path / "prompts.jsonl").write_text(rows[1])
    monkeypatch.chdir(tmp_path)
    shown = [line for line in commands(ROOT / "docs" / "families.md") if line.startswith("nulltta align")]
    assert len(shown) >= 5
    for number, line in enumerate(shown):
        words = [str(checkpoint) if word == "org/model" else word for word in shlex.split(line)[1:]]
        assert main([*words, *SHORT, "--out", f"out-{number}"]) == 0
    assert read_image(tmp_path / "out-0" / "aligned.png").shape[-2:] == (16, 24)
    records = [json.loads((tmp_path / f"out-{i}" / "result.json").read_text()) for i in range(len(shown))]
    assert [result["seed"] for result in records[3]["results"]] == [3, 0]
    called, plain = (read_image(tmp_path / f"out-{i}" / "aligned.png") for i in (2, 4))
    assert torch.equal(called, plain)  # no rescaling is the default, and the file holds the same weights


def test_a_recorded_command_repeats_the_call(checkpoint: Path, picture: Path, tmp_path: Path) -> None:
    first = tmp_path / "first"
    words = ["a cat", "--image", str(picture), "--strength", "1.0", "--call", "cross_attention_kwargs=null"]
    command = shlex.split(_align(checkpoint, first, *words)["command"])
    command[command.index("--out") + 1] = str(tmp_path / "second")
    assert main(command[1:]) == 0
    assert torch.equal(*(read_image(folder / "aligned.png") for folder in (first, tmp_path / "second")))


def test_a_picture_changes_the_result_and_a_mask_paints_inside_it(
    checkpoint: Path, picture: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.png"
    Image.new("RGB", (20, 20), "red").save(other)
    from_noise, from_red = (
        nulltta.load_model(checkpoint, **nulltta_call(image=str(file), strength=1.0)) for file in (picture, other)
    )
    start = [m.initial_latents(1, torch.Generator().manual_seed(0)) for m in (from_noise, from_red)]
    assert not torch.equal(*start)
    Image.new("L", (20, 20), 255).save(tmp_path / "mask.png")
    masked = nulltta.load_model(
        checkpoint, **nulltta_call(image=str(picture), mask=str(tmp_path / "mask.png"), strength=1.0)
    )
    assert type(masked.pipeline).__name__ == "StableDiffusionInpaintPipeline"


def nulltta_call(**settings: Any) -> dict[str, Any]:
    from nulltta.runs.call import CallSettings

    return CallSettings(**settings).arguments()


def test_a_file_of_prompts_gives_what_each_prompt_gives_alone(checkpoint: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "a cat", "seed": 5}, {"prompt": "a dog", "negative_prompt": "ugly"}, {"prompt": "a rose"}]
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    shared = ["--seed", "2", "--negative-prompt", "dark"]
    record = _align(checkpoint, tmp_path / "all", "--prompts", str(file), *shared)
    assert [result["seed"] for result in record["results"]] == [5, 2, 2]
    assert record["arguments"]["negative_prompt"] == ["dark", "ugly", "dark"]
    _align(checkpoint, tmp_path / "alone", "a dog", "--seed", "2", "--negative-prompt", "ugly")
    one, two = (read_image(tmp_path / f / "aligned.png") for f in ("all/001", "alone"))
    torch.testing.assert_close(one, two, rtol=0, atol=1.5 / 255)
    command = shlex.split(record["command"])
    command[command.index("--out") + 1] = str(tmp_path / "again")
    assert main(command[1:]) == 0
    assert torch.equal(*(read_image(tmp_path / out / "002" / "aligned.png") for out in ("again", "all")))
    with Image.open(tmp_path / "all" / "000" / "aligned.png") as image:
        alone = shlex.split(image.info["command"])
    assert alone[-2:] == ["--", "a cat"]
    assert alone[alone.index("--seed") + 1] == "5"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a", "--height", "0"], "--height must be a whole number, 1 or more"),
        (["a", "--strength", "1.5"], "--strength must be above 0 and up to 1"),
        (["a", "--num-frames", "5"], "--num-frames is not an argument of StableDiffusionPipeline's call: it has"),
        (["a", "--height", "17"], "--height cannot be 17: the pipeline draws 16 instead"),
        (["a", "--call", "clip_skip"], "--call must be KEY=VALUE"),
        (["a", "--call", "device=cpu"], "--call must name an argument of the pipeline's call, which device is not"),
        (["a", "--call", "height=16", "--height", "16"], "--call repeats height"),
        (["a", "--call", "clip_skip=1", "--call", "clip_skip=2"], "--call gives clip_skip twice"),
        (["a", "--call", "prompt=b"], "--call gives prompt, which is set by the run itself"),
        (["a", "--call", "colour=red"], "--call gives colour, which is not an argument of StableDiffusionPipeline's"),
        (["a", "--image", "nowhere.png"], "--image cannot be read from 'nowhere.png'"),
        (["a", "--image", "PAGE"], "--image must be a picture (PNG, JPEG, WEBP)"),
        (["a", "--base-model", "org/model"], "--base-model belongs to a single file"),
        (["a", "--prompts", "FILE.jsonl"], "--prompts holds prompts with seeds of their own"),
        (["--prompts", "FILE.jsonl"], "line 2 of"),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str], said: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "FILE.jsonl").write_text('{"prompt": "a"}\n{"prompt": "a", "seed": -1}\n')
    (tmp_path / "PAGE").write_text("<html>")
    here = [str(tmp_path / word) if word in ("FILE.jsonl", "PAGE") else word for word in words]
    assert main(["align", *here, "--model", str(checkpoint), "--out", str(tmp_path / "out"), *SHORT]) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("no json", "is not JSON"),
        ('["a"]', 'is not an object with a "prompt"'),
        ('{"prompt": "a", "colour": 1}', "has a field 'colour'"),
        ('{"prompt": " "}', "a prompt is empty"),
        ('{"prompt": "a", "negative_prompt": 3}', "a negative prompt must be text"),
        ('{"prompt": "a", "seed": 1.5}', "seed must be a whole number"),
    ],
)
def test_a_malformed_line_is_named(line: str, said: str, tmp_path: Path) -> None:
    from nulltta.runs.prompt_file import read_rows

    (tmp_path / "prompts.jsonl").write_text(f'{{"prompt": "a cat"}}\n{line}\n')
    with pytest.raises(nulltta.NullTTAError, match=re.escape(said)) as caught:
        read_rows([], tmp_path / "prompts.jsonl")
    assert "line 2 of" in str(caught.value)
