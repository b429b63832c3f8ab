"""Alignment of the embedded model."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

import nulltta
from nulltta import NullTTAConfig
from nulltta.algorithm.randomness import seeded


@pytest.fixture(scope="module")
def embedded() -> nulltta.GuidedModel:
    return nulltta.load_model("embedded", device="cpu")


def test_alignment_raises_clip_beyond_choosing_among_candidates(embedded: Any) -> None:
    prompts = ["a fox on a blue background, noto style", "two penguins on a white background, fluent style"]
    settings: dict[str, Any] = {"num_inference_steps": 5, "num_particles": 2}
    chosen, learnt = (
        nulltta.align(embedded, prompts, "clip", config=NullTTAConfig.embedded(inner_steps=n, **settings))
        for n in ((0, 0), (5, 10))
    )
    assert bool((learnt.rewards > learnt.baseline_rewards).all())
    assert learnt.rewards.mean() > chosen.rewards.mean()


def test_words_that_it_does_not_know_are_a_warning(embedded: Any) -> None:
    config = NullTTAConfig.embedded(num_inference_steps=1)
    with pytest.warns(UserWarning, match="does not know 'dragon', 'riding'"):
        nulltta.align(embedded, "a dragon riding a fox", "brightness", config=config, method="plain")


def test_plain_sampling_is_stock_diffusers(embedded: Any) -> None:
    plain = nulltta.align(embedded, "a star on a red background", "brightness", method="plain", seed=3)
    scheduler = embedded.scheduler
    scheduler.set_timesteps(25)
    x = plain.problem.latents[:, 0]
    cond, null = (embedding["encoder_hidden_states"] for embedding in (plain.problem.cond, plain.problem.null))
    with torch.no_grad():
        for i, t in enumerate(scheduler.timesteps):
            branches = embedded.pipeline.unet(
                torch.cat([x, x]), t, encoder_hidden_states=torch.cat([null, cond])
            ).sample
            eps_null, eps_cond = branches.chunk(2)
            v = eps_null + 3.0 * (eps_cond - eps_null)
            x = scheduler.step(v, t, x, eta=1.0, variance_noise=seeded([3], i, x, 1)[:, 0]).prev_sample
        image = (embedded.pipeline.vae.decode(x).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(plain.images, image, rtol=0, atol=1e-5)


def test_a_prompt_past_the_tokenizers_length_is_cut_with_a_warning(embedded: Any) -> None:
    with pytest.warns(UserWarning, match="longer than 24 tokens; cut off: .*rose"):
        embedded.encode(["a cat face and " * 8 + "a rose"], [""])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        embedded.encode(["a rose"], [""])
