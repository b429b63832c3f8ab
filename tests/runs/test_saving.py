"""A `Result` is written as the command line writes its own."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from PIL import Image
from torch import Tensor

import nulltta
from nulltta.cli import main


def test_a_saved_result_is_a_run_of_the_command_line(
    model: nulltta.GuidedModel, config: nulltta.NullTTAConfig, tmp_path: Path
) -> None:
    result = nulltta.align(model, "a cat", "brightness", config=config, seed=[3, 1])
    result.save(tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    assert sorted(path.name for path in folder.iterdir()) == ["000", "001", "contact-sheet.png", "result.json"]
    record = json.loads((folder / "result.json").read_text())
    assert record["status"] == "finished"
    assert [entry["seed"] for entry in record["results"]] == [3, 1]
    assert record["results"][0]["scores"]["brightness"]["aligned"] == pytest.approx(float(result.rewards[0]), abs=1e-5)
    with Image.open(folder / "001" / "aligned.png") as image:
        assert image.tobytes() == result.pil()[1].tobytes()
        assert image.info["seed"] == "1"
        assert shlex.split(image.info["command"])[-2:] == ["--", "a cat"]
    command = shlex.split(record["command"])
    command[command.index("--out") + 1] = str(tmp_path / "again")
    assert main(command[1:]) == 0
    assert json.loads((tmp_path / "again" / "result.json").read_text())["results"] == record["results"]

    with pytest.raises(nulltta.InvalidValue, match="holds the results of another run"):
        result.save(folder)
    result.save(folder, overwrite=True)


def test_what_no_command_repeats_has_none(
    model: nulltta.GuidedModel, config: nulltta.NullTTAConfig, tmp_path: Path
) -> None:
    def redness(images: Tensor, prompts: list[str]) -> Tensor:
        return images[:, 0].mean(dim=(1, 2))

    nulltta.align(model, "a cat", redness, config=config).save(tmp_path)
    assert json.loads((tmp_path / "result.json").read_text())["command"] is None
    with Image.open(tmp_path / "aligned.png") as image:
        assert image.info == {"prompt": "a cat", "seed": "0"}


def test_seeds_that_differ_by_prompt_are_no_single_command(
    model: nulltta.GuidedModel, config: nulltta.NullTTAConfig, tmp_path: Path
) -> None:
    nulltta.align(model, ["a cat", "a dog"], "brightness", config=config, seed=[3, 1]).save(tmp_path)
    assert json.loads((tmp_path / "result.json").read_text())["command"] is None
    with Image.open(tmp_path / "000" / "aligned.png") as image:
        words = shlex.split(image.info["command"])
    assert words[words.index("--seed") + 1] == "3"
