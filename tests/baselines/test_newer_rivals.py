"""NoiseTilt, LiDAR and DATE, on a sampler that is linear in its noise, where they have closed forms and limits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nulltta import NullTTAConfig, align
from nulltta.algorithm.sampling import plain
from nulltta.algorithm.streams import MethodRun
from nulltta.algorithm.tilt import gaussian_ranks
from nulltta.algorithm.views import GradientAt
from nulltta.baselines import DATE, BestOfN, LiDAR, NoiseTilt
from nulltta.contracts import Embedding, NoiseStep
from nulltta.errors import InvalidValue
from nulltta.testing import Gaussian, nearness

from .linear import WEIGHTS, guided_means, noises, problem, sampler, slope

T = 4
PROMPTS = ["red", "green"]


@pytest.mark.parametrize(
    "rival",
    [
        NoiseTilt(strength=0.0), NoiseTilt(strength=0.0, gradient_at="estimates"), LiDAR(samples=3, strength=0.0),
        LiDAR(samples=1), DATE(length=0.0),
    ],
    ids=["no tilt", "no tilt by the estimates", "no strength", "a single lookahead sample", "no length"],
)  # fmt: skip
def test_at_zero_strength_they_sample_plainly(rival: NoiseTilt | LiDAR | DATE) -> None:
    p = problem(nearness, T, PROMPTS, seed=2)
    ordinary = MethodRun(plain(p)).finish().candidates[:, 0]
    torch.testing.assert_close(MethodRun(rival(p)).finish().candidates[:, 0], ordinary)


def test_a_tilt_without_noise_is_refused() -> None:
    config = NullTTAConfig(num_inference_steps=3, guidance_scale=2.0, eta=0.0)
    with pytest.raises(InvalidValue, match="strength has no effect: no denoising step draws noise"):
        align(Gaussian(), "red", nearness, config=config, method="clean-tilt")


def test_ranks_become_the_quantiles_of_a_normal_distribution_in_the_same_order() -> None:
    values = torch.tensor([[5.0, -1.0, 0.0], [1e-9, 3e-9, 2e-9]])
    third = torch.special.ndtri(torch.tensor(5 / 6)).item()
    expected = torch.tensor([[third, -third, 0.0], [-third, third, 0.0]])
    torch.testing.assert_close(gaussian_ranks(values), expected, rtol=0, atol=1e-6)
    many = gaussian_ranks(torch.randn(1, 4096, generator=torch.Generator().manual_seed(0)).exp())
    assert many.mean().item() == pytest.approx(0, abs=1e-4)
    assert many.std().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("of", ["latents", "estimates"])
def test_the_noise_is_tilted_by_the_whitened_gradient_and_the_mean_stays(of: GradientAt) -> None:
    p, rho = problem(slope, T, ["red"], seed=2), 0.6
    mu, z = guided_means(p)[0], noises(p, 1)
    x, whitened = p.latents[0, 0].flatten(), gaussian_ranks(WEIGHTS[None])[0]  # the reward is linear in x̂0, as x̂0 in x
    for step, noise in zip(sampler(T), z, strict=True):
        x = step.mean(x, mu) + step.std * ((1 - rho**2) ** 0.5 * noise[0] + rho * whitened)
    outcome = MethodRun(NoiseTilt(strength=rho, gradient_at=of)(p)).finish()
    torch.testing.assert_close(outcome.candidates.flatten(), x, rtol=1e-4, atol=1e-5)


def test_lookahead_samples_of_high_reward_steer_in_closed_form() -> None:
    p, count, gamma, tau = problem(nearness, T, ["red"], seed=2), 3, 0.7, 0.5
    rival = LiDAR(samples=count, lookahead_steps=2, temperature=tau, strength=gamma)
    outcome = MethodRun(rival(p)).finish()
    samples = outcome.candidates[0, 1:].flatten(1)  # the lookahead samples follow the image itself
    rewards, mu = nearness(samples, []), guided_means(p)[0]
    x = p.latents[0, 0].flatten()
    for step, noise in zip(sampler(T), noises(p, 1), strict=True):
        x0 = step.predict_x0(x, mu)
        near = -step.alpha_bar / (2 * (1 - step.alpha_bar)) * (samples - x0).square().sum(1)
        moved = x0 + gamma * ((near + rewards / tau).softmax(0) - near.softmax(0)) @ samples
        guided = (moved - step.alpha_bar**0.5 * x) / (1 - step.alpha_bar)  # the μ whose clean estimate that is
        x = step.mean(x, guided) + step.std * noise[0]
    torch.testing.assert_close(outcome.candidates[0, 0].flatten(), x, rtol=1e-4, atol=1e-4)
    assert float(outcome.rewards[0, outcome.selected[0]]) == pytest.approx(float(outcome.rewards.max()))


def test_steering_raises_the_reward_on_average() -> None:
    config = NullTTAConfig(num_inference_steps=6, guidance_scale=2.0)
    prompts, seeds = ["red"] * 40, list(range(40))
    rival = LiDAR(samples=16, temperature=0.3)
    steered = align(Gaussian(), prompts, nearness, config=config, seed=seeds, method=rival)
    ordinary = align(Gaussian(), prompts, nearness, config=config, seed=seeds, method=BestOfN(samples=1))
    assert float(steered.problem.reward(steered.candidates[:, 0], prompts).mean()) > float(ordinary.rewards.mean())


def test_the_prompts_embedding_moves_by_a_step_of_the_given_length() -> None:
    seen: list[Tensor] = []

    class Recording(Gaussian):
        def predict(self, x: Tensor, step: NoiseStep, embedding: Embedding) -> Tensor:
            seen.append(embedding["mean"].detach().clone())
            return super().predict(x, step, embedding)

    config = NullTTAConfig(num_inference_steps=10, num_particles=1, guidance_scale=2.0)
    result = align(Recording(), "red", slope, config=config, method=DATE(length=0.3, share=0.2))
    red, unit = torch.tensor([1.0, 0.0, 0.0]), WEIGHTS / WEIGHTS.norm()  # the image is linear in c, as the reward is
    moved = [red + 0.3 * k * unit for k in (0, 1, 2)]
    found = [cond for cond in seen for cond in cond.unbind(0) if cond.norm() > 0]  # φ is zero here
    assert all(min((cond - m).norm().item() for m in moved) < 1e-5 for cond in found)
    torch.testing.assert_close(found[-1], moved[2])
    assert DATE(share=0.2).updates(10) == [0, 5]
    assert DATE(share=0.1).updates(25) == [0, 8, 16]
    assert float(result.rewards) > float(result.baseline_rewards)


def test_longer_steps_of_the_embedding_raise_a_linear_reward_further() -> None:
    p = problem(slope, T, PROMPTS)
    rewards = [MethodRun(DATE(length=length)(p)).finish().rewards for length in (0.0, 0.5, 1.0)]
    assert bool((rewards[0] < rewards[1]).all() and (rewards[1] < rewards[2]).all())
