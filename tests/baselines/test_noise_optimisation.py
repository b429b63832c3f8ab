"""DNO and ReNO, on a sampler that is linear in its noise."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from nulltta import NullTTAConfig, align
from nulltta.algorithm.problem import Problem
from nulltta.algorithm.randomness import generator
from nulltta.algorithm.sampling import plain
from nulltta.algorithm.streams import MethodRun
from nulltta.baselines import DNO, ReNO
from nulltta.baselines.dno import log_probability
from nulltta.baselines.noise_ascent import NoiseAscent, clipped, own_noise
from nulltta.baselines.reno import log_norm_density
from nulltta.benchmark.counting import counted
from nulltta.testing import Gaussian, nearness

from .linear import WEIGHTS, guided_means, problem, sampler, slope

T = 4
PROMPTS = ["red", "green"]


def _gains(steps: int) -> Tensor:
    """Return the derivatives of x_0 by x_T, z_1, ..., z_T, which are scalars: (1 + T,)."""
    found = sampler(steps)
    after = [math.prod(step.a for step in found[i + 1 :]) for i in range(-1, steps)]
    return torch.tensor([1.0, *(step.std for step in found)]) * torch.tensor(after)


def _x0(p: Problem, noise: Tensor) -> Tensor:
    """Return x_0 (B, 3) of noise (B, 1 + T, 3)."""
    x, mu = noise[:, 0], guided_means(p)
    for step, z in zip(sampler(T), noise[:, 1:].unbind(1), strict=True):
        x = step.mean(x, mu) + step.std * z
    return x


def test_unchanged_noise_gives_plain_sampling() -> None:
    p = problem(nearness, T, PROMPTS, seed=2)
    ordinary = MethodRun(plain(p)).finish()
    for rival in (DNO(iterations=0), ReNO(iterations=0)):
        torch.testing.assert_close(MethodRun(rival(p)).finish().candidates, ordinary.candidates)


@pytest.mark.parametrize("free", [1, 1 + T], ids=["initial latent", "all noises"])
def test_the_gradient_through_all_steps_is_the_analytic_one(free: int) -> None:
    p = problem(slope, T, PROMPTS, seed=2)
    noise = torch.stack(own_noise(p), dim=1)  # (B, 1 + T, 3, 1, 1)
    moved, fixed = noise[:, :free].clone(), noise[:, free:].unbind(1)
    optimiser = torch.optim.SGD([moved], lr=1.0, maximize=True)
    MethodRun(NoiseAscent(moved, fixed, optimiser, clip=math.inf).run(p, iterations=1)).finish()
    expected = torch.outer(_gains(T)[:free], WEIGHTS).expand(2, free, 3)
    torch.testing.assert_close((moved - noise[:, :free]).flatten(2), expected, rtol=1e-4, atol=1e-5)


def test_an_iteration_costs_four_evaluations_a_step_and_six_where_memory_is_short(model: Any) -> None:
    n, T, failures = 2, 3, [True]

    def short_of_memory(images: Tensor, prompts: object) -> Tensor:
        if failures.pop() if failures else False:
            raise torch.OutOfMemoryError("out of memory")
        return images.flatten(1).mean(1)

    config = NullTTAConfig(num_inference_steps=T, num_particles=1, guidance_scale=3.0)
    rival = ReNO(iterations=n)
    with counted(model) as evaluations:
        enough = align(model, "a cat", "brightness", config=config, method=rival)
    assert evaluations.total == 4 * T * n + 2 * T
    with counted(model) as evaluations, pytest.warns(UserWarning, match="more activations recomputed"):
        little = align(model, "a cat", short_of_memory, config=config, method=rival)
    assert evaluations.total == 6 * T * n + 2 * T + 2 * T  # the last: the forward pass that failed
    torch.testing.assert_close(little.images, enough.images)


def test_reno_gains_more_without_step_noise_which_is_its_published_setting() -> None:
    """With η = 0 the initial latent alone decides the image, so that the same steps move the reward further."""
    gains = []
    for eta in (0.0, 1.0):
        config = NullTTAConfig(num_inference_steps=T, guidance_scale=2.0, num_particles=1, eta=eta)
        result = align(Gaussian(), PROMPTS, slope, config=config, method=ReNO(iterations=3, norm_weight=0.0))
        plain = align(Gaussian(), PROMPTS, slope, config=config, method="plain")
        gains.append(result.rewards - plain.rewards)
    assert bool((gains[0] > 1.2 * gains[1]).all())


def test_a_step_of_dno_moves_all_noise_by_adamw() -> None:
    p, rate = problem(slope, T, PROMPTS, seed=2), 0.1
    noise = torch.stack(own_noise(p), dim=1).flatten(2)
    run = MethodRun(DNO(iterations=1, learning_rate=rate)(p))
    outcome, trace = run.finish(), run.trace
    decay = torch.optim.AdamW([torch.zeros(1)]).defaults["weight_decay"]
    uphill = rate * torch.sign(torch.outer(_gains(T), WEIGHTS))
    expected = _x0(p, noise * (1 - rate * decay) + uphill)  # Adam's first step depends on the gradient's sign only
    torch.testing.assert_close(outcome.candidates[:, 0].flatten(1), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(trace[1].inner_rewards[0], expected @ WEIGHTS, rtol=1e-4, atol=1e-4)
    assert torch.equal(outcome.initial_latents, p.latents[:, 0])


def test_a_step_of_reno_moves_the_initial_latent_along_the_clipped_gradient() -> None:
    p = problem(slope, T, PROMPTS, seed=2)
    noise = torch.stack(own_noise(p), dim=1).flatten(2)
    outcome = MethodRun(ReNO(iterations=1, norm_weight=0.0)(p)).finish()
    noise[:, 0] += 5.0 * (1 + 0.9) * 0.1 * WEIGHTS / WEIGHTS.norm()  # Nesterov looks one momentum ahead
    torch.testing.assert_close(outcome.candidates[:, 0].flatten(1), _x0(p, noise))


def test_reno_keeps_the_norm_of_the_latent_against_the_reward() -> None:
    p = problem(slope, T, PROMPTS)
    settings = {"iterations": 6, "learning_rate": 2.0, "reward_weight": 3.0}
    free, held = (MethodRun(ReNO(norm_weight=w, **settings)(p)).finish().rewards for w in (0.0, 10.0))
    assert bool((held < free).all())


def test_the_norms_density_is_greatest_at_the_norm_of_gaussian_noise() -> None:
    x = torch.randn((2, 1, 4, 8, 8), generator=generator(0))
    radius = x.flatten(1).norm(dim=1).view(-1, 1, 1, 1, 1)
    at = [log_norm_density(x / radius * math.sqrt(255) * factor) for factor in (0.97, 1.0, 1.03)]
    assert bool(((at[1] > at[0]) & (at[1] > at[2])).all())
    d = 256
    torch.testing.assert_close(log_norm_density(x)[0], (d - 1) * x[0].norm().log() - x[0].square().sum() / 2)


@pytest.mark.parametrize("rival", [DNO(iterations=50, learning_rate=0.1), ReNO(iterations=30, norm_weight=0.0)])
def test_a_quadratic_reward_reaches_its_maximum(rival: DNO | ReNO) -> None:
    result = align(
        Gaussian(), PROMPTS, nearness, config=NullTTAConfig(num_inference_steps=T, guidance_scale=2.0), method=rival
    )
    assert bool((result.baseline_rewards < -0.5).all())
    assert bool((result.rewards > -0.01).all())
    rewards = torch.stack([step.inner_rewards[0] for step in result.trace])  # (n + 1, B)
    torch.testing.assert_close(result.rewards, rewards.max(0).values)
    torch.testing.assert_close(rewards[0], result.baseline_rewards)
    assert [step.index for step in result.trace] == list(range(rival.iterations + 1))
    assert {step.timestep for step in result.trace} == {0.0}


def test_a_gradient_is_clipped_per_prompt() -> None:
    gradient = torch.tensor([[[3.0], [4.0]], [[0.3], [0.4]], [[0.0], [0.0]]])
    expected = torch.tensor([[[0.6], [0.8]], [[0.3], [0.4]], [[0.0], [0.0]]])
    torch.testing.assert_close(clipped(gradient, 1.0), expected)


def test_gaussian_noise_is_probable_and_shifted_or_scaled_noise_is_not() -> None:
    z = torch.randn(4096, generator=generator(0))
    assert log_probability(z).item() > -1
    assert log_probability(z + 0.5).item() < -20
    assert log_probability(z * 1.5).item() < -20
    c, m, k = 0.8, 1024, 4  # all numbers alike: ‖mean‖ = 2c, and the covariance c²·11ᵀ has the eigenvalues 4c², 0
    M1, M2 = 2 * c, max(abs(4 * c**2 - 1), 1.0)
    off = math.sqrt(1 + M2) - 1 - math.sqrt(k / m)
    expected = 2 * math.log(2) - m * M1**2 / (2 * k) - m * off**2 / 2
    assert log_probability(torch.full((m * k,), c)).item() == pytest.approx(expected, rel=1e-4)


def test_dnos_regulariser_keeps_the_noise_nearer_to_gaussian() -> None:
    """Sixty steps have 183 numbers of noise, enough for a test of their distribution."""

    def sum_(images: Tensor, prompts: object) -> Tensor:
        return images.flatten(1).sum(1)

    p = problem(sum_, 60, seed=1)
    rewards = [
        MethodRun(DNO(iterations=4, learning_rate=0.2, regularisation=rho, permutations=5)(p)).finish().rewards
        for rho in (0.0, 5.0)
    ]
    assert rewards[1] < rewards[0] - 0.1
