"""DAS and FK steering on data ~ N(m, I) with a quadratic reward, where the tilted distribution is a known Gaussian."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from nulltta.algorithm import randomness, schedules
from nulltta.algorithm.streams import MethodRun
from nulltta.baselines import DAS, BestOfN, FKSteering
from nulltta.baselines.particles import initial_latents
from nulltta.baselines.resampling import RESAMPLING
from nulltta.baselines.smc import Weighted
from nulltta.contracts import Step
from nulltta.testing import nearness

from .linear import guided_means, noises, problem, sampler, tilted

N, T = 1500, 4


@pytest.mark.parametrize(
    "rival",
    [
        DAS(particles=N, temperature=2.0),
        DAS(particles=N, temperature=2.0, threshold=1.0, resampling="systematic"),
        FKSteering(particles=N, reward_weight=0.5, threshold=0.5),
        FKSteering(particles=N, reward_weight=0.5, resampling="systematic"),
        FKSteering(particles=N, reward_weight=0.5, potential="max", resampling="ssp"),
    ],
    ids=["das", "das always resampling", "fk", "fk always resampling", "fk max"],
)
def test_many_particles_are_the_tilted_distribution(rival: Any) -> None:
    p = problem(nearness, T)
    cloud = _end(rival.sample(p))
    mean, variance = tilted(T, guided_means(p)[0], 0.5)
    weights, x = cloud.log_weights[0].softmax(0), cloud.images[0].flatten(1).double()
    found = weights @ x
    spread = weights @ (x - found).square()
    torch.testing.assert_close(found, mean.double(), rtol=0, atol=0.07)
    torch.testing.assert_close(spread, torch.full((3,), variance, dtype=torch.float64), rtol=0.15, atol=0)


def test_without_reward_the_particles_are_plain_samples() -> None:
    p = problem(nearness, T, ["red", "green"])
    plain = MethodRun(BestOfN(samples=3)(p)).finish().candidates
    cloud = _end(FKSteering(particles=3, reward_weight=0.0, threshold=1.0).sample(p))
    torch.testing.assert_close(cloud.images, plain)
    assert bool((cloud.log_weights == 0).all())


def test_das_weights_are_the_exact_importance_weights() -> None:
    """In two steps without resampling, the second of them deterministic, log w = log p/q + r(x_0)/α."""
    p, count, alpha = problem(nearness, 2), 6, 0.7
    cloud = _end(DAS(particles=count, temperature=alpha, threshold=0.0).sample(p))
    first, last = sampler(2)
    mu, z = guided_means(p)[0], noises(p, count)[0]
    tempering = schedules.progress(1, schedules.annealing_coefficient("auto", 2))
    assert 0 < tempering < 1
    x = initial_latents(p, count)[0].flatten(1)
    mean = first.mean(x, mu)
    proposal = mean + first.std**2 * tempering / alpha * first.reward_gradient(x, mu)
    x1 = proposal + first.std * z
    x0 = last.mean(x1, mu)
    ratio = (Normal(mean, first.std).log_prob(x1) - Normal(proposal, first.std).log_prob(x1)).sum(-1)
    torch.testing.assert_close(cloud.images[0].flatten(1), x0)
    expected = ratio + nearness(x0, []) / alpha
    torch.testing.assert_close(cloud.log_weights[0], expected.double(), rtol=1e-5, atol=1e-4)


def test_das_resamples_gradients_and_values_with_their_particles(each_from_the_next: None) -> None:
    """A particle follows its ancestor's gradient, and its weight is divided by the ancestor's value."""
    p, count, alpha = problem(nearness, 3), 4, 0.7
    rival = DAS(particles=count, temperature=alpha, threshold=2.0, resampling="each from the next")
    cloud = _end(rival.sample(p))
    mu, z = guided_means(p)[0], noises(p, count)
    gamma = schedules.annealing_coefficient("auto", 3)
    x, steps = initial_latents(p, count)[0].flatten(1), sampler(3)
    log_w = torch.zeros(count)
    for i, step in enumerate(steps):
        ancestors = x.roll(-1, 0)
        now, then = (schedules.progress(k, gamma) / alpha for k in (i, i + 1))
        mean = step.mean(ancestors, mu)
        proposal = mean + step.std**2 * then * step.reward_gradient(ancestors, mu)
        x = proposal + step.std * z[i]
        following = steps[i + 1].reward(x, mu) if i + 1 < len(steps) else nearness(x, [])
        log_w = then * following - now * step.reward(ancestors, mu)
        if step.std > 0:
            log_w = log_w + (Normal(mean, step.std).log_prob(x) - Normal(proposal, step.std).log_prob(x)).sum(-1)
    torch.testing.assert_close(cloud.images[0].flatten(1), x, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(cloud.log_weights[0], log_w.double(), rtol=1e-5, atol=1e-4)
    assert torch.equal(cloud.initial, initial_latents(p, count).roll(-3, 1))


@pytest.mark.parametrize("potential", ["difference", "max"])
def test_fk_potentials_add_up_to_the_last_reward(potential: Any) -> None:
    cloud = _end(
        FKSteering(particles=5, reward_weight=3.0, potential=potential, threshold=0.0).sample(problem(nearness, 5))
    )
    torch.testing.assert_close(cloud.log_weights, 3.0 * cloud.rewards.double())


@pytest.mark.parametrize("potential", ["difference", "max"])
def test_fk_resamples_potentials_with_their_particles(each_from_the_next: None, potential: Any) -> None:
    p, count = problem(nearness, 3, seed=5), 8
    settings: dict[str, Any] = {"times": (1 / 3, 2 / 3), "resampling": "each from the next"}
    cloud = _end(FKSteering(particles=count, reward_weight=3.0, potential=potential, **settings).sample(p))
    mu, z, steps = guided_means(p)[0], noises(p, count), sampler(3)
    x, rewards = initial_latents(p, count)[0].flatten(1), []
    for i, step in enumerate(steps):
        x = step.mean(x.roll(-1, 0) if i else x, mu) + step.std * z[i]  # the times are those before steps 1 and 2
        if i < 2:
            rewards = [reward.roll(-1, 0) for reward in rewards] + [steps[i + 1].reward(x, mu)]
    first, second = (reward.roll(-1, 0) for reward in rewards)
    given = second if potential == "difference" else first + first.maximum(second)
    assert bool((first > second).any())
    assert bool((first < second).any())
    torch.testing.assert_close(cloud.images[0].flatten(1), x)
    torch.testing.assert_close(cloud.log_weights[0], (3.0 * (nearness(x, []) - given)).double(), rtol=1e-5, atol=1e-4)


def test_das_returns_the_particle_of_greatest_weight_and_fk_that_of_greatest_reward() -> None:
    p = problem(nearness, T, ["red", "green"])
    das, fk = DAS(particles=32, temperature=0.3, threshold=0.0), FKSteering(particles=32)
    for rival, ranked in ((das, "log_weights"), (fk, "rewards")):
        cloud, outcome = _end(rival.sample(p)), MethodRun(rival(p)).finish()
        assert torch.equal(outcome.selected, getattr(cloud, ranked).argmax(1))
        assert not torch.equal(cloud.log_weights.argmax(1), cloud.rewards.argmax(1))
        assert torch.equal(outcome.initial_latents, cloud.initial[torch.arange(2), outcome.selected])
        torch.testing.assert_close(outcome.rewards[0], nearness(outcome.candidates[0], []))


def test_fk_resamples_at_its_times_whatever_the_weights_unless_a_threshold_is_set(each_from_the_next: None) -> None:
    """With equal weights every effective sample size is N, and yet each particle changes place at both times."""
    p = problem(nearness, 3)
    always = FKSteering(particles=4, reward_weight=0.0, times=(1 / 3, 2 / 3), resampling="each from the next")
    by_size = _end(replace(always, threshold=1.0).sample(p))
    assert torch.equal(_end(always.sample(p)).initial, initial_latents(p, 4).roll(-2, 1))
    assert torch.equal(by_size.initial, initial_latents(p, 4))


def test_fk_scores_only_at_its_times_and_at_the_end() -> None:
    scored = [step.index for step in FKSteering()(problem(nearness, 10)) if step.candidate_rewards.numel()]
    assert scored == [1, 3, 5, 7, 9]  # of the latents that these steps lead to: those of steps 2, 4, 6 and 8, and x_0


def test_given_latents_are_the_first_particles() -> None:
    p = problem(nearness, T)
    given = torch.randn(p.latents.shape, generator=torch.Generator().manual_seed(9))
    cloud = _end(FKSteering(particles=3, threshold=0.0).sample(replace(p, latents=given)))
    assert torch.equal(cloud.initial[:, :1], given)
    assert torch.equal(cloud.initial[:, 1:], randomness.initial_latents(p.model, p.seeds, 3, 3)[:, 1:])


@pytest.fixture
def each_from_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make particle n+1 the ancestor of particle n, so that whatever is not resampled is wrong in all."""

    def scheme(weights: Tensor, generator: torch.Generator) -> Tensor:
        return torch.arange(len(weights)).roll(-1)

    monkeypatch.setitem(RESAMPLING, "each from the next", scheme)  # type: ignore[arg-type]


def _end(stream: Generator[Step, None, Weighted]) -> Weighted:
    """Exhaust a generator of steps and return its value."""
    found: list[Weighted] = []

    def exhaust() -> Generator[Step, None, None]:
        found.append((yield from stream))

    list(exhaust())
    return found[0]
