"""`noise_tilt` draws candidates along the reward's gradient, and their noise is recorded for exact replay."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import nulltta
from nulltta import InvalidValue, NullTTAConfig, align
from nulltta.algorithm.tilt import gaussian_ranks, tilted
from nulltta.models import load_model
from nulltta.rewards import Custom
from nulltta.testing import Gaussian, nearness

SHORT = NullTTAConfig.embedded(
    num_inference_steps=4, inner_steps=(1, 1), num_particles=2, noise_tilt=0.3, optimise_between=(0.0, 1.0)
)
PROMPT = "a fox on a blue background, noto style"


def test_a_tilted_noise_has_the_norm_of_noise_and_points_along_the_slope() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 3, 4, 16, 16, generator=generator)
    slope = torch.randn(2, 4, 16, 16, generator=generator).exp()
    found = tilted(noise, slope, 0.6)
    torch.testing.assert_close(found.square().mean(), torch.tensor(1.0), rtol=0.05, atol=0)
    torch.testing.assert_close((found - 0.8 * noise) / 0.6, gaussian_ranks(slope)[:, None].expand_as(noise))
    assert torch.equal(tilted(noise, 5 * slope, 0.6), found)


def test_a_prompt_without_a_slope_keeps_its_noise() -> None:
    noise = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    slope = torch.stack([torch.zeros(4), torch.arange(4.0)])
    found = tilted(noise, slope, 0.5)
    assert torch.equal(found[0], noise[0])
    assert not torch.equal(found[1], noise[1])


def test_a_whole_tilt_replaces_every_noise_by_the_slopes_ranks() -> None:
    """Under ρ = 1 all candidates and seeds take the same way from the same initial latent."""
    config = NullTTAConfig(
        num_inference_steps=6, inner_steps=(1, 1), num_particles=2, guidance_scale=3.0, learning_rate=0.0, noise_tilt=1
    )
    latents = torch.full((2, 2, 3, 1, 1), 0.3)
    result = align(Gaussian(), ["red", "red"], nearness, config=config, seed=[1, 2], latents=latents)
    assert torch.equal(result.images[0], result.images[1])
    assert torch.equal(result.candidates[:, 0], result.candidates[:, 1])
    assert bool((result.rewards > result.baseline_rewards).all())


def test_a_single_candidate_is_scored_once_for_its_reward_and_its_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of eight denoising steps the last two move φ': at the others the look gives the gradient of the next tilt."""
    scored: list[int] = []

    def near(images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        scored.append(len(images))
        return nearness(images, prompts)

    config = NullTTAConfig(
        num_inference_steps=8, inner_steps=(1, 1), num_particles=1, guidance_scale=3.0, learning_rate=0.1,
        noise_tilt=0.5, optimise_between=(0.75, 1.0)
    )  # fmt: skip
    once = align(Gaussian(), ["red", "green"], Custom(near, name="near"), config=config, seed=[1, 2])
    calls = len(scored)
    monkeypatch.setattr("nulltta.algorithm.sampling._looks_once", lambda config: False)
    twice = align(Gaussian(), ["red", "green"], Custom(near, name="near"), config=config, seed=[1, 2])
    torch.testing.assert_close(once.images, twice.images)
    assert len(scored) - calls == calls + 6  # denoising steps 0 to 5


def vars_of(config: NullTTAConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in config.__dataclass_fields__}


def test_exact_replay_draws_the_tilted_noise(tmp_path: Any) -> None:
    model = load_model("embedded")
    result = align(model, PROMPT, "clip", config=SHORT, progress=False)
    path = tmp_path / "null.safetensors"
    result.null_text[0].save(path, noise=True)
    assert torch.equal(nulltta.replay(model, nulltta.NullText.load(path), exact=True), result.images)


@pytest.mark.parametrize(
    ("changes", "reward", "reason"),
    [
        ({"noise_tilt": 1.5}, "clip", "noise_tilt must lie between 0 and 1, not 1.5"),
        ({"conventions": "release"}, "clip", "noise_tilt must be 0 under the conventions of the release"),
        ({"num_inference_steps": 1}, "clip", "noise_tilt has no effect: no denoising step draws noise"),
        ({"inner_steps": (0, 0)}, "clip", "noise_tilt is for a null text that is optimised, and no inner steps"),
        ({}, "jpeg", "gives no gradient: set the tilt of the noise to 0"),
    ],
)
def test_what_cannot_be_tilted_is_refused(changes: dict[str, Any], reward: str, reason: str) -> None:
    with pytest.raises(InvalidValue, match=reason):
        align("embedded", PROMPT, reward, config=NullTTAConfig(**{**vars_of(SHORT), **changes}))


@pytest.mark.parametrize("method", ["dps", "best-of-n", "fk", "lidar", "plain"])
def test_methods_without_a_null_text_refuse_a_tilt(method: str) -> None:
    reward = Custom(lambda images, prompts: images.flatten(1).mean(1), "bright")
    with pytest.raises(InvalidValue, match="noise_tilt"):
        align("embedded", PROMPT, reward, config=SHORT, method=method)
