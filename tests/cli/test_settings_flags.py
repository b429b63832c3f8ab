"""The flags of presets, offloading and a reward's type."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nulltta.cli import main
from nulltta.config import NullTTAConfig
from nulltta.runs.request import AlignRequest, RunSettings, default_reward

from ..command_line import refused

SHORT = ["--num-inference-steps", "2", "--inner-steps", "1", "1", "--num-particles", "1", "--reward", "brightness"]


def test_what_is_asked_for_is_used_and_recorded(checkpoint: Path, tmp_path: Path) -> None:
    asked = ["--preset", "sd3", "--offload", "sequential", "--reward-dtype", "float16"]
    assert main(["align", "a cat", "--model", str(checkpoint), "--out", str(tmp_path), *SHORT, *asked]) == 0
    line = json.loads((tmp_path / "result.json").read_text())["command"]
    for words in ("--preset sd3", "--offload sequential", "--reward-dtype float16", "--guidance-scale 7.0"):
        assert words in line


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--method", "plain", "--inner-steps", "1", "1"], "--inner-steps has no effect: the method plain takes no"),
        (["--method", "fk", "--num-particles", "4"], "--num-particles has no effect: the method fk takes no inner"),
        (["--guidance", "nag", "--guidance-scale", "9"], "--guidance-scale has no effect: the guidance is nag, whose"),
        (["--inner-steps", "0", "0", "--kl-target", "1"], "--kl-target has no effect: no inner steps are taken"),
        (["--zeroth-order-radius", "0.2"], "--zeroth-order-radius has no effect: the gradient is autograd"),
        (["--method", "fk", "--save-null-text", "small"], "--save-null-text has no effect: the method fk keeps"),
        (["--tiny-decoder", "no/where"], "--tiny-decoder has no effect: choose the tiny decoder (--inner-decoder)"),
        (["--reward-weight", "0"], "--reward-weight must be above 0: at 0 the inner steps raise no reward"),
        (["--preset", "embedded", "--num-inference-steps", "1"], "--num-inference-steps of 1 leaves none to optimise"),
        (["--method", "nonesuch", "--save-null-text", "small"], "--method must be one of null-tta, plain, "),
    ],
)
def test_a_flag_without_effect_is_refused_before_the_model_loads(
    words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["align", "a cat", "--model", str(tmp_path), "--reward", "brightness", "--out", str(tmp_path), *words]
    assert says in refused(words, capsys)


def test_a_format_of_videos_is_refused_for_still_pictures(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["align", "a cat", "--model", str(checkpoint), "--out", str(tmp_path / "out"), "--video-format", "mp4"]
    assert "--video-format has no effect: " in refused([*words, *SHORT], capsys)


def test_the_default_reward_is_the_target_of_the_models_own_world(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert default_reward("embedded-turbo") == "clip"
    assert default_reward("scenes") == "scenes-clip"
    for words in (["align", "a cat"], ["doctor"], ["serve"], ["ui"]):
        line = refused([*words, "--model", str(tmp_path)], capsys)
        assert "--reward must name what is raised on this model, such as pickscore" in line


def test_the_recorded_command_of_a_run_leaves_out_what_has_no_effect() -> None:
    config = NullTTAConfig(guidance="nag", guidance_scale=9.0, conventions="exact")
    words = AlignRequest(prompts=["a cat"], settings=RunSettings(config=config, reward="clip")).command()
    assert "--nag-scale" in words
    assert "--guidance-scale" not in words


def test_an_unknown_preset_is_one_line_that_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["align", "a cat", "--preset", "sd4"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --preset must be one of paper, embedded, sdxl")
    assert error.count("\n") == 1
