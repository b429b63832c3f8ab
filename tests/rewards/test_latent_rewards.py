"""Rewards that read latents: the results of rewards of images where both are the same, without the decoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import nulltta
from nulltta import InvalidValue, NullTTAConfig, RewardError, align
from nulltta.alignment import METHODS
from nulltta.benchmark.measures import Measures
from nulltta.cli import main
from nulltta.errors import DoesNotFit
from nulltta.evaluation.comparison import compare
from nulltta.rewards import load
from nulltta.rewards.compose import Standardised, WeightedSum
from nulltta.runs.doctor import estimate
from nulltta.testing import Gaussian, nearness

from .latents import Counting, Direct, Failing, Looking, Redness

CONFIG = NullTTAConfig(num_inference_steps=4, inner_steps=(1, 3), num_particles=2, guidance_scale=3.0)
EMBEDDED = NullTTAConfig.embedded(num_inference_steps=2, inner_steps=(1, 1), num_particles=2)
PROMPT = "a fox on a blue background, noto style"


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_what_it_gives_for_the_same_reward_of_images(method: str) -> None:
    """The decoder of the closed-form model changes nothing; it is needed once per image that is returned."""
    prompts, seeds = ["red", "green"], [3, 1]
    direct, model = Direct(load(nearness)), Counting(Gaussian())
    steps: list[Any] = []
    ours = align(model, prompts, direct, config=CONFIG, seed=seeds, method=method, on_step=steps.append)
    passes = {"dno": len(ours.trace), "reno": len(ours.trace), "shared-null": 2, "lidar": 2}  # each ends in images
    assert model.decodings == {"without": passes.get(method, 1)}
    expected = align(Gaussian(), prompts, nearness, config=CONFIG, seed=seeds, method=method)
    assert torch.equal(ours.images, expected.images)
    assert torch.equal(ours.rewards, expected.rewards)
    assert all(torch.equal(a.inner_rewards, b.inner_rewards) for a, b in zip(ours.trace, expected.trace, strict=True))
    assert ours.latents is not None
    assert torch.equal(ours.latents, ours.images)
    for step in steps:  # a preview is decoded when it is looked at
        assert step.preview is None or step.preview.shape == ours.images.shape


def test_it_is_told_the_noise_level() -> None:
    direct = Direct(load(nearness))
    align(Gaussian(), "red", direct, config=CONFIG)
    timesteps = [step.timestep for step in Gaussian().schedule(4)]
    assert list(dict.fromkeys(direct.levels)) == [*timesteps, None]


def test_on_the_embedded_model_the_images_are_those_of_the_reward_of_images() -> None:
    """Bit for bit, with gradients through the same small decoder."""
    model = nulltta.load_model("embedded", device="cpu")
    expected = align(model, PROMPT, "clip", config=EMBEDDED)
    ours = align(model, PROMPT, Looking(load("clip", device="cpu")), config=EMBEDDED)
    assert torch.equal(ours.images, expected.images)
    assert torch.equal(ours.rewards, expected.rewards)


def test_the_gradient_is_that_of_finite_differences_and_needs_no_decoder() -> None:
    model = Counting(nulltta.load_model("embedded", device="cpu"))
    result = align(model, PROMPT, Redness(), config=EMBEDDED)
    assert model.decodings == {"without": 1}
    assert result.rewards > result.baseline_rewards
    assert result.latents is not None
    torch.testing.assert_close(result.rewards, result.latents[:, 0].mean((1, 2)))
    torch.testing.assert_close(result.images, model.decode(result.latents))


def test_a_sum_of_both_kinds_decodes_once_and_reports_its_parts() -> None:
    model = Counting(Gaussian())
    both = WeightedSum([(0.5, Redness()), (2.0, load("brightness"))])
    assert (both.reads_latents, both.differentiable, both.name) == (True, True, "0.5*redness + 2*brightness")
    result = align(model, ["red", "green"], both, config=CONFIG, method="plain")
    assert model.decodings == {"without": 1}
    red, bright = result.images[:, 0].mean((1, 2)), result.images.mean((1, 2, 3))
    torch.testing.assert_close(result.rewards, 0.5 * red + 2 * bright)
    aligned = align(model, "red", both, config=CONFIG)
    assert set(aligned.reward_components) == set(aligned.baseline_components) == {"redness", "brightness"}
    torch.testing.assert_close(aligned.reward_components["redness"], aligned.images[:, 0].mean((1, 2)))
    (comparison,) = compare(aligned)
    assert {name: score.role for name, score in comparison.scores.items()} == {
        both.name: "target", "redness": "component", "brightness": "component",
    }  # fmt: skip


def test_z_reads_latents_too() -> None:
    result = align(Gaussian(), "red", Standardised(Redness()), config=CONFIG)
    torch.testing.assert_close(result.reward_components["redness"], result.images[:, 0].mean((1, 2)))


def test_a_model_whose_latents_it_cannot_read_is_refused_before_any_work() -> None:
    class Wide(Gaussian):
        latent_shape = (5, 1, 1)

    for reward in (Redness(), WeightedSum([(1.0, Standardised(Redness(), 0.0, 1.0)), (1.0, load("jpeg"))])):
        model = Wide()
        with pytest.raises(DoesNotFit, match="does not read latents of 5 channels, which 'gaussian' has"):
            align(model, "red", reward, config=CONFIG)
        assert model.without_gradient == model.with_gradient == 0


def test_a_failing_one_is_named() -> None:
    for reward in (Failing(), WeightedSum([(1.0, Standardised(Failing(), 0.0, 1.0)), (1.0, load("brightness"))])):
        with pytest.raises(RewardError, match=r"^reward 'failing' failed: ZeroDivisionError: in the reward$"):
            align(Gaussian(), "red", reward, config=CONFIG)


def test_pictures_alone_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidValue, match="'redness' reads a model's latents and cannot score pictures alone"):
        Redness()(torch.zeros(1, 3, 8, 8), [""])
    with pytest.raises(InvalidValue, match="'redness' reads a model's latents, and the benchmark has only pictures"):
        Measures("other", ["tests.rewards.latents:Redness"], [], torch.device("cpu"))
    picture = tmp_path / "picture.png"
    picture.touch()
    reward = "tests.rewards.latents:Redness + brightness"
    assert main(["rewards", "score", str(picture), "--prompt", "a cat", "--reward", reward]) == 2
    assert "reads a model's latents, and a file has only pictures" in capsys.readouterr().err


def test_the_foretold_time_is_without_the_decoder() -> None:
    model = Counting(Gaussian())
    estimate(model, Redness(), CONFIG, prompt="red")
    assert model.decodings == {}
    estimate(model, load(nearness), CONFIG, prompt="red")
    assert model.decodings["with"] > 0


def test_the_command_line_takes_it_by_its_import_path(checkpoint: Path, tmp_path: Path) -> None:
    out, given = tmp_path / "out", ["--model", str(checkpoint), "--reward", "tests.rewards.latents:Redness"]
    short = ["--num-inference-steps", "3", "--inner-steps", "1", "1", "--num-particles", "2", "--guidance-scale", "3"]
    assert main(["align", "a cat", *given, "--out", str(out), *short, "--save-null-text", "small"]) == 0
    (found,) = json.loads((out / "result.json").read_text())["results"]
    assert found["scores"]["redness"]["role"] == "target"
    (null_text,) = out.rglob("*.safetensors")
    assert main(["replay", str(null_text), *given, "--out", str(tmp_path / "replay")]) == 2
