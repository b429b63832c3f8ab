"""The null text that ships with the embedded model, under its name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import nulltta
from nulltta import LoadError, NullText
from nulltta.cli import main
from nulltta.embedded.worlds import EMOJI
from nulltta.null_text import loading
from nulltta.null_text.fitted import FittedNullText

from ..command_line import refused

REWARD = "colourfulness + 4*clip"
PROMPTS = ("a fox on a blue background, noto style", "two mushrooms on a green background, fluent style")


def test_it_fits_the_model_and_says_what_it_gains_and_costs() -> None:
    null_text = loading.load("embedded", nulltta.load_model("embedded"))
    assert isinstance(null_text, FittedNullText)
    assert null_text.about["reward"] == REWARD
    assert null_text.about["licence"] == "Apache-2.0"
    gains = null_text.about["validation"]["gains"]
    assert gains[REWARD]["low"] > 0
    assert {"clip-b", "facts"} <= set(gains)
    assert EMOJI.null_text is not None
    assert EMOJI.null_text.stat().st_size < 2**20


def test_pictures_have_more_colour_at_the_cost_of_plain_sampling(tmp_path: Path) -> None:
    prompts = [word for prompt in PROMPTS for word in ("--prompt", prompt)]
    command = ["replay", "embedded", *prompts, "--plain", "--reward", "colourfulness", "--out", str(tmp_path / "out")]
    assert main(command) == 0
    results = json.loads((tmp_path / "out" / "result.json").read_text())["results"]
    assert len(results) == len(PROMPTS)
    for result in results:
        score = result["scores"]["colourfulness"]
        assert score["replay"] > score["plain"] + 0.005


def test_it_can_be_started_from(tmp_path: Path) -> None:
    command = ["align", PROMPTS[0], "--start", "embedded", "--method", "plain", "--reward", "colourfulness"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0


@pytest.mark.parametrize("model", ["embedded-turbo", "scenes"])
def test_the_other_models_have_none(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(LoadError, match=f"no null text ships for '{model}', only for 'embedded'"):
        loading.load(model)
    assert "only for 'embedded'" in refused(["replay", model, "--prompt", "a star"], capsys)


def test_a_distilled_model_refuses_it(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["replay", "embedded", "--model", "embedded-turbo", "--prompt", "a star"]
    assert "the null text acts through classifier-free guidance" in refused(words, capsys)


def test_a_file_of_that_name_is_reached_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("embedded").write_bytes(b"not a null text")
    assert isinstance(loading.load("embedded"), FittedNullText)
    assert "'embedded' is damaged or not a safetensors file" in refused(
        ["replay", "./embedded", "--prompt", "a star"], capsys
    )
    FittedNullText.load("embedded").save("embedded", licence="another")
    assert loading.load("./embedded").about["licence"] == "another"
    assert FittedNullText.load(Path("embedded")).about["licence"] == "another"
    assert FittedNullText.load("embedded").about["licence"] == "Apache-2.0"


@pytest.mark.parametrize(
    "command", [["replay", "../nothing", "--prompt", "a star"], ["align", "a star", "--start", "./nothing"]]
)
def test_a_path_without_a_file_is_not_taken_for_a_repository(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "there is no file" in refused(command, capsys)


def test_it_records_no_run_to_make_again(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(["replay", "embedded", "--exact"], capsys)
    assert "--exact makes a recorded picture again, and a null text for all prompts records none" in line


def test_it_is_told_from_the_null_text_of_one_prompt() -> None:
    with pytest.raises(LoadError, match=r"is a null text for all prompts: nulltta\.null_text\.loading\.load reads it"):
        NullText.load("embedded")
